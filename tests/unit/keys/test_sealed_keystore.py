"""A keystore that several look at: in any store, under a changing lock, and never going back."""

from __future__ import annotations

import base64
import hmac
import itertools
import json
import multiprocessing
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ensconce.errors import EnsconceError, InputError, IntegrityError
from ensconce.keys import FolderPlace, KeyFile, Passphrase, SealedKeystore, StorePlace, new_key_file
from ensconce.keys.header import Header
from ensconce.keys.unlock import Sort, Unlock, _read_key_file, from_key_file
from ensconce.state.database import DatabaseStore
from ensconce.state.engine import Database
from ensconce.state.folder import FolderStore

SECRET = bytes(range(16))


@pytest.fixture
def unlock(tmp_path: Path) -> KeyFile:
    return new_key_file(tmp_path / "unlock.key")


@pytest.fixture
def keystore(tmp_path: Path, unlock: KeyFile) -> SealedKeystore:
    return SealedKeystore.create(FolderPlace(tmp_path / "k"), unlock)


@pytest.fixture
def file(tmp_path: Path, keystore: SealedKeystore) -> Path:
    return tmp_path / "k" / "keystore.sealed"


def refused(act: object, check: str, kind: type[EnsconceError] = IntegrityError) -> EnsconceError:
    assert callable(act)
    with pytest.raises(kind) as caught:
        act()
    assert caught.value.check == check
    return caught.value


# --- stores


