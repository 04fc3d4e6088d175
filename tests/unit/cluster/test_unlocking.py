"""Changes of what opens the keystore that were interrupted, and what may not be lost meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ensconce.cluster import custody, unlocking
from ensconce.cluster.custody import backup, checked_keystore, put_secret, recover, rewrap
from ensconce.cluster.deployment import Deployment
from ensconce.cluster.keystore_entry import FileEntry, KeystoreEntry, PassphraseEntry, VaultEntry, unlock_of
from ensconce.cluster.owner import OwnerFolder
from ensconce.errors import EnsconceError, InputError, IntegrityError, UnreachableError
from ensconce.keys import SealedKeystore, SecretBuffer
from ensconce.keys.unlock import Sort

ONE = VaultEntry(kind="vault", address="https://one.test", key="k", token_file="t")
TWO = ONE.model_copy(update={"address": "https://two.test"})
MARKER = "keystore.next.yaml"


class Vaults:
    """Key services in this process, by address, each with what is in its way."""

    sort = Sort.VAULT
    wrapped: dict[str, bytes]
    hindered: dict[str, EnsconceError]

    def __init__(self, address: str) -> None:
        self._address = address

    def wrap(self, root: SecretBuffer, _: Mapping[str, str]) -> str:
        self.wrapped[self._address] = bytes(root.view)
        return self._address

    def unwrap(self, wrapped: str, _: Mapping[str, str]) -> SecretBuffer:
        if self._address in self.hindered:
            raise self.hindered[self._address]
        if wrapped != self._address:
            raise IntegrityError("vault.ciphertext", "wrapped by another")
        return SecretBuffer.of(self.wrapped[self._address])


@pytest.fixture(autouse=True)
def vaults(monkeypatch: pytest.MonkeyPatch) -> type[Vaults]:
    Vaults.wrapped, Vaults.hindered = {}, {}

    def unlock(entry: KeystoreEntry, folder: Path, ask: Callable[[str], str]) -> object:
        return Vaults(entry.address) if isinstance(entry, VaultEntry) else unlock_of(entry, folder, ask)

    monkeypatch.setattr(unlocking, "unlock_of", unlock)
    monkeypatch.setattr(custody, "unlock_of", unlock)
    return Vaults


class Gone(BaseException):
    """The process ends here."""


def ended(act: Callable[[], object], module: object, name: str) -> None:
    """Do it until ``name`` is called; there, the process ends."""

    def end(*_: object, **__: object) -> None:
        raise Gone

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, end)
        with pytest.raises(Gone):
            act()


def refused(act: Callable[[], object], check: str) -> None:
    with pytest.raises(EnsconceError) as caught:
        act()
    assert caught.value.check == check, caught.value


@pytest.mark.parametrize(
    "hindrance", [InputError("vault.token", "expired"), UnreachableError("vault.unreachable", "away")]
)
def test_a_change_is_not_dropped_while_nobody_can_tell(
    owner: OwnerFolder, vaults: type[Vaults], hindrance: EnsconceError
) -> None:
    put_secret(owner, "secret/a", b"abc")
    rewrap(owner, ONE)
    ended(lambda: rewrap(owner, TWO), custody, "finish")
    vaults.hindered["https://two.test"] = hindrance
    for _ in range(2):
        refused(owner.keystore, hindrance.check)
        assert (owner.path / MARKER).exists()
    vaults.hindered.clear()
    assert owner.keystore().get("secret/a") == b"abc"
    assert owner.deployment().keystore == TWO


def test_a_change_that_was_not_made_is_dropped_though_the_new_service_is_away(
    owner: OwnerFolder, vaults: type[Vaults]
) -> None:
    rewrap(owner, ONE)
    ended(lambda: rewrap(owner, TWO), SealedKeystore, "_write")
    vaults.hindered["https://two.test"] = UnreachableError("vault.unreachable", "away")
    vaults.hindered["https://one.test"] = UnreachableError("vault.sealed", "sealed")
    refused(owner.keystore, "vault.unreachable")
    del vaults.hindered["https://one.test"]
    checked_keystore(owner)
    assert owner.deployment().keystore == ONE
    assert not (owner.path / MARKER).exists()


def test_a_mistyped_passphrase_decides_nothing(owner: OwnerFolder) -> None:
    ended(lambda: rewrap(owner, PassphraseEntry(kind="passphrase")), custody, "finish")
    refused(OwnerFolder(owner.path, ask=lambda _: "correct house battery").keystore, "keystore.seal")
    assert owner.unlock_file.exists()
    assert (owner.path / MARKER).exists()
    asked: list[str] = []
    OwnerFolder(owner.path, ask=lambda prompt: asked.append(prompt) or "correct horse battery").keystore()
    assert len(asked) == 1
    assert not owner.unlock_file.exists()


def test_a_keystore_that_is_exchanged_meanwhile_costs_no_key(owner: OwnerFolder) -> None:
    """Whoever can write the keystore alone, as in a database, could else have one of the two key files deleted."""
    sealed = owner.path / "keystore" / "keystore.sealed"
    ended(lambda: rewrap(owner, FileEntry()), custody, "finish")
    true = sealed.read_bytes()
    for false in (true[:-1], b"", true[:16] + b"\x01\x11\x08\x01" + true[20:], true[:16] + b"\x03" + true[17:]):
        sealed.write_bytes(false)
        with pytest.raises(EnsconceError):
            owner.keystore()
        assert owner.unlock_file.exists()
        assert (owner.path / "unlock.key.next").exists()
    sealed.write_bytes(true)
    checked_keystore(owner)


def test_a_key_file_that_was_made_for_nothing_is_not_taken_for_the_one_that_opens(
    owner: OwnerFolder, tmp_path: Path
) -> None:
    shares: list[str] = []
    backup(owner, tmp_path / "backup", 3, 2, lambda _n, _of, words: shares.append(words))
    ended(lambda: rewrap(owner, None), custody, "announce")
    shutil.rmtree(owner.path / "keystore")
    owner.unlock_file.unlink()
    recover(owner, tmp_path / "backup", shares)
    assert not (owner.path / "unlock.key.next").exists()
    ended(lambda: rewrap(owner, None), custody, "announce")
    checked_keystore(owner)


def test_the_only_key_file_is_never_removed_though_it_is_called_the_next(owner: OwnerFolder) -> None:
    # As a copy of the folder may be that was made in the middle of a change.
    ended(lambda: rewrap(owner, None), custody, "finish")
    (owner.path / MARKER).unlink()
    ended(lambda: rewrap(owner, None), custody, "new_key_file")
    checked_keystore(owner)
    assert not (owner.path / "unlock.key.next").exists()


@pytest.mark.parametrize("to", [None, PassphraseEntry(kind="passphrase"), ONE])
def test_a_command_that_begins_before_a_change_and_ends_after_it(
    owner: OwnerFolder, to: KeystoreEntry | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_secret(owner, "secret/a", b"abc")
    real, changed = unlocking.entry_of, []

    def read(*arguments: object) -> KeystoreEntry:
        entry = real(*arguments)  # type: ignore[arg-type]
        if not changed:
            changed.append(True)
            rewrap(OwnerFolder(owner.path, ask=owner.ask), to)
        return entry

    monkeypatch.setattr(unlocking, "entry_of", read)
    assert owner.keystore().get("secret/a") == b"abc"


def test_another_deployments_keystore_is_told_though_the_same_service_opens_it(
    owner: OwnerFolder, tmp_path: Path, deployment: Callable[..., Deployment]
) -> None:
    other = OwnerFolder.create(tmp_path / "other", deployment())
    for each in (owner, other):
        rewrap(each, ONE)
    sealed = Path("keystore", "keystore.sealed")
    shutil.copy(other.path / sealed, owner.path / sealed)
    for act in (owner.keystore, lambda: checked_keystore(owner), lambda: put_secret(owner, "secret/a", b"x")):
        refused(act, "keystore.owner")
