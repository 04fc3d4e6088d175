"""What is moved in, from where, under which name; that the whole then runs is shown in tests/interop/gramine."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from fuzz.targets.elf import NEVER_LOADED, library

from ensconce.enclave.closing import LIBOS, close
from ensconce.enclave.gramine import Gramine
from ensconce.enclave.image import Image
from ensconce.enclave.layers import ImageFile, hash_file
from ensconce.errors import InputError

RUST = "site/cryptography/hazmat/bindings/_rust.abi3.so"
ENGINE = "site/openvino/_pyopenvino.cpython-311-x86_64-linux-gnu.so"


def elf(content: bytes, name: str | None = None) -> bytes:
    """A library with nothing behind what is loaded."""
    return library(content, name).removesuffix(NEVER_LOADED)


def write(folder: Path, name: str, data: bytes) -> ImageFile:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return hash_file(path, name)


@pytest.fixture
def gramine(tmp_path: Path) -> Gramine:
    write(tmp_path, "gramine/libsysdb.so", elf(b"library OS"))
    write(tmp_path, "gramine/runtime/libc.so.6", elf(b"Gramine's", "libc.so.6"))
    return Gramine(tmp_path / "gramine" / "libsysdb.so", tmp_path / "gramine" / "runtime")


@pytest.fixture
def system(tmp_path: Path) -> tuple[ImageFile, ...]:
    """An interpreter, a C library, and another library in a file of another name."""
    folder = tmp_path / "usr"
    files = {"bin/python3.11": elf(b"Python"), "libc-2.36.so": elf(b"the system's", "libc.so.6")}
    files["libz.so.1.2.13"] = elf(b"zlib", "libz.so.1")
    return tuple(hash_file(folder / name, str(folder / name)) for name in files if write(folder, name, files[name]))


def image(out: Path, system: tuple[ImageFile, ...], **contents: bytes) -> Image:
    files = [write(out, name, data) for name, data in contents.items()]
    return Image(system[0].path, tuple(sorted(files)), system, ())


def on_disk(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_the_system_moves_in_under_the_names_that_are_asked_for(
    tmp_path: Path, gramine: Gramine, system: tuple[ImageFile, ...]
) -> None:
    out = tmp_path / "image"
    closed = close(image(out, system, **{"lib/python3.11/os.pyc": b"code"}), out, gramine)
    names = ["gramine/libc.so.6", LIBOS, "lib/python3.11/os.pyc", "system/libz.so.1", "system/python3.11"]
    assert [file.path for file in closed.files] == names
    there = on_disk(out)
    assert sorted(there) == sorted(names)
    assert there["gramine/libc.so.6"].endswith(b"Gramine's")
    assert closed.interpreter == "system/python3.11"
    assert os.access(out / closed.interpreter, os.X_OK)
    assert closed.system_files == ()
    assert closed.bulk == ()


def test_each_file_has_the_hash_and_size_of_what_lies_there(
    tmp_path: Path, gramine: Gramine, system: tuple[ImageFile, ...]
) -> None:
    out = tmp_path / "image"
    closed = close(image(out, system, **{RUST: elf(b"Rust"), "site/a.pyc": b"code"}), out, gramine)
    for file in closed.files:
        assert hash_file(out / file.path, file.path) == file


def test_of_libraries_only_what_is_loaded_stays(
    tmp_path: Path, gramine: Gramine, system: tuple[ImageFile, ...]
) -> None:
    out, library = tmp_path / "image", elf(b"a library")
    contents = {"site/a.so": library + b"debugging information", "site/b.pyc": b"code", RUST: library + b"more of it"}
    close(image(out, system, **contents), out, gramine)
    there = on_disk(out)
    assert len(there["site/a.so"]) == len(there["bulk/_rust.abi3.so"]) == len(library)
    assert there["site/b.pyc"] == b"code"


def test_the_largest_libraries_are_set_aside_and_listed_in_the_order_of_need(
    tmp_path: Path, gramine: Gramine, system: tuple[ImageFile, ...]
) -> None:
    out = tmp_path / "image"
    libraries = {"site/openvino/libs/libopenvino.so": elf(b"openvino" * 9), "site/openvino/libs/libtbb.so": elf(b"tbb")}
    contents = {ENGINE: elf(b"binding"), RUST: elf(b"Rust"), "site/numpy.libs/libblas.so": elf(b"BLAS"), **libraries}
    closed = close(image(out, system, **contents), out, gramine)
    assert {file.path for file in closed.bulk} == {ENGINE, RUST, *libraries}
    listed = {file.path for file in closed.files}
    assert not listed & {file.path for file in closed.bulk}
    # Without the module that waits for it, nobody would: it stays a trusted file.
    assert "site/numpy.libs/libblas.so" in listed
    assert "bulk.json" in listed
    entries = json.loads((out / "bulk.json").read_text())
    assert [entry["module"] for entry in entries] == [
        "cryptography.hazmat.bindings._rust", "", "", "openvino._pyopenvino",
    ]  # fmt: skip
    assert [Path(entry["file"]).name for entry in entries][1:3] == ["libtbb.so", "libopenvino.so"]
    for entry in entries:
        data = (out / Path(entry["file"]).relative_to("enclave/image")).read_bytes()
        assert (entry["size"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert entry["target"] == f"enclave/image/checked/{Path(entry['file']).name}"


def test_folder_and_umask_make_no_difference(tmp_path: Path, gramine: Gramine, system: tuple[ImageFile, ...]) -> None:
    contents = {RUST: elf(b"Rust"), ENGINE: elf(b"binding"), "site/a.pyc": b"code"}
    closed = []
    for name, umask in (("one", 0o022), ("another/place", 0o077)):
        out = tmp_path / name
        before = os.umask(umask)
        try:
            closed.append(close(image(out, system, **contents), out, gramine))
        finally:
            os.umask(before)
    assert closed[0] == closed[1]


def test_gramines_own_file_is_taken_once(tmp_path: Path, gramine: Gramine, system: tuple[ImageFile, ...]) -> None:
    out, own = tmp_path / "image", str(gramine.runtime / "libc.so.6")
    closed = close(image(out, (*system, hash_file(Path(own), own)), **{"site/a.pyc": b""}), out, gramine)
    assert [file.path for file in closed.files].count("gramine/libc.so.6") == 1


def test_what_is_no_program_file_is_refused(tmp_path: Path, gramine: Gramine, system: tuple[ImageFile, ...]) -> None:
    out = tmp_path / "image"
    with pytest.raises(InputError) as caught:
        close(image(out, system, **{"site/a.so": b"#!/bin/sh"}), out, gramine)
    assert caught.value.check == "image.elf"


def test_what_is_gone_is_told(tmp_path: Path, gramine: Gramine, system: tuple[ImageFile, ...]) -> None:
    out = tmp_path / "image"
    Path(system[2].path).unlink()
    with pytest.raises(InputError) as caught:
        close(image(out, system, **{"site/a.pyc": b""}), out, gramine)
    assert (caught.value.check, caught.value.found) == ("image.stage", system[2].path)


def test_two_libraries_of_one_name_are_refused(tmp_path: Path, gramine: Gramine, system: tuple[ImageFile, ...]) -> None:
    out = tmp_path / "image"
    other = write(tmp_path, "usr/local/libz.so.1", elf(b"another", "libz.so.1"))
    both = (*system, ImageFile(str(tmp_path / "usr/local/libz.so.1"), other.size, other.sha256))
    with pytest.raises(InputError) as caught:
        close(image(out, both, **{"site/a.pyc": b""}), out, gramine)
    assert caught.value.check == "image.stage"
    assert caught.value.found == str(out / "system" / "libz.so.1")
