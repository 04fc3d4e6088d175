"""Vault's transit engine as what opens a keystore, against the small server and, where there is one, a real one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ensconce.errors import InputError, IntegrityError, UnreachableError
from ensconce.keys import FolderPlace, SealedKeystore, SecretBuffer, new_key_file
from ensconce.keys.header import parse_header

if TYPE_CHECKING:
    from conftest import Vault

ROOT = bytes(range(32))
BINDING = {"ensconce:deployment": "d.test", "ensconce:keystore": "00"}


def root() -> SecretBuffer:
    return SecretBuffer.of(ROOT)


def test_what_was_wrapped_unwraps_and_for_nothing_else(vault: Vault, refused: Any) -> None:
    transit = vault.transit()
    wrapped = transit.wrap(root(), BINDING)
    assert wrapped.startswith("vault:v1:")
    with transit.unwrap(wrapped, BINDING) as again:
        assert bytes(again.view) == ROOT
    refused(lambda: transit.unwrap(wrapped, BINDING | {"ensconce:keystore": "01"}), IntegrityError, "vault.ciphertext")


@pytest.mark.parametrize("damage", ["garbage", "vault:v1:AAAA", "vault:v1:!!!!", "last"])
def test_a_damaged_wrapped_key(vault: Vault, damage: str, refused: Any) -> None:
    transit = vault.transit()
    if damage == "last":
        wrapped = transit.wrap(root(), BINDING)
        damage = wrapped[:20] + ("A" if wrapped[20] != "A" else "B") + wrapped[21:]
    refused(lambda: transit.unwrap(damage, BINDING), IntegrityError, "vault.ciphertext")


def test_a_keystore_through_its_life(vault: Vault, tmp_path: Path) -> None:
    transit = vault.transit()
    keystore = SealedKeystore.create(FolderPlace(tmp_path / "k"), transit, deployment="d.test")
    keystore.put("model/m/1", bytes(16), kind="wrap")
    assert SealedKeystore.open(FolderPlace(tmp_path / "k"), transit).get("model/m/1") == bytes(16)
    header = parse_header((tmp_path / "k" / "keystore.sealed").read_bytes())
    assert header.label is not None
    assert header.label.deployment == "d.test"


def test_rotating_vaults_key_and_wrapping_anew(vault: Vault, tmp_path: Path, refused: Any) -> None:
    transit = vault.transit()
    keystore = SealedKeystore.create(FolderPlace(tmp_path / "k"), transit)
    keystore.put("a", b"x", kind="secret")
    vault.admin("POST", "transit/keys/ensconce/rotate")
    assert SealedKeystore.open(FolderPlace(tmp_path / "k"), transit).get("a") == b"x"
    keystore.rewrap(transit)
    before = (tmp_path / "k" / "keystore.sealed").read_bytes()
    assert b"vault:v2:" in before
    vault.admin("POST", "transit/keys/ensconce/config", min_decryption_version=2)
    assert SealedKeystore.open(FolderPlace(tmp_path / "k"), transit).get("a") == b"x"
    vault.admin("POST", "transit/keys/ensconce/rotate")
    vault.admin("POST", "transit/keys/ensconce/config", min_decryption_version=3)
    error = refused(lambda: SealedKeystore.open(FolderPlace(tmp_path / "k"), transit), InputError, "vault.key_version")
    assert "min_decryption_version" in (error.remedy or "")
    vault.admin("POST", "transit/keys/ensconce/config", min_decryption_version=1)
    assert SealedKeystore.open(FolderPlace(tmp_path / "k"), transit).get("a") == b"x"


def test_from_a_key_file_to_vault_and_back(vault: Vault, tmp_path: Path, refused: Any) -> None:
    file, transit = new_key_file(tmp_path / "key"), vault.transit()
    keystore = SealedKeystore.create(FolderPlace(tmp_path / "k"), file)
    keystore.put("a", b"x", kind="secret")
    keystore.rewrap(transit, deployment="d.test")
    assert keystore.get("a") == b"x"
    refused(lambda: SealedKeystore.open(FolderPlace(tmp_path / "k"), file), InputError, "keystore.unlock")
    SealedKeystore.open(FolderPlace(tmp_path / "k"), transit).rewrap(file)
    assert SealedKeystore.open(FolderPlace(tmp_path / "k"), file).get("a") == b"x"
    refused(lambda: SealedKeystore.open(FolderPlace(tmp_path / "k"), transit), InputError, "keystore.unlock")


def test_a_token_that_may_wrap_and_not_unwrap_changes_nothing(vault: Vault, tmp_path: Path, refused: Any) -> None:
    file = new_key_file(tmp_path / "key")
    keystore = SealedKeystore.create(FolderPlace(tmp_path / "k"), file)
    before = (tmp_path / "k" / "keystore.sealed").read_bytes()
    transit = vault.transit(token_file=vault.token('path "transit/encrypt/ensconce" { capabilities = ["update"] }\n'))
    error = refused(lambda: keystore.rewrap(transit), InputError, "vault.permission")
    assert "transit/decrypt/ensconce" in (error.rule or "")
    assert (tmp_path / "k" / "keystore.sealed").read_bytes() == before
    assert SealedKeystore.open(FolderPlace(tmp_path / "k"), file).entries() == ()


def test_a_key_a_mount_or_a_policy_that_is_not_there(vault: Vault, refused: Any) -> None:
    wrapped = vault.transit().wrap(root(), BINDING)
    everything = vault.token('path "*" { capabilities = ["create", "update"] }\n')
    there = vault.transit(token_file=everything)
    other = vault.transit(token_file=everything, key="nobody")
    refused(lambda: other.unwrap(wrapped, BINDING), InputError, "vault.key")
    elsewhere = vault.transit(token_file=everything, mount="nowhere")
    refused(lambda: elsewhere.unwrap(wrapped, BINDING), InputError, "vault.mount")
    powerless = vault.transit(token_file=vault.token('path "else" { capabilities = ["update"] }\n'))
    refused(lambda: powerless.wrap(root(), BINDING), InputError, "vault.permission")
    with there.unwrap(wrapped, BINDING) as again:
        assert bytes(again.view) == ROOT


def test_a_token_that_vault_does_not_know_or_has_revoked(vault: Vault, refused: Any) -> None:
    token_file = vault.token()
    transit = vault.transit(token_file=token_file)
    wrapped = transit.wrap(root(), BINDING)
    vault.admin("POST", "auth/token/revoke", token=token_file.read_text().strip())
    for act in (lambda: transit.wrap(root(), BINDING), lambda: transit.unwrap(wrapped, BINDING)):
        error = refused(act, InputError, "vault.token")
        assert token_file.read_text().strip() not in str(error)
        assert error.__cause__ is None
    # An agent writes a new token to the same file.
    token_file.write_text(vault.token().read_text())
    with transit.unwrap(wrapped, BINDING) as again:
        assert bytes(again.view) == ROOT


@pytest.mark.parametrize("options", [{"type": "rsa-2048"}, {"derived": True}])
def test_a_key_of_the_wrong_type(vault: Vault, options: dict[str, object], refused: Any) -> None:
    name = "rsa" if "type" in options else "derived"
    vault.admin("POST", f"transit/keys/{name}", **options)
    everything = vault.token('path "transit/*" { capabilities = ["update"] }\n')
    transit = vault.transit(token_file=everything, key=name)
    error = refused(lambda: transit.wrap(root(), BINDING), InputError, "vault.request")
    assert "aes256-gcm96" in (error.remedy or "")


def test_a_sealed_vault(vault: Vault, tmp_path: Path, refused: Any) -> None:
    transit = vault.transit()
    keystore = SealedKeystore.create(FolderPlace(tmp_path / "k"), transit)
    with vault.sealed():
        error = refused(
            lambda: SealedKeystore.open(FolderPlace(tmp_path / "k"), transit), UnreachableError, "vault.sealed"
        )
        assert error.exit_status == 5
        # Who has opened the keystore needs Vault no more.
        keystore.put("a", b"x", kind="secret")
        assert keystore.get("a") == b"x"
    assert SealedKeystore.open(FolderPlace(tmp_path / "k"), transit).get("a") == b"x"


def test_a_certificate_that_nobody_vouches_for(vault: Vault, refused: Any) -> None:
    transit = vault.transit(ca_file=None)
    refused(lambda: transit.wrap(root(), BINDING), UnreachableError, "vault.tls")
