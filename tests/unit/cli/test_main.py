"""The command line as a whole: whatever happens, one line or one JSON document, and an exit status that is not 0."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ensconce.cli import main
from ensconce.errors import InputError

ENSCONCE = [sys.executable, "-m", "ensconce"]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["ensconce", *arguments])
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as left:
        main.main()
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["status", "--bogus"], "No such option: --bogus"),
        (["scale"], "Missing argument 'replicas'"),
        (["scale", "0"], "Invalid value for 'replicas'"),
        (["up", "now"], "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_one_line_and_one_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    assert run(monkeypatch, *arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert problem in said.err
    assert said.err.count("\n") == 1

    assert run(monkeypatch, *arguments, "--json") == 2
    said = capsys.readouterr()
    assert said.err == ""
    error = json.loads(said.out)["error"]
    assert error["check"] == "usage"
    assert error["remedy"].endswith("-h`")


def test_a_wrong_field_of_a_new_deployment_names_the_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(monkeypatch, "init", str(tmp_path / "owner"), "--domain", "NOT GOOD", "--model", "m", "--json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["check"], error["found"]) == ("yaml.value", '"NOT GOOD"')
    assert "`ensconce init -h`" in error["remedy"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_may_not_be_read_is_a_matter_of_permissions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "policy.yaml").touch()
    monkeypatch.setattr("os.access", lambda *_, **__: False)  # root may read everything
    assert run(monkeypatch, "policy", "check", str(tmp_path / "policy.yaml")) == 2
    assert "is not readable [usage]; remedy: check its permissions" in capsys.readouterr().err


def test_every_command_that_reports_something_has_json() -> None:
    # A server says what it does in its log, a proof is JSON already, and decrypted files are all that decrypting says.
    others = {"provision serve", "replica run", "simulated serve", "proxy", "dashboard", "audit prove", "file decrypt"}
    # Objects and values are what they print, for kubectl and Helm.
    others |= {"kubernetes render", "kubernetes values"}
    commands: dict[str, set[str]] = {}

    def walk(command: Any, name: str) -> None:
        for each, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{name} {each}")
        if not hasattr(command, "commands"):
            commands[name.strip()] = {option for each in command.params for option in each.opts}

    walk(typer.main.get_command(main.app), "")
    assert len(commands) > 30
    assert {name for name, options in commands.items() if "--json" not in options} == others


@pytest.mark.parametrize("arguments", [["model", "seal", "-h"], ["status", "-h"], ["-v", "init", "-h"]])
def test_a_part_that_is_called_says_what_it_says_in_the_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run(monkeypatch, *arguments) == 0
    whole = CliRunner().invoke(main.app, arguments, prog_name="ensconce")
    # The line before says how this program was started; widths are not the same.
    said = [text.partition("\n\n")[2].split() for text in (capsys.readouterr().out, whole.stdout)]
    assert said[0] == said[1] != []


@pytest.mark.parametrize("arguments", [[], ["model"]])
def test_no_command_prints_the_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_a_defect_is_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], extra: list[str]
) -> None:
    def broken(_host: Path) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("ensconce.cluster.host.status", broken)
    assert run(monkeypatch, "status", *extra) == 1
    said = capsys.readouterr()
    assert (said.out + said.err).count("\n") == 1
    assert "RuntimeError" in said.out + said.err


def test_what_only_the_system_says_comes_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(_host: Path) -> None:
        raise PermissionError(13, "Permission denied", "somewhere")

    monkeypatch.setattr("ensconce.cluster.host.status", denied)
    assert run(monkeypatch, "status") == InputError.exit_status
    assert "Permission denied [os.error]; found: somewhere; remedy: check the permissions" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["status"], ["--version"], ["status", "--json"]])
def test_a_full_disk_behind_every_stream(arguments: list[str], tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*ENSCONCE, *arguments], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, check=False)
        deaf = subprocess.run([*ENSCONCE, *arguments], cwd=tmp_path, stdout=full, stderr=full, check=False)
    assert done.returncode != 0
    assert deaf.returncode != 0
    assert done.stderr.count(b"\n") == 1, done.stderr


@pytest.mark.parametrize("redirection", [">&-", "<&- >&- 2>&-", "2>&-", "| true"])
def test_closed_streams(redirection: str, tmp_path: Path) -> None:
    command = f"set -o pipefail; '{sys.executable}' -m ensconce status --json {redirection}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode in (1, 5)
    assert b"Traceback" not in done.stderr


IMPATIENT = """
import os, signal, sys
from ensconce import __main__
from ensconce.cluster import host

def slow(_host):
    try:
        os.kill(os.getpid(), signal.{first})
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        sys.stderr.write("undone, ")

host.status = slow
sys.argv = ["ensconce", "status"]
__main__.main()
"""


def test_down_for_programs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setattr("ensconce.cluster.host.down", lambda _host: None)
    assert run(monkeypatch, "down", "--host", str(tmp_path), "--json") == 0
    said = capsys.readouterr()
    assert (json.loads(said.out), said.err) == ({"stopped": str(tmp_path)}, "")


@pytest.mark.parametrize(("first", "status", "says"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "")])
def test_a_second_ctrl_c_does_not_stop_the_clearing_up(first: str, status: int, says: str) -> None:
    script = IMPATIENT.format(first=first)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (status, f"undone, {says}".strip())
