from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ensconce.encfile import encrypt_file
from ensconce.errors import EnsconceError, InputError, IntegrityError
from ensconce.models.contents import contents_bytes, parse_contents
from ensconce.models.layout import scan
from ensconce.models.load import open_sealed

if TYPE_CHECKING:
    from conftest import Owner


@pytest.fixture
def sealed(owner: Owner) -> Owner:
    owner.seal(1)
    return owner


def refused(
    owner: Owner, version: int = 1, key: bytes | None = None, kind: type[EnsconceError] = IntegrityError
) -> EnsconceError:
    with pytest.raises(kind) as caught:
        open_sealed(owner.models, "digits", version, key or owner.key(version))
    return caught.value


def test_every_file_comes_back_and_nothing_else(sealed: Owner) -> None:
    files = open_sealed(sealed.models, "digits", 1, sealed.key())
    assert files == sealed.plain()
    assert all(not data.readonly for data in files.values())


def test_the_folder_of_all_models_may_be_a_link(sealed: Owner, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(sealed.models)
    assert open_sealed(tmp_path / "models", "digits", 1, sealed.key()) == sealed.plain()


def test_last_weeks_ciphertext_does_not_open_with_todays_key(sealed: Owner) -> None:
    sealed.seal(2)
    folder = sealed.models / "digits"
    shutil.rmtree(folder / "2")
    shutil.copytree(folder / "1", folder / "2")
    error = refused(sealed, 2)
    assert error.check == "encfile.metadata_mac"
    assert error.found == "model digits, version 2, file ensconce-contents.json"
    # One old file among the new ones.
    shutil.rmtree(folder / "2")
    sealed.keystore.retire("model/digits/2")
    sealed.seal(3)
    shutil.copy(folder / "1" / "model.bin", folder / "3" / "model.bin")
    error = refused(sealed, 3)
    assert error.check == "encfile.metadata_mac"
    assert error.found == "model digits, version 3, file model.bin"


def test_a_file_in_anothers_place(sealed: Owner) -> None:
    folder = sealed.models / "digits" / "1"
    first, second = (folder / "model.xml").read_bytes(), (folder / "signatures.json").read_bytes()
    (folder / "model.xml").write_bytes(second)
    (folder / "signatures.json").write_bytes(first)
    error = refused(sealed)
    assert error.check == "encfile.path"
    assert str(error.found).startswith("model digits, version 1, file model.xml: ")


@pytest.mark.parametrize("at", [0, 20, 2000, 4096, 8192, -1])
def test_a_flipped_bit(sealed: Owner, at: int) -> None:
    path = sealed.models / "digits" / "1" / "model.bin"
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    error = refused(sealed)
    assert error.check.startswith("encfile.")
    assert "file model.bin" in str(error.found)


def test_a_file_cut_short_or_made_longer(sealed: Owner) -> None:
    path = sealed.models / "digits" / "1" / "model.bin"
    data = path.read_bytes()
    for changed in (data[:-4096], data + bytes(4096), data[:100], b""):
        path.write_bytes(changed)
        assert refused(sealed).check.startswith("encfile.")
    with path.open("wb") as file:
        file.write(data)
        file.truncate(2**35)  # sparse: the size is judged before memory is taken for it
    assert refused(sealed).check == "encfile.size"


@pytest.mark.parametrize("path", ["extra/empty", "extra/labels.txt", "model.bin", "signatures.json"])
def test_a_file_left_out(sealed: Owner, path: str) -> None:
    (sealed.models / "digits" / "1" / path).unlink()
    error = refused(sealed)
    assert error.check == "model.contents"
    assert "missing" in error.problem
    assert error.found == f"model digits, version 1, file {path}"


def test_the_list_left_out(sealed: Owner) -> None:
    (sealed.models / "digits" / "1" / "ensconce-contents.json").unlink()
    error = refused(sealed)
    assert error.check == "model.contents"
    assert error.found == "model digits, version 1"


def test_a_file_added_even_a_genuine_one(sealed: Owner) -> None:
    folder = sealed.models / "digits" / "1"
    shutil.copy(folder / "model.xml", folder / "more.xml")
    error = refused(sealed)
    assert error.check == "model.contents"
    assert "added" in error.problem
    assert error.found == "model digits, version 1, file more.xml"


def _to_link(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.rename(path.parents[3] / "elsewhere")
    path.symlink_to(path.parents[3] / target.name)


def _to_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("change", "check"), [(_to_link, "model.layout"), (_to_fifo, "model.layout"), (_to_folder, "model.contents")]
)
def test_a_link_or_a_device_in_a_files_place(sealed: Owner, change: Callable[[Path], None], check: str) -> None:
    change(sealed.models / "digits" / "1" / "model.bin")
    error = refused(sealed)
    assert error.check == check
    assert str(error.found).startswith("model digits, version 1")


@pytest.mark.parametrize("part", ["digits", "digits/1"])
def test_a_folder_that_is_a_link(sealed: Owner, part: str) -> None:
    path = sealed.models / part
    path.rename(sealed.models.parent / "elsewhere")
    path.symlink_to(sealed.models.parent / "elsewhere")
    assert refused(sealed).check == "model.layout"


def _a_link_to(target: str) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        file.unlink()
        file.symlink_to(target)

    return change


def _cut_off(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 4096)


@pytest.mark.parametrize(
    "change", [_a_link_to("/dev/zero"), _a_link_to("signatures.json"), _to_fifo, _to_folder, _cut_off, Path.unlink]
)
def test_what_changes_after_it_was_looked_at(
    sealed: Owner, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    def looked(folder: Path, problem: type[IntegrityError]) -> object:
        found = scan(folder, problem)
        change(folder / "model.bin")
        return found

    monkeypatch.setattr("ensconce.models.load.scan", looked)
    assert "file model.bin" in (refused(sealed, kind=EnsconceError).found or "")


def test_folders_that_are_swapped_all_the_time(sealed: Owner) -> None:
    sealed.seal(2)
    folder, stop = sealed.models / "digits", threading.Event()
    genuine = [(folder / str(number) / "model.bin").read_bytes() for number in (1, 2)]

    def swap() -> None:
        while not stop.is_set():
            for old, new in (("1", "aside"), ("2", "1"), ("aside", "2")):
                (folder / old).rename(folder / new)

    def overwrite() -> None:
        # Half of one version's ciphertext in the other's place, while it is read.
        at = 4096 * (len(genuine[0]) // 8192)
        while not stop.is_set():
            for data in genuine:
                with contextlib.suppress(OSError), (folder / "1" / "model.bin").open("r+b") as file:
                    file.seek(at)
                    file.write(data[at:])

    threads = [threading.Thread(target=each) for each in (swap, overwrite)]
    for thread in threads:
        thread.start()
    opened, until = [], time.monotonic() + 0.5
    try:
        while time.monotonic() < until:
            with contextlib.suppress(InputError, IntegrityError):
                opened.append(open_sealed(sealed.models, "digits", 1, sealed.key()))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    plain = sealed.plain()
    assert all(files == plain for files in opened)


def test_a_version_that_is_not_there(sealed: Owner) -> None:
    assert refused(sealed, 2, bytes(16), InputError).check == "model.missing"
    with pytest.raises(InputError) as caught:
        open_sealed(sealed.models, "../digits", 1, sealed.key())
    assert caught.value.check == "model.name"
    with pytest.raises(InputError) as caught:
        open_sealed(sealed.models, "digits", 0, sealed.key())
    assert caught.value.check == "model.version"


def test_a_wrong_key_does_not_show_in_the_error(sealed: Owner) -> None:
    key = bytes(range(100, 116))
    error = refused(sealed, 1, key)
    assert key.hex() not in str(error)
    assert repr(key) not in str(error)


def test_the_list_that_is_genuine_and_yet_no_list(sealed: Owner, tmp_path: Path) -> None:
    path = sealed.models / "digits" / "1" / "ensconce-contents.json"
    (tmp_path / "list").write_bytes(b'{"files":[]}')
    encrypt_file(tmp_path / "list", path, sealed.key(), embedded_path="models/digits/1/ensconce-contents.json")
    assert refused(sealed).check == "model.contents"


def test_contents_round_trip() -> None:
    assert parse_contents(contents_bytes(("b", "a/c"))) == {"b", "a/c"}
    for data in (b"", b"[]", b"{}", b'{"format":"ensconce-contents-1","files":[1]}', b"\xff"):
        with pytest.raises(IntegrityError):
            parse_contents(data)
