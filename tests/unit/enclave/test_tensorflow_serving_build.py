"""Staging; that what is staged gets its key and starts is shown in tests/interop/gramine."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from ensconce.enclave.gramine import Gramine
from ensconce.enclave.tensorflow_serving import LIBRARY
from ensconce.enclave.tensorflow_serving_build import stage_program
from ensconce.errors import InputError


def program() -> Path:
    """A program of this machine that needs libraries."""
    return Path(shutil.which("env") or sys.executable)


@pytest.fixture
def gramine(tmp_path: Path) -> Gramine:
    """Its parts are other libraries of this machine: what counts is where they lie."""
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    maps = Path("/proc/self/maps").read_text().split()
    folder = next(Path(word).parent for word in maps if "/libc.so.6" in word)
    for name, kind in ((LIBRARY, "libdl.so.2"), ("libc.so.6", "libc.so.6"), ("libsysdb.so", "libm.so.6")):
        shutil.copyfile(folder / kind, runtime / name)
    return Gramine(runtime / "libsysdb.so", runtime)


def test_the_program_comes_with_what_it_loads_and_with_gramines_client(tmp_path: Path, gramine: Gramine) -> None:
    image = stage_program(program(), tmp_path / "image", gramine)
    names = {file.path for file in image.files}
    assert {image.interpreter, "gramine/libsysdb.so", "gramine/libc.so.6", "system/libdl.so.2"} <= names
    assert "system/libc.so.6" not in names
    assert any("ld-linux" in name for name in names)
    assert "bulk.json" not in names
    assert image.bulk == ()


def test_a_gramine_without_its_client_is_refused(tmp_path: Path, gramine: Gramine) -> None:
    (gramine.runtime / LIBRARY).unlink()
    with pytest.raises(InputError) as caught:
        stage_program(program(), tmp_path / "image", gramine)
    assert caught.value.check == "tfserving.library"


@pytest.mark.parametrize("content", [b"#!/bin/sh\n", b"\x7fELF\2\1\1 no program"])
def test_what_the_loader_refuses_is_refused(tmp_path: Path, gramine: Gramine, content: bytes) -> None:
    (tmp_path / "server").write_bytes(content)
    (tmp_path / "server").chmod(0o755)
    with pytest.raises(InputError) as caught:
        stage_program(tmp_path / "server", tmp_path / "image", gramine)
    assert caught.value.check == "tfserving.program"


def test_a_folder_that_is_there_already_is_refused(tmp_path: Path, gramine: Gramine) -> None:
    (tmp_path / "image").mkdir()
    with pytest.raises(InputError) as caught:
        stage_program(program(), tmp_path / "image", gramine)
    assert caught.value.check == "image.stage"
