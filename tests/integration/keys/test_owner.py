"""The owner's commands with Vault behind her keystore, as docs/how-to/vault.md has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from ensconce.cli.main import app
from ensconce.errors import EnsconceError

if TYPE_CHECKING:
    from conftest import Vault


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    def call(*arguments: str, given: bytes | None = None) -> str:
        done = CliRunner().invoke(app, [*arguments, "--owner", str(tmp_path / "owner")], input=given)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.stdout

    made = CliRunner().invoke(app, ["init", str(tmp_path / "owner"), "--domain", "d.test", "--model", "m"])
    assert made.exit_code == 0
    return call


def test_from_the_key_file_to_vault_through_a_rotation_and_back(
    vault: Vault, run: Callable[..., str], tmp_path: Path
) -> None:
    owner = tmp_path / "owner"
    token = vault.token().read_bytes()
    (owner / "vault.token").write_bytes(token)
    (owner / "vault.token").chmod(0o600)
    (tmp_path / "vault.yaml").write_text(
        f"keystore:\n  kind: vault\n  address: {vault.address}\n  key: ensconce\n"
        f"  token_file: vault.token\n  ca_file: {vault.ca_file}  # an absolute path\n"
    )
    run("key", "put", "secret/a", "--from", "-", given=b"abc")
    run("key", "rewrap", "--to", str(tmp_path / "vault.yaml"))
    assert not (owner / "unlock.key").exists()
    assert f"address: {vault.address}" in (owner / "ensconce.yaml").read_text()
    vault.admin("POST", "transit/keys/ensconce/rotate")
    run("key", "rewrap")
    vault.admin("POST", "transit/keys/ensconce/config", min_decryption_version=2)
    assert {each["id"] for each in json.loads(run("key", "list", "--json"))["keys"]} >= {"secret/a", "signing/owner"}
    with vault.sealed(), pytest.raises(EnsconceError) as caught:
        run("key", "list")
    assert caught.value.check == "vault.sealed"
    run("key", "rewrap", "--to", "file")
    assert (owner / "unlock.key").stat().st_mode & 0o777 == 0o600
    said = run("audit", "show") + run("key", "list")
    assert token.decode().strip() not in said
    assert "before=vault" in said


def test_the_token_is_in_no_file_but_its_own(vault: Vault, run: Callable[..., str], tmp_path: Path) -> None:
    owner, token = tmp_path / "owner", vault.token()
    (tmp_path / "vault.yaml").write_text(
        f"keystore: {{kind: vault, address: '{vault.address}', key: ensconce, token_file: {token}, "
        f"ca_file: {vault.ca_file}}}\n"
    )
    run("key", "rewrap", "--to", str(tmp_path / "vault.yaml"))
    secret = token.read_bytes().strip()
    assert not any(secret in path.read_bytes() for path in owner.rglob("*") if path.is_file())
