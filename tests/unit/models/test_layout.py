from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ensconce.errors import InputError, IntegrityError
from ensconce.models import layout
from ensconce.models.layout import ScannedFile, check_complete, check_name, check_version, scan, valid_file_path


@pytest.mark.parametrize("name", ["a", "digits", "0", "resnet-50_v2", "a" * 63])
def test_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", "A", "-a", "_a", "a.b", "a/b", "..", "a b", "a\n", "é", "a" * 64])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InputError) as caught:
        check_name(name)
    assert caught.value.check == "model.name"


def test_versions() -> None:
    check_version(1)
    check_version(2**31 - 1)
    for version in (0, -1, 2**31, 10**30):
        with pytest.raises(InputError) as caught:
            check_version(version)
        assert caught.value.check == "model.version"


@pytest.mark.parametrize("path", ["model.xml", "variables/variables.data-00000-of-00001", "assets/a b (1).txt", ".x"])
def test_paths(path: str) -> None:
    assert valid_file_path(path)


@pytest.mark.parametrize(
    "path",
    ["", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\\b", "a\nb", "a\0b", "é", "a" * 256, "a/" * 300 + "a"],
)
def test_paths_that_are_none(path: str) -> None:
    assert not valid_file_path(path)


def test_scan_lists_files_sorted(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "b" / "z").write_bytes(b"12")
    (tmp_path / "a").write_bytes(b"")
    assert scan(tmp_path, InputError) == (ScannedFile("a", 0), ScannedFile("b/z", 2))


def _link(path: Path) -> None:
    path.symlink_to("model.xml")


def _folder_link(path: Path) -> None:
    path.symlink_to(path.parent)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("make", [_link, _folder_link, os.mkfifo, _socket])
@pytest.mark.parametrize("problem", [InputError, IntegrityError])
def test_links_and_special_files_are_refused(tmp_path: Path, make, problem) -> None:
    (tmp_path / "sub").mkdir()
    make(tmp_path / "sub" / "x")
    with pytest.raises(problem) as caught:
        scan(tmp_path, problem)
    assert caught.value.check == "model.layout"
    assert caught.value.found == "'sub/x'"


def test_names_that_are_not_plain_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a\nb").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        scan(tmp_path, InputError)
    assert caught.value.found == "'a\\nb'"


def test_too_many_entries_and_too_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "e").mkdir()
    (tmp_path / "a").write_bytes(b"")
    with monkeypatch.context() as patch:
        patch.setattr(layout, "MAX_ENTRIES", 2)
        with pytest.raises(InputError) as caught:
            scan(tmp_path, InputError)
    assert "2 entries" in str(caught.value.found)
    with (tmp_path / "a").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError) as caught:
        scan(tmp_path, InputError)
    assert caught.value.check == "model.layout"


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        scan(tmp_path / "nowhere", IntegrityError)
    assert caught.value.check == "model.read"


def test_what_an_engine_needs() -> None:
    whole = tuple(ScannedFile(path, 1) for path in ("model.bin", "model.xml", "signatures.json"))
    check_complete(whole, "openvino")
    for files in ((), whole[1:], whole[:1], (ScannedFile("saved_model.pb", 1),), (ScannedFile("sub/model.xml", 1),)):
        with pytest.raises(InputError) as caught:
            check_complete(files, "openvino")
        assert caught.value.check == "model.layout"
    with pytest.raises(InputError) as caught:
        check_complete((*whole, ScannedFile("ensconce-contents.json", 1)), "openvino")
    assert caught.value.check == "model.layout"
    with pytest.raises(InputError) as caught:
        check_complete(whole, "onnx")  # type: ignore[arg-type]
    assert caught.value.check == "model.engine"
