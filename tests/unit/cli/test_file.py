from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ensconce import encfile
from ensconce.cli.file import app
from ensconce.errors import EnsconceError, InputError, IntegrityError

KEY = bytes(range(16))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("key").write_bytes(KEY)
    Path("in").write_bytes(b"data" * 5000)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def error(*arguments: str) -> EnsconceError:
    before = sorted(Path().iterdir())
    found = run(*arguments).exception
    assert isinstance(found, EnsconceError)
    assert sorted(Path().iterdir()) == before
    return found


def test_the_path_inside_is_the_output_as_typed(here: Path) -> None:
    Path("sub").mkdir()
    result = run("encrypt", "-w", "key", "-i", "in", "-o", "./sub//x.pf")
    assert result.exit_code == 0
    mark = encfile.fingerprint(here / "sub/x.pf").hex()
    assert result.stdout == f"path inside  sub/x.pf\nfingerprint  {mark}\n"
    assert result.stderr == ""
    assert encfile.decrypt_bytes(here / "sub/x.pf", KEY, verify_path="sub/x.pf") == Path("in").read_bytes()


def test_fingerprints_for_programs(here: Path) -> None:
    made = run("encrypt", "-w", "key", "-i", "in", "-o", "./x.pf", "--json")
    assert json.loads(made.stdout) == {"path": "x.pf", "fingerprint": encfile.fingerprint(here / "x.pf").hex()}
    stray = os.fsdecode(b"stray \xff\n")
    (here / "tree").mkdir()
    for name in ("a", stray):
        (here / "tree" / name).write_bytes(b"data")
    made = run("encrypt", "-w", "key", "-i", "tree", "-o", "out", "--path", "m//1", "--json")
    marks = {name: encfile.fingerprint(here / "out" / name).hex() for name in ("a", stray)}
    assert json.loads(made.stdout) == {"path": "m/1", "fingerprints": marks}


@pytest.mark.parametrize("format", ["1", "2"])
def test_round_trip_of_a_file(here: Path, format: str) -> None:
    made = run("encrypt", "--wrap-key", "key", "--input", "in", "--output", "enc", "--path", "m/x", "--format", format)
    assert made.exit_code == 0
    assert Path("enc").read_bytes()[8] == int(format)
    assert run("decrypt", "-w", "key", "-i", "enc", "-o", "out", "--verify-path", "m/x").exit_code == 0
    assert Path("out").read_bytes() == Path("in").read_bytes()
    assert run("decrypt", "-w", "key", "-i", "enc", "-o", "out2").exit_code == 0


def test_version_2_unless_told_otherwise() -> None:
    run("encrypt", "-w", "key", "-i", "in", "-o", "enc")
    assert Path("enc").read_bytes()[8] == 2
    assert run("encrypt", "-w", "key", "-i", "in", "-o", "enc", "--format", "3").exit_code == 2


def test_round_trip_of_a_folder(here: Path) -> None:
    Path("tree/a").mkdir(parents=True)
    Path("tree/a/b").write_bytes(b"x" * 9000)
    result = run("encrypt", "-w", "key", "-i", "tree", "-o", "enc/")
    assert result.stdout == "files        1\npath inside  enc/*\n"
    assert encfile.decrypt_bytes(here / "enc/a/b", KEY, verify_path="enc/a/b") == b"x" * 9000
    assert run("decrypt", "-w", "key", "-i", "enc", "-o", "out", "--verify-path", "enc").exit_code == 0
    assert Path("out/a/b").read_bytes() == b"x" * 9000
    assert error("decrypt", "-w", "key", "-i", "enc", "-o", "out2", "--verify-path", "other").check == "encfile.path"


def test_wrong_key_and_wrong_path() -> None:
    run("encrypt", "-w", "key", "-i", "in", "-o", "enc")
    Path("other").write_bytes(bytes(16))
    found = error("decrypt", "-w", "other", "-i", "enc", "-o", "out")
    assert isinstance(found, IntegrityError)
    assert found.check == "encfile.metadata_mac"
    assert error("decrypt", "-w", "key", "-i", "enc", "-o", "out", "--verify-path", "x").check == "encfile.path"
    assert error("decrypt", "-w", "key", "-i", "in", "-o", "out").check == "encfile.magic"


def test_wrong_input() -> None:
    Path("short").write_bytes(bytes(15))
    Path("folder").mkdir()
    for arguments in (
        ("-w", "missing", "-i", "in", "-o", "out"),
        ("-w", "short", "-i", "in", "-o", "out"),
        ("-w", "key", "-i", "missing", "-o", "out"),
        ("-w", "key", "-i", "in", "-o", "folder"),
        ("-w", "key", "-i", "in", "-o", "in"),
        ("-w", "key", "-i", "in", "-o", "no/such"),
        ("-w", "key", "-i", "in", "-o", ""),
        ("-w", "key", "-i", "/dev/null", "-o", "out"),
    ):
        assert isinstance(error("encrypt", *arguments), InputError), arguments
        assert isinstance(error("decrypt", *arguments), (InputError, IntegrityError)), arguments
    assert error("encrypt", "-w", "key", "-i", "in", "-o", "out", "--path", "").check == "encfile.path"


def test_options_that_are_missing() -> None:
    for missing in ("-w", "-i", "-o"):
        options = {"-w": "key", "-i": "in", "-o": "out"}
        del options[missing]
        for command in ("encrypt", "decrypt"):
            assert run(command, *(part for pair in options.items() for part in pair)).exit_code == 2


@pytest.mark.parametrize("command", ["encrypt", "decrypt"])
def test_help_has_examples(command: str) -> None:
    text = run(command, "--help").stdout
    assert f"ensconce file {command} -w wrap.key" in text


def test_the_bar_is_for_terminals_only(here: Path) -> None:
    program = "from ensconce.cli.file import app; app()"
    arguments = [sys.executable, "-c", program, "encrypt", "-w", "key", "-i", "in", "-o"]
    plain = subprocess.run([*arguments, "enc"], capture_output=True, check=True, cwd=here)
    assert plain.stderr == b""
    controller, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    shown = subprocess.run(
        [*arguments, "enc2"], stdout=subprocess.PIPE, stderr=terminal, check=True, cwd=here, env=environment
    )
    os.close(terminal)
    with os.fdopen(controller, "rb", buffering=0) as screen:
        assert b"encrypting" in screen.read(4096)
    assert shown.stdout.startswith(b"path inside")
