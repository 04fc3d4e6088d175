"""Backup and recovery of the keystore, and what a kill at any moment leaves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ensconce.audit import folder
from ensconce.cluster import custody
from ensconce.cluster.custody import Recovered, backup, checked_keystore, put_secret, recover, retire_key, rewrap
from ensconce.cluster.deployment import Deployment
from ensconce.cluster.keystore_entry import PassphraseEntry
from ensconce.cluster.owner import OwnerFolder
from ensconce.errors import EnsconceError, InputError, IntegrityError, RefusedError
from ensconce.keys import FolderPlace

if TYPE_CHECKING:
    from conftest import Owner

PHRASE = "correct horse battery"
PASSPHRASE = PassphraseEntry(kind="passphrase")


def refused(act: Callable[[], object], check: str, kind: type[EnsconceError] = InputError) -> EnsconceError:
    with pytest.raises(kind) as caught:
        act()
    assert caught.value.check == check, caught.value
    return caught.value


@pytest.fixture
def backed_up(owner: Owner, tmp_path: Path) -> tuple[Path, list[str]]:
    put_secret(owner, "secret/a", b"abc")
    put_secret(owner, "secret/b", b"def")
    shares: list[str] = []
    backup(owner, tmp_path / "backup", 3, 2, lambda _n, _of, words: shares.append(words))
    return tmp_path / "backup", shares


def lose(owner: Owner) -> None:
    shutil.rmtree(owner.path / "keystore")
    owner.unlock_file.unlink(missing_ok=True)


def test_a_backup_is_recorded_and_private(owner: Owner, backed_up: tuple[Path, list[str]]) -> None:
    file, shares = backed_up
    assert file.stat().st_mode & 0o777 == 0o600
    entry = owner.fields("keystore.backed_up")
    assert (entry["shares"], entry["threshold"], entry["generation"]) == (3, 2, 6)
    log = b"".join(path.read_bytes() for path in owner.audit_folder.iterdir())
    assert not any(" ".join(words.split()[3:6]).encode() in log for words in shares)


def test_recovery(owner: Owner, backed_up: tuple[Path, list[str]]) -> None:
    file, shares = backed_up
    before = owner.keystore()
    everything = {entry.key_id: before.get(entry.key_id) for entry in before.entries()}
    lose(owner)
    refused(owner.keystore, "owner.folder", IntegrityError)
    found = recover(owner, file, shares[1:])
    assert (found.retired, found.lost) == ((), ())
    again = checked_keystore(owner)
    assert {entry.key_id: again.get(entry.key_id) for entry in again.entries()} == everything
    assert owner.events()[-1] == "keystore.recovered"
    put_secret(owner, "secret/c", b"x")


def test_the_log_has_the_last_word(owner: Owner, backed_up: tuple[Path, list[str]]) -> None:
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


def test_recovery_under_a_passphrase(owner: Owner, backed_up: tuple[Path, list[str]]) -> None:
    file, shares = backed_up
    rewrap(owner, PASSPHRASE)
    lose(owner)
    recover(owner, file, shares)
    assert owner.keystore().get("secret/a") == b"abc"


def test_recovery_takes_a_key_file_that_is_there(owner: Owner, backed_up: tuple[Path, list[str]]) -> None:
    file, shares = backed_up
    key = owner.unlock_file.read_bytes()
    shutil.rmtree(owner.path / "keystore")
    recover(owner, file, shares)
    assert owner.unlock_file.read_bytes() == key


def test_what_recovery_refuses(
    owner: Owner,
    backed_up: tuple[Path, list[str]],
    tmp_path: Path,
    deployment: Callable[..., Deployment],
) -> None:
    file, shares = backed_up
    refused(lambda: recover(owner, file, shares), "keystore.exists")
    lose(owner)
    before = owner.files()
    refused(lambda: recover(owner, file, shares[:1]), "backup.too_few")
    refused(lambda: recover(owner, file, ["word " * 33, shares[0]]), "backup.share")
    refused(lambda: recover(owner, tmp_path / "nowhere", shares), "file.read")
    (tmp_path / "cut").write_bytes(file.read_bytes()[:-1])
    refused(lambda: recover(owner, tmp_path / "cut", shares), "keystore.seal", IntegrityError)
    other = OwnerFolder.create(tmp_path / "other", deployment())
    handed: list[str] = []
    backup(other, tmp_path / "others", 3, 2, lambda _n, _of, words: handed.append(words))
    refused(lambda: recover(owner, tmp_path / "others", handed), "backup.owner")
    assert owner.files() == before


def test_backups_that_are_refused(owner: Owner, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    refused(lambda: backup(owner, tmp_path / "there", 3, 2, lambda *_: None), "backup.exists")
    refused(lambda: backup(owner, tmp_path / "b", 3, 4, lambda *_: None), "backup.shares")
    assert owner.events() == ["owner.created"]


@pytest.mark.parametrize(
    "moment",
    [(custody, "new_key_file"), (custody.AuditLog, "append"), (FolderPlace, "write")],
)
def test_killed_while_recovering(
    owner: Owner, backed_up: tuple[Path, list[str]], moment: tuple[object, str], killed: Callable[..., None]
) -> None:
    file, shares = backed_up
    lose(owner)
    killed(lambda: recover(owner, file, shares), *moment)
    assert not (owner.path / "keystore" / "keystore.sealed").exists()
    assert isinstance(recover(owner, file, shares), Recovered)
    assert checked_keystore(owner).get("secret/a") == b"abc"


def test_a_log_whose_writer_was_killed_hinders_nobody(
    owner: Owner, backed_up: tuple[Path, list[str]], tmp_path: Path, killed: Callable[..., None]
) -> None:
    """Not the one who recovers, least of all: without a keystore no other command could put the log right."""

    def kill_the_writer() -> None:
        killed(lambda: put_secret(owner, "secret/c", b"x"), folder, "write_aside")
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


def test_killed_while_backing_up_leaves_no_file(owner: Owner, tmp_path: Path, killed: Callable[..., None]) -> None:
    killed(lambda: backup(owner, tmp_path / "b", 3, 2, lambda *_: None), custody, "_check_free", 2)
    assert not (tmp_path / "b").exists()
    backup(owner, tmp_path / "b", 3, 2, lambda *_: None)


def test_a_backup_shows_no_share_before_its_file_is_on_the_disk(
    owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
