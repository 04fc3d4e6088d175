"""What the owner does with her keystore, and what a kill at any moment leaves."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ensconce.audit import folder
from ensconce.cluster import custody, unlocking
from ensconce.cluster.custody import Recovered, backup, checked_keystore, put_secret, recover, retire_key, rewrap
from ensconce.cluster.deployment import Deployment
from ensconce.cluster.keystore_entry import (
    FileEntry,
    KeystoreEntry,
    PassphraseEntry,
    VaultEntry,
    unlock_of,
)
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.recorded import RecordedKeystore
from ensconce.errors import EnsconceError, InputError, IntegrityError, RefusedError, UnreachableError
from ensconce.keys import FolderPlace, SecretBuffer
from ensconce.keys.unlock import Sort

PHRASE = "correct horse battery"
PASSPHRASE = PassphraseEntry(kind="passphrase")


def refused(act: Callable[[], object], check: str, kind: type[EnsconceError] = InputError) -> EnsconceError:
    with pytest.raises(kind) as caught:
        act()
    assert caught.value.check == check, caught.value
    return caught.value


def events(owner: OwnerFolder) -> list[str]:
    return [entry.event for entry in owner.verified_log()[1]]


def fields(owner: OwnerFolder, event: str) -> dict[str, object]:
    return dict(next(entry.fields for entry in reversed(owner.verified_log()[1]) if entry.event == event))


def files(owner: OwnerFolder) -> dict[str, bytes]:
    return {str(path.relative_to(owner.path)): path.read_bytes() for path in owner.path.rglob("*") if path.is_file()}


# --- secrets


def test_a_secret_is_recorded_stored_and_retired(owner: OwnerFolder) -> None:
    put_secret(owner, "secret/license", b"a secret of its own\n")
    assert owner.keystore().get("secret/license") == b"a secret of its own\n"
    retire_key(owner, "secret/license")
    refused(lambda: owner.keystore().get("secret/license"), "key.retired", RefusedError)
    refused(lambda: put_secret(owner, "secret/license", b"x"), "key.exists")
    assert events(owner) == ["owner.created", "key.added", "key.retiring", "key.retired"]
    assert fields(owner, "key.added") == {"key_id": "secret/license", "kind": "secret", "generation": 4}
    assert fields(owner, "key.retired")["generation"] == 6
    assert b"secret of its own" not in b"".join(files(owner).values())
    retire_key(owner, "secret/license")
    assert len(events(owner)) == 4


@pytest.mark.parametrize("key_id", ["license", "secret/", "secret/a/b", "secret/A", "model/m/1", "ca/root", "", "é"])
def test_what_is_no_secrets_id(owner: OwnerFolder, key_id: str) -> None:
    refused(lambda: put_secret(owner, key_id, b"x"), "key.id")


@pytest.mark.parametrize("size", [0, 16 * 1024 + 1])
def test_what_is_no_secrets_size(owner: OwnerFolder, size: int) -> None:
    refused(lambda: put_secret(owner, "secret/a", bytes(size)), "key.size")
    assert events(owner) == ["owner.created"]


@pytest.mark.parametrize("key_id", ["ca/root", "signing/owner", "signing/enclave"])
def test_keys_that_the_deployment_needs_are_not_retired(owner: OwnerFolder, key_id: str) -> None:
    refused(lambda: retire_key(owner, key_id), "key.needed")
    refused(lambda: retire_key(owner, "secret/nobody"), "key.unknown")
    assert events(owner) == ["owner.created"]


def test_what_may_be_told_about_a_key(owner: OwnerFolder) -> None:
    put_secret(owner, "secret/a", b"abc")
    assert custody.find_key(owner, "secret/a")[1] is None
    entry, public = custody.find_key(owner, "signing/owner")
    assert entry.kind == "ed25519"
    assert public is not None
    assert public.endswith(owner.public_key().public_bytes_raw())
    refused(lambda: custody.find_key(owner, "secret/nobody"), "key.unknown")


def _die(act: Callable[[], object], patch: Callable[[], None]) -> None:
    patch()
    act()


def killed(act: Callable[[], object], patch: Callable[[], None]) -> None:
    child = multiprocessing.get_context("fork").Process(target=_die, args=(act, patch))
    child.start()
    child.join(60)
    assert child.exitcode == 9


def on(module: object, name: str, nth: int = 1) -> Callable[[], None]:
    """A patch that ends the process at the ``nth`` call."""

    def patch() -> None:
        real, calls = getattr(module, name), iter(range(1, 99))

        def deadly(*arguments: object, **named: object) -> object:
            if next(calls) == nth:
                os._exit(9)
            return real(*arguments, **named)

        setattr(module, name, deadly)

    return patch


def test_a_retirement_that_was_cut_off_is_noticed_and_completed(owner: OwnerFolder) -> None:
    put_secret(owner, "secret/a", b"abc")
    killed(lambda: retire_key(owner, "secret/a"), on(custody.SealedKeystore, "_write"))
    assert events(owner)[-1] == "key.retiring"
    error = refused(lambda: checked_keystore(owner), "keystore.rollback", IntegrityError)
    assert error.remedy == "ensconce key retire secret/a"
    retire_key(owner, "secret/a")
    assert events(owner)[-1] == "key.retired"
    checked_keystore(owner)


def test_a_retirement_whose_last_entry_is_missing_gets_it(owner: OwnerFolder) -> None:
    put_secret(owner, "secret/a", b"abc")
    owner.keystore().retire("secret/a")
    retire_key(owner, "secret/a")
    assert events(owner)[-2:] == ["key.added", "key.retired"]


def test_a_keystore_that_was_put_back_is_told_by_the_log(owner: OwnerFolder) -> None:
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


def test_what_cannot_be_recorded_does_not_happen(owner: OwnerFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    put_secret(owner, "secret/a", b"abc")
    before = files(owner)

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
    assert files(owner) == before


# --- what opens the keystore


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


def test_round_through_every_unlock(owner: OwnerFolder, service: type[Service]) -> None:
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
    assert fields(owner, "keystore.rewrapped")["before"] == "passphrase"
    checked_keystore(owner)


def test_comments_in_the_deployment_file_stay(owner: OwnerFolder) -> None:
    text = "# mine\n" + owner.deployment_file.read_text() + "# the end\n"
    owner.deployment_file.write_text(text)
    rewrap(owner, PASSPHRASE)
    assert owner.deployment_file.read_text() == text + "keystore:\n  kind: passphrase\n"
    rewrap(owner, FileEntry())
    assert owner.deployment_file.read_text() == text


def test_a_deployment_file_that_cannot_be_edited_changes_nothing(owner: OwnerFolder) -> None:
    text = owner.deployment_file.read_text()
    owner.deployment_file.write_text(text + '"keystore": {kind: file}\n')
    before = files(owner)
    refused(lambda: rewrap(owner, PASSPHRASE), "deployment.keystore")
    assert files(owner) == before


def test_a_service_that_is_away_changes_nothing(owner: OwnerFolder, service: type[Service]) -> None:
    before = files(owner)
    service.away = True
    refused(lambda: rewrap(owner, VAULT), "vault.unreachable", UnreachableError)
    assert files(owner) == before


def test_two_passphrases_that_differ_or_one_that_is_short(owner: OwnerFolder) -> None:
    before = files(owner)
    typed = iter(["correct horse", "correct house"])
    refused(lambda: rewrap(OwnerFolder(owner.path, ask=lambda _: next(typed)), PASSPHRASE), "keystore.passphrase")
    refused(lambda: rewrap(OwnerFolder(owner.path, ask=lambda _: "short"), PASSPHRASE), "keystore.passphrase")
    assert files(owner) == before


def test_a_wrong_passphrase(owner: OwnerFolder) -> None:
    rewrap(owner, PASSPHRASE)
    wrong = OwnerFolder(owner.path, ask=lambda _: "correct house battery")
    error = refused(wrong.keystore, "keystore.seal", IntegrityError)
    assert "house" not in str(error)


def test_no_terminal(monkeypatch: pytest.MonkeyPatch, owner: OwnerFolder) -> None:
    rewrap(owner, PASSPHRASE)

    def none(path: object, *arguments: object, **named: object) -> int:
        raise OSError(6, "No such device or address")

    monkeypatch.setattr("getpass.os.open", none)
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        refused(OwnerFolder.open(owner.path).keystore, "keystore.passphrase")


def test_two_at_once(owner: OwnerFolder) -> None:
    def second(_: str) -> str:
        refused(lambda: rewrap(OwnerFolder(owner.path), None), "keystore.busy")
        return PHRASE

    rewrap(OwnerFolder(owner.path, ask=second), PASSPHRASE)


# The moments of a change, in their order, and what the keystore is opened by if there is a kill at each.
MOMENTS = {
    "announcing": (lambda: on(custody, "announce"), "before"),
    "recording": (lambda: on(custody.AuditLog, "append"), "before"),
    "writing": (lambda: on(custody.SealedKeystore, "_write"), "before"),
    "settling": (lambda: on(custody, "finish"), "after"),
    "deployment file": (lambda: on(unlocking, "write_aside", 2), "after"),
    "dropping the marker": (lambda: on(unlocking, "_drop"), "after"),
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
    owner: OwnerFolder, moment: str, before: KeystoreEntry, after: KeystoreEntry, monkeypatch: pytest.MonkeyPatch
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
    make_patch, left = MOMENTS[moment]
    killed(lambda: rewrap(owner, after), make_patch())

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


# --- another place


def test_a_keystore_in_a_database(tmp_path: Path, deployment: Callable[..., Deployment]) -> None:
    owner = OwnerFolder.create(tmp_path / "owner", deployment(state={"kind": "sqlite", "path": "state.db"}))
    assert not (owner.path / "keystore").exists()
    put_secret(owner, "secret/a", b"abc")
    rewrap(owner, None)
    assert OwnerFolder.open(owner.path).keystore().get("secret/a") == b"abc"
    handed: list[str] = []
    backup(owner, tmp_path / "b", 3, 2, lambda _n, _of, words: handed.append(words))
    refused(lambda: recover(owner, tmp_path / "b", handed), "keystore.exists")


# --- backup and recovery


@pytest.fixture
def backed_up(owner: OwnerFolder, tmp_path: Path) -> tuple[Path, list[str]]:
    put_secret(owner, "secret/a", b"abc")
    put_secret(owner, "secret/b", b"def")
    shares: list[str] = []
    backup(owner, tmp_path / "backup", 3, 2, lambda _n, _of, words: shares.append(words))
    return tmp_path / "backup", shares


def lose(owner: OwnerFolder) -> None:
    shutil.rmtree(owner.path / "keystore")
    owner.unlock_file.unlink(missing_ok=True)


def test_a_backup_is_recorded_and_private(owner: OwnerFolder, backed_up: tuple[Path, list[str]]) -> None:
    file, shares = backed_up
    assert file.stat().st_mode & 0o777 == 0o600
    entry = fields(owner, "keystore.backed_up")
    assert (entry["shares"], entry["threshold"], entry["generation"]) == (3, 2, 6)
    log = b"".join(path.read_bytes() for path in owner.audit_folder.iterdir())
    assert not any(" ".join(words.split()[3:6]).encode() in log for words in shares)


def test_recovery(owner: OwnerFolder, backed_up: tuple[Path, list[str]]) -> None:
    file, shares = backed_up
    before = owner.keystore()
    everything = {entry.key_id: before.get(entry.key_id) for entry in before.entries()}
    lose(owner)
    refused(owner.keystore, "owner.folder", IntegrityError)
    found = recover(owner, file, shares[1:])
    assert (found.retired, found.lost) == ((), ())
    again = checked_keystore(owner)
    assert {entry.key_id: again.get(entry.key_id) for entry in again.entries()} == everything
    assert events(owner)[-1] == "keystore.recovered"
    put_secret(owner, "secret/c", b"x")


def test_the_log_has_the_last_word(owner: OwnerFolder, backed_up: tuple[Path, list[str]]) -> None:
    file, shares = backed_up
    retire_key(owner, "secret/a")
    put_secret(owner, "secret/c", b"late")
    generation = owner.keystore().generation
    lose(owner)
    found = recover(owner, file, shares[:2])
    assert (found.retired, found.lost) == (("secret/a",), ("secret/c",))
    keystore = checked_keystore(owner)
    refused(lambda: keystore.get("secret/a"), "key.retired", RefusedError)
    assert keystore.get("secret/b") == b"def"
    assert keystore.generation >= generation


def test_recovery_under_a_passphrase(owner: OwnerFolder, backed_up: tuple[Path, list[str]]) -> None:
    file, shares = backed_up
    rewrap(owner, PASSPHRASE)
    lose(owner)
    recover(owner, file, shares)
    assert owner.keystore().get("secret/a") == b"abc"


def test_recovery_takes_a_key_file_that_is_there(owner: OwnerFolder, backed_up: tuple[Path, list[str]]) -> None:
    file, shares = backed_up
    key = owner.unlock_file.read_bytes()
    shutil.rmtree(owner.path / "keystore")
    recover(owner, file, shares)
    assert owner.unlock_file.read_bytes() == key


def test_what_recovery_refuses(
    owner: OwnerFolder,
    backed_up: tuple[Path, list[str]],
    tmp_path: Path,
    deployment: Callable[..., Deployment],
) -> None:
    file, shares = backed_up
    refused(lambda: recover(owner, file, shares), "keystore.exists")
    lose(owner)
    before = files(owner)
    refused(lambda: recover(owner, file, shares[:1]), "backup.too_few")
    refused(lambda: recover(owner, file, ["word " * 33, shares[0]]), "backup.share")
    refused(lambda: recover(owner, tmp_path / "nowhere", shares), "file.read")
    (tmp_path / "cut").write_bytes(file.read_bytes()[:-1])
    refused(lambda: recover(owner, tmp_path / "cut", shares), "keystore.seal", IntegrityError)
    other = OwnerFolder.create(tmp_path / "other", deployment())
    handed: list[str] = []
    backup(other, tmp_path / "others", 3, 2, lambda _n, _of, words: handed.append(words))
    refused(lambda: recover(owner, tmp_path / "others", handed), "backup.owner")
    assert files(owner) == before


def test_backups_that_are_refused(owner: OwnerFolder, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    refused(lambda: backup(owner, tmp_path / "there", 3, 2, lambda *_: None), "backup.exists")
    refused(lambda: backup(owner, tmp_path / "b", 3, 4, lambda *_: None), "backup.shares")
    assert events(owner) == ["owner.created"]


@pytest.mark.parametrize(
    "moment",
    [lambda: on(custody, "new_key_file"), lambda: on(custody.AuditLog, "append"), lambda: on(FolderPlace, "write")],
)
def test_killed_while_recovering(
    owner: OwnerFolder, backed_up: tuple[Path, list[str]], moment: Callable[[], Callable[[], None]]
) -> None:
    file, shares = backed_up
    lose(owner)
    killed(lambda: recover(owner, file, shares), moment())
    assert not (owner.path / "keystore" / "keystore.sealed").exists()
    assert isinstance(recover(owner, file, shares), Recovered)
    assert checked_keystore(owner).get("secret/a") == b"abc"


def test_a_log_whose_writer_was_killed_hinders_nobody(
    owner: OwnerFolder, backed_up: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """Not the one who recovers, least of all: without a keystore no other command could put the log right."""

    def kill_the_writer() -> None:
        killed(lambda: put_secret(owner, "secret/c", b"x"), on(folder, "write_aside"))
        refused(owner.verified_log, "audit.tail", IntegrityError)

    file, shares = backed_up
    acts: list[Callable[[], object]] = [
        lambda: checked_keystore(owner),
        lambda: rewrap(owner, None),
        lambda: backup(owner, tmp_path / "another", 3, 2, lambda *_: None),
    ]
    for act in acts:
        kill_the_writer()
        act()
        owner.verified_log()
    kill_the_writer()
    lose(owner)
    assert recover(owner, file, shares).lost == ("secret/c",)
    owner.verified_log()


def test_killed_while_backing_up_leaves_no_file(owner: OwnerFolder, tmp_path: Path) -> None:
    handed = on(custody, "_check_free", 2)
    killed(lambda: backup(owner, tmp_path / "b", 3, 2, lambda *_: None), handed)
    assert not (tmp_path / "b").exists()
    backup(owner, tmp_path / "b", 3, 2, lambda *_: None)


def test_a_backup_shows_no_share_before_its_file_is_on_the_disk(
    owner: OwnerFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[int] = []

    def hand_out(number: int, *_: object) -> None:
        shown.append(number)
        (part,) = tmp_path.glob(".b.*.part")
        assert part.stat().st_mode & 0o777 == 0o600
        assert len(part.read_bytes()) > 1000
        (tmp_path / "b").write_bytes(b"somebody else's")

    refused(lambda: backup(owner, tmp_path / "nowhere" / "b", 3, 2, hand_out), "file.create")
    assert shown == []
    refused(lambda: backup(owner, tmp_path / "b", 3, 2, hand_out), "backup.exists")
    assert (tmp_path / "b").read_bytes() == b"somebody else's"
    (tmp_path / "b").unlink()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(custody.os, "fsync", full)
    shown.clear()
    refused(lambda: backup(owner, tmp_path / "b", 3, 2, hand_out), "file.write")
    assert shown == []
    assert list(tmp_path.glob(".b.*")) == []


def test_a_recorded_keystore_is_a_keystore(owner: OwnerFolder) -> None:
    keystore = owner.keystore()
    recorded = RecordedKeystore(keystore, owner.audit_log(keystore))
    recorded.put("secret/a", b"x", kind="secret")
    assert recorded.get("secret/a") == b"x"
    assert recorded.entries() == keystore.entries()
    refused(lambda: recorded.retire("secret/b"), "key.unknown")
