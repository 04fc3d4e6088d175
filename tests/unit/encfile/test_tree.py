from __future__ import annotations

import os
from pathlib import Path

import pytest

from ensconce import encfile
from ensconce.encfile.tree import scan_tree
from ensconce.errors import InputError, IntegrityError

KEY = bytes(range(16))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "saved"
    (root / "variables" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "saved_model.pb").write_bytes(b"graph")
    (root / "variables" / "data").write_bytes(b"w" * 10000)
    (root / "variables" / "deep" / "none").write_bytes(b"")
    (root / "link").symlink_to("variables/data")
    return root


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refused(source: Path, target: Path) -> InputError:
    before = names(target.parent)
    with pytest.raises(InputError) as caught:
        encfile.encrypt_tree(source, target, KEY, embedded_root="m")
    assert names(target.parent) == before
    return caught.value


@pytest.mark.parametrize("format", [1, 2])
def test_round_trip(tmp_path: Path, source: Path, format: encfile.Format) -> None:
    told: list[int] = []
    made = encfile.encrypt_tree(
        source, tmp_path / "enc", KEY, embedded_root="models//m/1", format=format, progress=told.append
    )
    assert sum(told) == scan_tree(source).size == 20005
    assert list(made) == ["link", "saved_model.pb", "variables/data", "variables/deep/none"]
    for name, mark in made.items():
        assert encfile.fingerprint(tmp_path / "enc" / name) == mark
        content = encfile.decrypt_bytes(tmp_path / "enc" / name, KEY, verify_path=f"models/m/1/{name}")
        assert content == (source / name).read_bytes()
    (tmp_path / "out").mkdir()  # an empty folder is as good as none
    encfile.decrypt_tree(tmp_path / "enc", tmp_path / "out", KEY, verify_root="models/m/1")
    assert scan_tree(tmp_path / "out").folders == ("empty", "variables", "variables/deep")
    for name in made:
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    assert names(tmp_path) == ["enc", "out", "saved"]


def test_links_out_of_the_tree_are_refused(tmp_path: Path, source: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    (source / "out").symlink_to("../secret")
    assert refused(source, tmp_path / "enc").check == "encfile.tree"


@pytest.mark.parametrize("goal", ["variables", "nowhere", "loop", "."])
def test_other_links_are_refused(tmp_path: Path, source: Path, goal: str) -> None:
    (source / "loop").symlink_to(goal)
    assert refused(source, tmp_path / "enc").check == "encfile.tree"


def test_special_files_are_refused(tmp_path: Path, source: Path) -> None:
    os.mkfifo(source / "variables" / "pipe")
    assert "regular file" in refused(source, tmp_path / "enc").problem


def test_outputs_that_cannot_be_meant(tmp_path: Path, source: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_bytes(b"")
    (tmp_path / "file").write_bytes(b"")
    for target in (tmp_path / "full", tmp_path / "file", source, source / "sub", source / "empty"):
        assert refused(source, target).check == "encfile.output"
    with pytest.raises(InputError):
        encfile.encrypt_tree(source, tmp_path / "no" / "such", KEY, embedded_root="m")
    with pytest.raises(InputError):
        encfile.encrypt_tree(tmp_path / "missing", tmp_path / "enc", KEY, embedded_root="m")


def test_a_path_that_is_too_long_is_told_before_anything_is_written(tmp_path: Path, source: Path) -> None:
    told: list[int] = []
    with pytest.raises(InputError, match="too long"):
        encfile.encrypt_tree(source, tmp_path / "enc", KEY, embedded_root="m" * 760, progress=told.append)
    assert not told
    assert names(tmp_path) == ["saved"]


def test_one_bad_file_and_nothing_is_written(tmp_path: Path, source: Path) -> None:
    encfile.encrypt_tree(source, tmp_path / "enc", KEY, embedded_root="m")
    changed = tmp_path / "enc" / "variables" / "data"
    blob = bytearray(changed.read_bytes())
    blob[-1] ^= 1
    changed.write_bytes(blob)
    with pytest.raises(IntegrityError, match=r"^variables/data: node 3") as caught:
        encfile.decrypt_tree(tmp_path / "enc", tmp_path / "out", KEY, verify_root="m")
    assert caught.value.check == "encfile.node_mac"
    assert names(tmp_path) == ["enc", "saved"]


def test_files_that_changed_places_are_refused(tmp_path: Path, source: Path) -> None:
    encfile.encrypt_tree(source, tmp_path / "enc", KEY, embedded_root="m")
    one, other = tmp_path / "enc" / "saved_model.pb", tmp_path / "enc" / "variables" / "deep" / "none"
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    with pytest.raises(IntegrityError) as caught:
        encfile.decrypt_tree(tmp_path / "enc", tmp_path / "out", KEY, verify_root="m")
    assert caught.value.check == "encfile.path"
    encfile.decrypt_tree(tmp_path / "enc", tmp_path / "out", KEY, verify_root=None)


def test_an_interruption_leaves_nothing(tmp_path: Path, source: Path) -> None:
    def interrupt(_count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encfile.encrypt_tree(source, tmp_path / "enc", KEY, embedded_root="m", progress=interrupt)
    assert names(tmp_path) == ["saved"]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    name = os.fsdecode(b"caf\xe9")
    (folder / name).write_bytes(b"x")
    encfile.encrypt_tree(folder, tmp_path / "enc", KEY, embedded_root="m")
    encfile.decrypt_tree(tmp_path / "enc", tmp_path / "out", KEY, verify_root="m")
    assert (tmp_path / "out" / name).read_bytes() == b"x"


def test_a_target_that_comes_while_the_tree_is_made(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def somebody_else(_folder: Path) -> None:
        (tmp_path / "enc").mkdir()
        (tmp_path / "enc" / "theirs").write_bytes(b"")

    monkeypatch.setattr("ensconce.encfile.tree.sync_folder", somebody_else)
    with pytest.raises(InputError) as caught:
        encfile.encrypt_tree(source, tmp_path / "enc", KEY, embedded_root="m")
    assert caught.value.check == "encfile.output"
    assert names(tmp_path) == ["enc", "saved"]
    assert names(tmp_path / "enc") == ["theirs"]
