from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ensconce.cli.tls import app
from ensconce.errors import EnsconceError

DOMAIN = "models.example.test"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["issue", *arguments])


def test_files_are_named(here: Path) -> None:
    result = run(DOMAIN)
    assert result.exit_code == 0
    names = ["server.crt", "server.key", "ssl.cfg"]
    assert sorted(path.name for path in (here / "ssl_configure").iterdir()) == names
    again = run(DOMAIN, "--mutual", "--output", "tls", "--json")
    assert json.loads(again.stdout)["files"] == sorted([*names, "ca.crt", "ca.key", "client.crt", "client.key"])


@pytest.mark.parametrize(
    ("arguments", "check"),
    [
        (["under_score.test"], "address.domain"),
        ([DOMAIN, "--days", "0"], "tls.days"),
        ([DOMAIN, "--output", "no/where"], "tls.folder"),
        ([DOMAIN, "--output", "taken"], "tls.folder"),
    ],
)
def test_refusals_leave_nothing_behind(here: Path, arguments: list[str], check: str) -> None:
    (here / "taken").write_text("mine")
    error = run(*arguments).exception
    assert isinstance(error, EnsconceError)
    assert error.check == check
    assert error.exit_status == 2
    assert [path.name for path in here.iterdir()] == ["taken"]
    assert (here / "taken").read_text() == "mine"
