"""Another root key, another thing that opens the keystore, and what a kill at any moment leaves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ensconce.cluster import custody, unlocking
from ensconce.cluster.custody import checked_keystore, put_secret, rewrap
from ensconce.cluster.keystore_entry import (
    FileEntry,
    KeystoreEntry,
    PassphraseEntry,
    VaultEntry,
    unlock_of,
)
from ensconce.cluster.owner import OwnerFolder
from ensconce.errors import EnsconceError, InputError, IntegrityError, UnreachableError
from ensconce.keys import SecretBuffer
from ensconce.keys.unlock import Sort

if TYPE_CHECKING:
    from conftest import Owner

PHRASE = "correct horse battery"
PASSPHRASE = PassphraseEntry(kind="passphrase")


def refused(act: Callable[[], object], check: str, kind: type[EnsconceError] = InputError) -> EnsconceError:
    with pytest.raises(kind) as caught:
        act()
    assert caught.value.check == check, caught.value
    return caught.value


class Service:
    """A key service in this process."""

    wrapped: bytes = b""
    away = False
    sort = Sort.VAULT

    def wrap(self, root: SecretBuffer, binding: object) -> str:
        if Service.away:
            raise UnreachableError("vault.unreachable", "away")
        Service.wrapped = bytes(root.view)
        return "wrapped"

    def unwrap(self, wrapped: str, binding: object) -> SecretBuffer:
        if Service.away:
            raise UnreachableError("vault.unreachable", "away")
        return SecretBuffer.of(Service.wrapped)


VAULT = VaultEntry(kind="vault", address="https://v.test", key="k", token_file="t")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Service]]:
    def unlock(entry: KeystoreEntry, folder: Path, ask: Callable[[str], str]) -> object:
        return Service() if isinstance(entry, VaultEntry) else unlock_of(entry, folder, ask)

    monkeypatch.setattr(unlocking, "unlock_of", unlock)
    monkeypatch.setattr(custody, "unlock_of", unlock)
    yield Service
    Service.away = False


def test_round_through_every_unlock(owner: Owner, service: type[Service]) -> None:
    put_secret(owner, "secret/a", b"abc")
    text = owner.deployment_file.read_text()
    for entry in (None, PASSPHRASE, None, VAULT, None, FileEntry(), VAULT, PASSPHRASE, FileEntry()):
        rewrap(owner, entry)
        assert owner.keystore().get("secret/a") == b"abc"
        wanted = entry or owner.deployment().keystore or FileEntry()
        assert (owner.deployment().keystore or FileEntry()) == wanted
        assert owner.unlock_file.exists() is isinstance(wanted, FileEntry)
        assert not (owner.path / "keystore.next.yaml").exists()
        assert not (owner.path / "unlock.key.next").exists()
    assert owner.deployment_file.read_text() == text
    assert owner.fields("keystore.rewrapped")["before"] == "passphrase"
    checked_keystore(owner)


def test_comments_in_the_deployment_file_stay(owner: Owner) -> None:
    text = "# mine\n" + owner.deployment_file.read_text() + "# the end\n"
    owner.deployment_file.write_text(text)
    rewrap(owner, PASSPHRASE)
    assert owner.deployment_file.read_text() == text + "keystore:\n  kind: passphrase\n"
    rewrap(owner, FileEntry())
    assert owner.deployment_file.read_text() == text


def test_a_deployment_file_that_cannot_be_edited_changes_nothing(owner: Owner) -> None:
    text = owner.deployment_file.read_text()
    owner.deployment_file.write_text(text + '"keystore": {kind: file}\n')
    before = owner.files()
    refused(lambda: rewrap(owner, PASSPHRASE), "deployment.keystore")
    assert owner.files() == before


def test_a_service_that_is_away_changes_nothing(owner: Owner, service: type[Service]) -> None:
    before = owner.files()
    service.away = True
    refused(lambda: rewrap(owner, VAULT), "vault.unreachable", UnreachableError)
    assert owner.files() == before


def test_two_passphrases_that_differ_or_one_that_is_short(owner: Owner) -> None:
    before = owner.files()
    typed = iter(["correct horse", "correct house"])
    refused(lambda: rewrap(OwnerFolder(owner.path, ask=lambda _: next(typed)), PASSPHRASE), "keystore.passphrase")
    refused(lambda: rewrap(OwnerFolder(owner.path, ask=lambda _: "short"), PASSPHRASE), "keystore.passphrase")
    assert owner.files() == before


def test_a_wrong_passphrase(owner: Owner) -> None:
    rewrap(owner, PASSPHRASE)
    wrong = OwnerFolder(owner.path, ask=lambda _: "correct house battery")
    error = refused(wrong.keystore, "keystore.seal", IntegrityError)
    assert "house" not in str(error)


def test_no_terminal(monkeypatch: pytest.MonkeyPatch, owner: Owner) -> None:
    rewrap(owner, PASSPHRASE)

    def none(path: object, *arguments: object, **named: object) -> int:
        raise OSError(6, "No such device or address")

    monkeypatch.setattr("getpass.os.open", none)
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        refused(OwnerFolder.open(owner.path).keystore, "keystore.passphrase")


def test_two_at_once(owner: Owner) -> None:
    def second(_: str) -> str:
        refused(lambda: rewrap(OwnerFolder(owner.path), None), "keystore.busy")
        return PHRASE

    rewrap(OwnerFolder(owner.path, ask=second), PASSPHRASE)


# The moments of a change, in their order, and what the keystore is opened by if there is a kill at each.
MOMENTS = {
    "announcing": ((custody, "announce"), "before"),
    "recording": ((custody.AuditLog, "append"), "before"),
    "writing": ((custody.SealedKeystore, "_write"), "before"),
    "settling": ((custody, "finish"), "after"),
    "deployment file": ((unlocking, "write_aside", 2), "after"),
    "dropping the marker": ((unlocking, "_drop"), "after"),
}


CHANGES = [
    (FileEntry(), PASSPHRASE),
    (FileEntry(), FileEntry()),
    (PASSPHRASE, FileEntry()),
    (FileEntry(), VAULT),
    (VAULT, VaultEntry(kind="vault", address="https://w.test", key="k", token_file="t")),
]


@pytest.mark.parametrize(
    ("moment", "before", "after"),
    [
        (moment, before, after)
        for moment in MOMENTS
        for before, after in CHANGES
        if moment != "deployment file" or before != after
    ],
)
def test_killed_while_changing_what_opens_it(
    owner: Owner,
    moment: str,
    before: KeystoreEntry,
    after: KeystoreEntry,
    monkeypatch: pytest.MonkeyPatch,
    killed: Callable[..., None],
) -> None:
    root = owner.path / "wrapped"  # outlives the child

    class Kept:
        sort = Sort.VAULT

        def __init__(self, name: str) -> None:
            self.file = root.with_name(f"wrapped-{name}")

        def wrap(self, key: SecretBuffer, _: object) -> str:
            self.file.write_bytes(bytes(key.view))
            return self.file.name

        def unwrap(self, wrapped: str, _: object) -> SecretBuffer:
            if wrapped != self.file.name:
                raise IntegrityError("vault.ciphertext", "of another key")
            return SecretBuffer.of(self.file.read_bytes())

    def unlock(entry: KeystoreEntry, folder: Path, ask: Callable[[str], str]) -> object:
        return Kept(entry.address[8]) if isinstance(entry, VaultEntry) else unlock_of(entry, folder, ask)

    monkeypatch.setattr(unlocking, "unlock_of", unlock)
    monkeypatch.setattr(custody, "unlock_of", unlock)
    put_secret(owner, "secret/a", b"abc")
    if before != FileEntry():
        rewrap(owner, before)
    place, left = MOMENTS[moment]
    killed(lambda: rewrap(owner, after), *place)

    # A server that runs meanwhile, and whoever comes next, find it open.
    assert owner.keystore().get("secret/a") == b"abc"
    entry = owner.deployment().keystore or FileEntry()
    assert entry == (before if left == "before" else after)
    assert not (owner.path / "keystore.next.yaml").exists()
    checked_keystore(owner)
    rewrap(owner, after)
    assert owner.keystore().get("secret/a") == b"abc"
    assert (owner.deployment().keystore or FileEntry()) == after
    assert owner.unlock_file.exists() is isinstance(after, FileEntry)
    assert not (owner.path / "unlock.key.next").exists()