@pytest.fixture(params=["folder", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> StorePlace:
    if request.param == "folder":
        return StorePlace(FolderStore(tmp_path / "state"))
    return StorePlace(DatabaseStore(Database.open(f"sqlite:///{tmp_path}/state.db")))


def test_a_keystore_in_a_store(place: StorePlace, unlock: KeyFile, tmp_path: Path) -> None:
    refused(lambda: SealedKeystore.open(place, unlock), "keystore.missing", InputError)
    keystore = SealedKeystore.create(place, unlock)
    keystore.put("a", SECRET, kind="wrap")
    other = SealedKeystore.open(place, unlock)
    assert other.get("a") == SECRET
    other.retire("a")
    assert keystore.entries() == other.entries()
    keystore.rewrap(new_key_file(tmp_path / "other.key"))
    refused(lambda: SealedKeystore.open(place, unlock), "keystore.seal")
    refused(lambda: SealedKeystore.create(place, unlock), "keystore.exists", InputError)


# --- version 1


def _version_1(unlock: KeyFile, keys: dict[str, object]) -> bytes:
    header = Header(Sort.KEY_FILE, None, b"salt" * 8, version=1)
    (derived,) = from_key_file(unlock, header.salt)
    start = header.to_bytes() + os.urandom(12)
    associated = start + hmac.digest(bytes(derived.confirm), start, "sha256")
    payload = json.dumps({"keys": keys}).encode()
    return associated + AESGCM(derived.seal).encrypt(start[-12:], payload, associated)


def test_a_keystore_of_version_1_opens_and_becomes_version_2_when_it_is_written(
    tmp_path: Path, unlock: KeyFile
) -> None:
    folder = tmp_path / "old"
    folder.mkdir(mode=0o700)
    secret = base64.b64encode(SECRET).decode()
    old = _version_1(unlock, {"a": {"kind": "wrap", "created": 1, "retired": None, "secret": secret}})
    (folder / "keystore.sealed").write_bytes(old)
    (folder / "keystore.sealed").chmod(0o600)
    reader, writer = SealedKeystore.open(FolderPlace(folder), unlock), SealedKeystore.open(FolderPlace(folder), unlock)
    assert reader.get("a") == SECRET
    assert (folder / "keystore.sealed").read_bytes() == old
    writer.put("b", b"x", kind="secret")
    assert (folder / "keystore.sealed").read_bytes()[15] == 2
    # Who opened it before sees what was put, and that it is the same keystore.
    assert reader.get("b") == b"x"
    assert (reader.get("a"), reader.generation) == (SECRET, 1)
    (folder / "keystore.sealed").write_bytes(old)
    refused(reader.entries, "keystore.rollback")
    assert SealedKeystore.open(FolderPlace(folder), unlock).generation == 0


# --- going back


def test_a_keystore_put_back_is_noticed_by_whoever_saw_the_later_one(
    keystore: SealedKeystore, file: Path, unlock: KeyFile
) -> None:
    keystore.put("a", SECRET, kind="wrap")
    reader = SealedKeystore.open(FolderPlace(file.parent), unlock)
    early = file.read_bytes()
    keystore.retire("a")
    assert reader.generation == 3
    file.write_bytes(early)
    for act in (reader.entries, lambda: reader.get("a"), lambda: keystore.put("b", b"x", kind="secret")):
        error = refused(act, "keystore.rollback")
        assert (error.found, error.rule) == ("generation 2", "at least generation 3")
    # A process that starts afterwards cannot know; the audit log does (tests/unit/cluster/test_recorded.py).
    assert SealedKeystore.open(FolderPlace(file.parent), unlock).get("a") == SECRET


def test_a_reader_and_a_writer_in_two_threads_never_take_each_other_for_a_rollback(
    keystore: SealedKeystore,
) -> None:
    done, failures = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            try:
                keystore.entries()
            except EnsconceError as error:
                failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(40):
        keystore.put(f"k/{number}", b"x", kind="secret")
    done.set()
    for reader in readers:
        reader.join(30)
    assert failures == []


def test_generations_count_writes(keystore: SealedKeystore, unlock: KeyFile) -> None:
    assert keystore.generation == 1
    keystore.put("a", b"x", kind="secret")
    keystore.retire("a")
    keystore.retire("a")
    assert keystore.generation == 3
    keystore.rewrap(unlock)
    assert keystore.generation == 4


# --- another lock


@pytest.mark.parametrize("target", ["passphrase", "key file"])
def test_what_opened_it_before_opens_it_no_more(
    keystore: SealedKeystore, file: Path, unlock: KeyFile, tmp_path: Path, target: str
) -> None:
    keystore.put("a", SECRET, kind="wrap")
    new: Unlock = Passphrase("correct horse") if target == "passphrase" else new_key_file(tmp_path / "new.key")
    other = SealedKeystore.open(FolderPlace(file.parent), unlock)
    keystore.rewrap(new)
    assert keystore.get("a") == SECRET
    assert SealedKeystore.open(FolderPlace(file.parent), new).get("a") == SECRET
    for act in (lambda: SealedKeystore.open(FolderPlace(file.parent), unlock), lambda: other.get("a")):
        with pytest.raises((InputError, IntegrityError)) as caught:
            act()
        assert caught.value.check in ("keystore.unlock", "keystore.seal")


def test_who_holds_the_same_unlock_goes_on_through_a_new_root_key(
    keystore: SealedKeystore, file: Path, unlock: KeyFile
) -> None:
    other = SealedKeystore.open(FolderPlace(file.parent), unlock)
    before = file.read_bytes()
    keystore.rewrap(unlock)
    assert file.read_bytes()[20:52] != before[20:52]
    other.put("a", SECRET, kind="wrap")
    assert keystore.get("a") == SECRET


def test_a_key_file_and_its_successor_while_it_is_replaced(
    keystore: SealedKeystore, file: Path, unlock: KeyFile
) -> None:
    keystore.put("a", SECRET, kind="wrap")
    running = SealedKeystore.open(FolderPlace(file.parent), unlock)
    new_key_file(unlock.successor)
    assert SealedKeystore.open(FolderPlace(file.parent), unlock).get("a") == SECRET
    keystore.rewrap(unlock)
    assert running.get("a") == SECRET
    assert SealedKeystore.open(FolderPlace(file.parent), unlock).get("a") == SECRET
    unlock.successor.replace(unlock.path)
    assert running.get("a") == SealedKeystore.open(FolderPlace(file.parent), unlock).get("a") == SECRET


@pytest.mark.parametrize("moments", list(itertools.combinations_with_replacement(range(6), 3)), ids=str)
def test_whenever_a_key_file_is_replaced_nobody_notices(
    keystore: SealedKeystore,
    file: Path,
    unlock: KeyFile,
    moments: tuple[int, int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The three steps of replacing it fall between any of those of opening: each look at a file is one."""
    keystore.put("a", SECRET, kind="wrap")
    running = SealedKeystore.open(FolderPlace(file.parent), unlock)
    steps = [
        lambda: new_key_file(unlock.successor),
        lambda: keystore.rewrap(unlock),
        lambda: unlock.successor.replace(unlock.path),
    ]
    looks, inside = itertools.count(), [False]

    def look(real: Callable[..., object]) -> Callable[..., object]:
        def looking(*arguments: object) -> object:
            if not inside[0]:
                inside[0], now = True, next(looks)
                for moment, step in zip(moments, steps, strict=True):
                    if moment == now:
                        step()
                inside[0] = False
            return real(*arguments)

        return looking

    monkeypatch.setattr(FolderPlace, "read", look(FolderPlace.read))
    monkeypatch.setattr("ensconce.keys.unlock._read_key_file", look(_read_key_file))
    for each in (SealedKeystore.open(FolderPlace(file.parent), unlock), running):
        assert each.get("a") == SECRET


def test_what_cannot_be_recorded_is_not_rewrapped(keystore: SealedKeystore, file: Path, tmp_path: Path) -> None:
    before = file.read_bytes()

    def fail(_: int) -> None:
        raise InputError("audit.write", "the disk is full")

    refused(lambda: keystore.rewrap(Passphrase("correct horse"), record=fail), "audit.write", InputError)
    assert file.read_bytes() == before
    keystore.put("a", SECRET, kind="wrap")


def test_a_disk_that_is_full_leaves_the_old_lock(
    keystore: SealedKeystore, file: Path, unlock: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise InputError("file.write", "no space left")

    with monkeypatch.context() as patch:
        patch.setattr("ensconce.keys.place.write_aside", full)
        refused(lambda: keystore.rewrap(Passphrase("correct horse")), "file.write", InputError)
    assert file.read_bytes() == before
    keystore.put("a", SECRET, kind="wrap")
    assert SealedKeystore.open(FolderPlace(file.parent), unlock).get("a") == SECRET


def _die_while_rewrapping(folder: Path, unlock: KeyFile, at: str) -> None:
    keystore = SealedKeystore.open(FolderPlace(folder), unlock)
    if at == "rename":
        Path.replace = lambda self, target: os._exit(9)  # type: ignore[assignment,method-assign]
    keystore.rewrap(Passphrase("correct horse"), settle=lambda: os._exit(9))


@pytest.mark.parametrize("at", ["rename", "after"])
def test_killed_while_rewrapping(keystore: SealedKeystore, file: Path, unlock: KeyFile, at: str) -> None:
    keystore.put("a", SECRET, kind="wrap")
    child = multiprocessing.get_context("fork").Process(target=_die_while_rewrapping, args=(file.parent, unlock, at))
    child.start()
    child.join(30)
    assert child.exitcode == 9
    opens: Unlock = unlock if at == "rename" else Passphrase("correct horse")
    again = SealedKeystore.open(FolderPlace(file.parent), opens)
    assert again.get("a") == SECRET
    again.put("b", SECRET, kind="wrap")
    assert sorted(path.name for path in file.parent.iterdir()) == ["keystore.sealed", "lock"]


class HalfAService:
    """Wraps, and unwraps something else: a service that is not what it says it is."""

    sort = Sort.VAULT

    def wrap(self, root: object, binding: object) -> str:
        return "wrapped"

    def unwrap(self, wrapped: str, binding: object) -> object:
        from ensconce.keys import SecretBuffer

        return SecretBuffer(32)


def test_nothing_is_sealed_that_would_not_open(keystore: SealedKeystore, file: Path) -> None:
    before = file.read_bytes()
    refused(lambda: keystore.rewrap(HalfAService()), "keystore.wrap")  # type: ignore[arg-type]
    assert file.read_bytes() == before
    place = FolderPlace(file.parent.with_name("other"))
    refused(lambda: SealedKeystore.create(place, HalfAService()), "keystore.wrap")  # type: ignore[arg-type]
    assert place.read() is None
