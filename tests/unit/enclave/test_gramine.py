import os
from pathlib import Path

import pytest

from ensconce.enclave.gramine import Gramine
from ensconce.errors import InputError


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin:/bin")
    program(tmp_path, "gramine-sgx", 'echo "Gramine 1.9 (v1.9)"')
    program(tmp_path, "gramine-manifest", 'printf \'[ensconce]\\nlibos = "/g/libsysdb.so"\\nruntime = "/g/glibc"\\n\'')
    return tmp_path


def test_it_says_itself_where_its_parts_are(programs: Path) -> None:
    assert Gramine.find() == Gramine(Path("/g/libsysdb.so"), Path("/g/glibc"))


def test_another_release_is_refused(programs: Path) -> None:
    program(programs, "gramine-sgx", 'echo "Gramine 1.8 (v1.8)"')
    with pytest.raises(InputError) as caught:
        Gramine.find()
    assert caught.value.check == "gramine.version"


def test_no_gramine_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError) as caught:
        Gramine.find()
    assert caught.value.check == "gramine.missing"


def test_what_its_tool_says_last_is_told(programs: Path, tmp_path: Path) -> None:
    program(programs, "gramine-sgx-sign", "echo 'no such file' >&2; exit 3")
    with pytest.raises(InputError) as caught:
        Gramine.find().measure(tmp_path / "server.manifest", tmp_path / "server.manifest.sgx")
    assert (caught.value.check, caught.value.found) == ("gramine.failed", "no such file")
