from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ensconce.serving.source import FolderSource, WatchedModel, every
from ensconce.tfserving.messages import ModelConfig

LATEST = ModelConfig().model_version_policy


class Wants:
    def __init__(self) -> None:
        self.told: list[tuple[str, list[int]]] = []

    def __call__(self, name: str, versions: Mapping[int, Path]) -> None:
        self.told.append((name, list(versions)))


@pytest.fixture
def wants() -> Wants:
    return Wants()


@pytest.fixture
def source(wants: Wants) -> FolderSource:
    return FolderSource(wants)


def watched(name: str, path: Path) -> WatchedModel:
    return WatchedModel(name, path, LATEST)


def test_what_has_not_changed_is_said_once(source: FolderSource, wants: Wants, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    assert source.update([watched("m", tmp_path)]) == {"m"}
    assert wants.told == []
    source.poll()
    source.poll()
    assert wants.told == [("m", [1])]
    assert source.update([watched("m", tmp_path)]) == frozenset()
    source.poll()
    assert wants.told == [("m", [1])]
    # A file counts as well as a folder, as in the original: loading it will say what is wrong.
    (tmp_path / "2").touch()
    source.poll()
    assert wants.told[1:] == [("m", [2])]


def test_another_folder_or_policy_is_looked_at_anew(source: FolderSource, wants: Wants, tmp_path: Path) -> None:
    for folder, version in (("a", "1"), ("b", "1")):
        (tmp_path / folder / version).mkdir(parents=True)
    source.update([watched("m", tmp_path / "a")])
    source.poll()
    source.update([watched("m", tmp_path / "b")])
    source.poll()
    assert wants.told == [("m", [1]), ("m", [1])]
    specific = ModelConfig()
    specific.model_version_policy.specific.versions.append(5)
    source.update([WatchedModel("m", tmp_path / "b", specific.model_version_policy)])
    source.poll()
    assert wants.told[2:] == [("m", [])]


def test_models_that_go_and_come(source: FolderSource, wants: Wants, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    source.update([watched("m", tmp_path), watched("n", tmp_path)])
    source.poll()
    assert source.update([watched("n", tmp_path), watched("o", tmp_path)]) == {"o"}
    assert wants.told[2:] == [("m", [])]
    source.update([watched("m", tmp_path)])
    source.poll()
    assert wants.told[3:] == [("n", []), ("o", []), ("m", [1])]


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_folder_that_cannot_be_read_changes_nothing(
    source: FolderSource, wants: Wants, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, good = tmp_path / "m", tmp_path / "n"
    if kind == "file":
        path.touch()
    (good / "1").mkdir(parents=True)
    source.update([watched("m", path), watched("n", good)])
    for _ in range(3):
        source.poll()
    assert wants.told == [("n", [1])]
    assert caplog.text.count(f"Could not find base path {path}") == 1


def test_an_error_is_logged_and_does_not_end_it(
    wait_for: Callable[[Callable[[], object], str], None], caplog: pytest.LogCaptureFixture
) -> None:
    stop, calls = threading.Event(), []

    def fail() -> None:
        calls.append(1)
        raise ValueError("no")

    thread = every(0.001, fail, stop, "the name")
    wait_for(lambda: len(calls) > 2, "it to be called again")
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    assert "the name: ValueError" in caplog.text
