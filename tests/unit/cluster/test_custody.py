"""What the owner does with her secrets, and what the log tells of a keystore."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ensconce.cluster import custody
from ensconce.cluster.custody import backup, checked_keystore, put_secret, recover, retire_key, rewrap
from ensconce.cluster.deployment import Deployment
from ensconce.cluster.keystore_entry import PassphraseEntry
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.recorded import RecordedKeystore
from ensconce.errors import EnsconceError, InputError, IntegrityError, RefusedError

if TYPE_CHECKING:
    from conftest import Owner

PHRASE = "correct horse battery"
PASSPHRASE = PassphraseEntry(kind="passphrase")


def refused(act: Callable[[], object], check: str, kind: type[EnsconceError] = InputError) -> EnsconceError:
    with pytest.raises(kind) as caught:
        act()
    assert caught.value.check == check, caught.value
    return caught.value


def test_a_secret_is_recorded_stored_and_retired(owner: Owner) -> None:
    put_secret(owner, "secret/license", b"a secret of its own\n")
    assert owner.keystore().get("secret/license") == b"a secret of its own\n"
    retire_key(owner, "secret/license")
    refused(lambda: owner.keystore().get("secret/license"), "key.retired", RefusedError)
    refused(lambda: put_secret(owner, "secret/license", b"x"), "key.exists")
    assert owner.events() == ["owner.created", "key.added", "key.retiring", "key.retired"]
    assert owner.fields("key.added") == {"key_id": "secret/license", "kind": "secret", "generation": 4}
    assert owner.fields("key.retired")["generation"] == 6
    assert b"secret of its own" not in b"".join(owner.files().values())
    retire_key(owner, "secret/license")
    assert len(owner.events()) == 4


@pytest.mark.parametrize("key_id", ["license", "secret/", "secret/a/b", "secret/A", "model/m/1", "ca/root", "", "é"])
def test_what_is_no_secrets_id(owner: Owner, key_id: str) -> None:
    refused(lambda: put_secret(owner, key_id, b"x"), "key.id")


@pytest.mark.parametrize("size", [0, 16 * 1024 + 1])
def test_what_is_no_secrets_size(owner: Owner, size: int) -> None:
    refused(lambda: put_secret(owner, "secret/a", bytes(size)), "key.size")
    assert owner.events() == ["owner.created"]


@pytest.mark.parametrize("key_id", ["ca/root", "signing/owner", "signing/enclave"])
def test_keys_that_the_deployment_needs_are_not_retired(owner: Owner, key_id: str) -> None:
    refused(lambda: retire_key(owner, key_id), "key.needed")
    refused(lambda: retire_key(owner, "secret/nobody"), "key.unknown")
    assert owner.events() == ["owner.created"]


def test_what_may_be_told_about_a_key(owner: Owner) -> None:
    put_secret(owner, "secret/a", b"abc")
    assert custody.find_key(owner, "secret/a")[1] is None
    entry, public = custody.find_key(owner, "signing/owner")
    assert entry.kind == "ed25519"
    assert public is not None
    assert public.endswith(owner.public_key().public_bytes_raw())
    refused(lambda: custody.find_key(owner, "secret/nobody"), "key.unknown")


def test_a_retirement_that_was_cut_off_is_noticed_and_completed(owner: Owner, killed: Callable[..., None]) -> None:
    put_secret(owner, "secret/a", b"abc")
    killed(lambda: retire_key(owner, "secret/a"), custody.SealedKeystore, "_write")
    assert owner.events()[-1] == "key.retiring"
    error = refused(lambda: checked_keystore(owner), "keystore.rollback", IntegrityError)
    assert error.remedy == "ensconce key retire secret/a"
    retire_key(owner, "secret/a")
    assert owner.events()[-1] == "key.retired"
    checked_keystore(owner)


def test_a_retirement_whose_last_entry_is_missing_gets_it(owner: Owner) -> None:
    put_secret(owner, "secret/a", b"abc")
    owner.keystore().retire("secret/a")
    retire_key(owner, "secret/a")
    assert owner.events()[-2:] == ["key.added", "key.retired"]


def test_a_keystore_that_was_put_back_is_told_by_the_log(owner: Owner) -> None:
    put_secret(owner, "secret/a", b"abc")
    sealed = owner.path / "keystore" / "keystore.sealed"
    early = sealed.read_bytes()
    retire_key(owner, "secret/a")
    sealed.write_bytes(early)
    error = refused(lambda: checked_keystore(owner), "keystore.rollback", IntegrityError)
    assert (error.found, error.rule) == ("generation 5", "at least generation 6")
    for act in (
        lambda: rewrap(owner, PASSPHRASE),
        lambda: backup(owner, owner.path / "b", 3, 2, lambda *_: None),
    ):
        refused(act, "keystore.rollback", IntegrityError)
    # Undone by something that writes often enough, the log still knows which keys are gone.
    keystore = owner.keystore()
    for number in range(3):
        keystore.put(f"secret/x{number}", b"x", kind="secret")
    error = refused(lambda: checked_keystore(owner), "keystore.rollback", IntegrityError)
    assert error.found == "secret/a"


def test_what_cannot_be_recorded_does_not_happen(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    put_secret(owner, "secret/a", b"abc")
    before = owner.files()

    def full(*_: object, **__: object) -> None:
        raise InputError("audit.write", "the disk is full")

    monkeypatch.setattr("ensconce.audit.log.AuditLog.append", full)
    handed: list[str] = []
    for act in (
        lambda: put_secret(owner, "secret/b", b"x"),
        lambda: retire_key(owner, "secret/a"),
        lambda: rewrap(owner, PASSPHRASE),
        lambda: backup(owner, owner.path / "b", 3, 2, lambda *_: handed.append("")),
    ):
        refused(act, "audit.write")
    assert handed == []
    # A marker may be left; it is dropped at the next opening.
    owner.keystore()
    assert owner.files() == before


def test_a_keystore_in_a_database(tmp_path: Path, deployment: Callable[..., Deployment]) -> None:
    owner = OwnerFolder.create(tmp_path / "owner", deployment(state={"kind": "sqlite", "path": "state.db"}))
    assert not (owner.path / "keystore").exists()
    put_secret(owner, "secret/a", b"abc")
    rewrap(owner, None)
    assert OwnerFolder.open(owner.path).keystore().get("secret/a") == b"abc"
    handed: list[str] = []
    backup(owner, tmp_path / "b", 3, 2, lambda _n, _of, words: handed.append(words))
    refused(lambda: recover(owner, tmp_path / "b", handed), "keystore.exists")


def test_a_recorded_keystore_is_a_keystore(owner: Owner) -> None:
    keystore = owner.keystore()
    recorded = RecordedKeystore(keystore, owner.audit_log(keystore))
    recorded.put("secret/a", b"x", kind="secret")
    assert recorded.get("secret/a") == b"x"
    assert recorded.entries() == keystore.entries()
    refused(lambda: recorded.retire("secret/b"), "key.unknown")
