"""Options about what is published: the same code for every command that judges."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ensconce.cli.main import app
from ensconce.errors import InputError

KEY = f"ed25519:58{'66' * 31}"
ISSUER = "https://issuer.test"
COMMANDS = {
    "verify": ["127.0.0.1:1"],
    "predict": ["127.0.0.1:1", "--server-name", "a.test", "--pccs", "x", "--model", "m", "--input"],
    "proxy": ["a.test:1", "--listen", "127.0.0.1:0"],
    "bench": ["a.test:1", "--model", "m"],
}


def run(command: str, tmp_path: Path, *arguments: str) -> BaseException | None:
    words = [command, *COMMANDS[command]]
    if command == "predict":
        (tmp_path / "rows.npy").write_bytes(
            b"\x93NUMPY\x01\x00v\x00"
            + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }".ljust(117)
            + b"\n\0\0\0\0"
        )
        words.append(str(tmp_path / "rows.npy"))
    return CliRunner().invoke(app, [*words, "--ca", str(tmp_path / "ca.pem"), *arguments]).exception


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--policy", "p", "--publisher", KEY), "about what is published"),
        (("--policy", "p", "--root", "intel"), "about what is published"),
        (
            ("--policy", "p", "--publisher-identity", "a@b.test", "--publisher-issuer", ISSUER),
            "about what is published",
        ),
        (("--policy", "p", "--sigstore-trust-root", "f"), "about what is published"),
        (("--policy", "p", "--published", "f", "--publisher", KEY, "--root", "intel"), "which roots"),
        (("--published", "f", "--publisher-identity", "a@b.test"), "belong together"),
        (("--published", "f", "--publisher", KEY, "--publisher-issuer", ISSUER), "belong together"),
        (("--published", "f", "--publisher", KEY, "--sigstore-trust-root", "f"), "belong together"),
        (("--published", "f"), "nobody is named"),
    ],
)
def test_wrong_usage(command: str, arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    error = run(command, tmp_path, *arguments)
    assert isinstance(error, InputError)
    assert said in error.problem


@pytest.mark.parametrize("command", COMMANDS)
def test_the_list_stands_for_a_policy(command: str, tmp_path: Path) -> None:
    error = run(command, tmp_path, "--published", str(tmp_path / "none.json"), "--publisher", KEY)
    # No word about a policy that is missing: the list is looked for, or before it the authority.
    assert isinstance(error, InputError)
    assert error.check == "file.read"
