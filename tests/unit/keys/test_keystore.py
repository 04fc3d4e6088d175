from __future__ import annotations

import multiprocessing
import os
import stat
import threading
from pathlib import Path

import pytest

from ensconce.errors import InputError, IntegrityError, RefusedError
from ensconce.keys import FolderPlace, KeyEntry, KeyFile, Keystore, Passphrase, SealedKeystore, new_key_file
from ensconce.keys.header import parse_header
from ensconce.keys.lock import open_lock
from ensconce.keys.sealed import Contents, Record, open_sealed
from ensconce.keys.unlock import from_key_file

SECRET = bytes(range(16))
PHRASE = Passphrase("correct horse battery")


class Clock:
    def __init__(self, at: int = 1_750_000_000) -> None:
        self.at = at

    def __call__(self) -> int:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def unlock(tmp_path: Path) -> KeyFile:
    return new_key_file(tmp_path / "unlock.key")


@pytest.fixture
def keystore(tmp_path: Path, unlock: KeyFile, clock: Clock) -> SealedKeystore:
    return SealedKeystore.create(FolderPlace(tmp_path / "keystore"), unlock, now=clock)


@pytest.fixture
def sealed(keystore: SealedKeystore, tmp_path: Path) -> Path:
    return tmp_path / "keystore" / "keystore.sealed"


def test_what_was_put_is_there_after_opening_again(
    keystore: Keystore, tmp_path: Path, unlock: KeyFile, clock: Clock
) -> None:
    keystore.put("model/digits/1", SECRET, kind="wrap")
    clock.at += 5
    keystore.put("ca/root", b"some DER", kind="ec")
    again = SealedKeystore.open(FolderPlace(tmp_path / "keystore"), unlock)
    assert again.get("model/digits/1") == SECRET
    assert again.get("ca/root") == b"some DER"
    assert again.entries() == (
        KeyEntry("ca/root", "ec", 1_750_000_005, None),
        KeyEntry("model/digits/1", "wrap", 1_750_000_000, None),
    )


def test_another_open_keystore_sees_at_once_what_was_put(
    keystore: SealedKeystore, tmp_path: Path, unlock: KeyFile
) -> None:
    other = SealedKeystore.open(FolderPlace(tmp_path / "keystore"), unlock)
    keystore.put("model/digits/1", SECRET, kind="wrap")
    assert other.get("model/digits/1") == SECRET
    other.retire("model/digits/1")
    with pytest.raises(RefusedError):
        keystore.get("model/digits/1")


def test_an_unknown_key_is_an_input_error(keystore: SealedKeystore) -> None:
    for act in (keystore.get, keystore.retire):
        with pytest.raises(InputError) as caught:
            act("model/digits/1")
        assert caught.value.check == "key.unknown"


def test_a_retired_key_is_refused_and_its_id_stays_taken(keystore: SealedKeystore, clock: Clock) -> None:
    keystore.put("model/digits/1", SECRET, kind="wrap")
    clock.at += 60
    keystore.retire("model/digits/1")
    clock.at += 60
    keystore.retire("model/digits/1")
    assert keystore.entries() == (KeyEntry("model/digits/1", "wrap", 1_750_000_000, 1_750_000_060),)
    with pytest.raises(RefusedError) as refused:
        keystore.get("model/digits/1")
    assert refused.value.check == "key.retired"
    with pytest.raises(InputError) as caught:
        keystore.put("model/digits/1", SECRET, kind="wrap")
    assert caught.value.check == "key.exists"


def test_a_retired_keys_bytes_are_gone_from_the_plaintext_too(
    keystore: SealedKeystore, sealed: Path, unlock: KeyFile
) -> None:
    keystore.put("model/digits/1", SECRET, kind="wrap")
    keystore.retire("model/digits/1")
    data = sealed.read_bytes()
    header = parse_header(data)
    _, contents = open_sealed(data, header, open_lock(unlock, header))
    assert contents.records["model/digits/1"].secret is None
    assert contents.entries() == keystore.entries()


def test_a_live_id_cannot_be_put_again(keystore: SealedKeystore) -> None:
    keystore.put("model/digits/1", SECRET, kind="wrap")
    with pytest.raises(InputError) as caught:
        keystore.put("model/digits/1", bytes(16), kind="wrap")
    assert caught.value.check == "key.exists"
    assert keystore.get("model/digits/1") == SECRET


@pytest.mark.parametrize(
    "key_id",
    ["", "/", "a/", "/a", "a//b", "A", "a b", "../a", "a/../b", "a/.b", "-a", "a\n", "é", "a" * 256, "a/" * 127 + "aa"],
)
def test_bad_ids_are_refused(keystore: SealedKeystore, key_id: str) -> None:
    with pytest.raises(InputError) as caught:
        keystore.put(key_id, SECRET, kind="wrap")
    assert caught.value.check == "key.id"
    assert keystore.entries() == ()


@pytest.mark.parametrize(("kind", "size"), [("wrap", 15), ("wrap", 32), ("wrap", 0), ("secret", 0), ("rsa", 16385)])
def test_bad_sizes_are_refused(keystore: SealedKeystore, kind: str, size: int) -> None:
    with pytest.raises(InputError) as caught:
        keystore.put("a", bytes(size), kind=kind)  # type: ignore[arg-type]
    assert caught.value.check == "key.size"


def test_unknown_kinds_are_refused(keystore: SealedKeystore) -> None:
    with pytest.raises(InputError) as caught:
        keystore.put("a", SECRET, kind="aes")  # type: ignore[arg-type]
    assert caught.value.check == "key.kind"


def test_a_keystore_that_would_grow_too_large_says_so_and_keeps_what_it_has(
    keystore: SealedKeystore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keystore.put("a", bytes(1000), kind="secret")
    monkeypatch.setattr("ensconce.keys.sealed_keystore.MAX_FILE", 2000)
    with pytest.raises(InputError) as caught:
        keystore.put("b", bytes(1000), kind="secret")
    assert caught.value.check == "keystore.full"
    assert [entry.key_id for entry in keystore.entries()] == ["a"]


def test_nothing_secret_in_any_repr(keystore: SealedKeystore, unlock: KeyFile) -> None:
    secret = b"do not print me!"
    record = Record(KeyEntry("a", "wrap", 1, None), secret)
    (keys,) = from_key_file(unlock, bytes(32))
    contents = Contents("ab" * 32, 1, {"a": record})
    for text in (repr(record), repr(keys), repr(keys.both), repr(PHRASE), repr(keystore), repr(contents)):
        assert "do not print me" not in text
        assert "horse" not in text
        assert repr(bytes(keys.seal)) not in text


# --- the passphrase, the key file


def test_a_passphrase_opens_in_any_unicode_form_and_a_wrong_one_does_not(tmp_path: Path) -> None:
    keystore = SealedKeystore.create(FolderPlace(tmp_path / "k"), Passphrase("caf\u00e9 caf\u00e9"))
    keystore.put("a", SECRET, kind="wrap")
    assert SealedKeystore.open(FolderPlace(tmp_path / "k"), Passphrase("cafe\u0301 caf\u00e9")).get("a") == SECRET
    with pytest.raises(IntegrityError) as caught:
        SealedKeystore.open(FolderPlace(tmp_path / "k"), Passphrase("caf\u00e9 tea tea"))
    assert caught.value.check == "keystore.seal"
    assert "wrong" in caught.value.problem
    assert "tea" not in str(caught.value)
    with pytest.raises(InputError) as wrong_sort:
        SealedKeystore.open(FolderPlace(tmp_path / "k"), new_key_file(tmp_path / "key"))
    assert wrong_sort.value.check == "keystore.unlock"


def test_a_passphrase_does_not_open_what_a_key_file_opens(keystore: SealedKeystore, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        SealedKeystore.open(FolderPlace(tmp_path / "keystore"), PHRASE)
    assert caught.value.check == "keystore.unlock"


@pytest.mark.parametrize("text", ["", "short", "x" * 1025, "not text \ud800 at all"])
def test_unusable_passphrases(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError) as caught:
        SealedKeystore.create(FolderPlace(tmp_path / "k"), Passphrase(text))
    assert caught.value.check == "keystore.passphrase"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert not (tmp_path / "k").exists()


def test_another_key_file_does_not_open(keystore: SealedKeystore, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError) as caught:
        SealedKeystore.open(FolderPlace(tmp_path / "keystore"), new_key_file(tmp_path / "other.key"))
    assert caught.value.check == "keystore.seal"


def test_a_key_file_that_others_can_read_is_refused_with_the_remedy(
    keystore: SealedKeystore, tmp_path: Path, unlock: KeyFile
) -> None:
    assert stat.S_IMODE(unlock.path.stat().st_mode) == 0o600
    for mode in (0o640, 0o604, 0o620):
        unlock.path.chmod(mode)
        with pytest.raises(InputError) as caught:
            SealedKeystore.open(FolderPlace(tmp_path / "keystore"), unlock)
        assert caught.value.check == "keystore.permissions"
        assert caught.value.remedy == f"chmod 600 {unlock.path}"


@pytest.mark.parametrize("size", [0, 31, 33, 4096])
def test_a_key_file_of_the_wrong_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "key"
    path.write_bytes(bytes(size))
    path.chmod(0o600)
    with pytest.raises(InputError) as caught:
        SealedKeystore.create(FolderPlace(tmp_path / "k"), KeyFile(path))
    assert caught.value.check == "keystore.key_file"


def test_a_key_file_that_is_missing_a_folder_or_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "missing", tmp_path, tmp_path / "fifo"):
        with pytest.raises(InputError) as caught:
            SealedKeystore.create(FolderPlace(tmp_path / "k"), KeyFile(path))
        assert caught.value.check == "keystore.key_file"


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    first = new_key_file(tmp_path / "key").path.read_bytes()
    with pytest.raises(InputError):
        new_key_file(tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == first


# --- the folder


def test_permissions(keystore: SealedKeystore, sealed: Path, unlock: KeyFile) -> None:
    assert stat.S_IMODE(sealed.stat().st_mode) == 0o600
    assert stat.S_IMODE(sealed.parent.stat().st_mode) == 0o700
    for path, mode in ((sealed, 0o644), (sealed.parent, 0o755)):
        before = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode)
        with pytest.raises(InputError) as caught:
            SealedKeystore.open(FolderPlace(sealed.parent), unlock)
        assert caught.value.check == "keystore.permissions"
        assert (caught.value.remedy or "").startswith("chmod ")
        path.chmod(before)


def test_no_keystore_there(tmp_path: Path, unlock: KeyFile) -> None:
    with pytest.raises(InputError) as caught:
        SealedKeystore.open(FolderPlace(tmp_path / "nowhere"), unlock)
    assert caught.value.check == "keystore.missing"


def test_a_keystore_is_never_overwritten(keystore: SealedKeystore, tmp_path: Path, unlock: KeyFile) -> None:
    keystore.put("a", SECRET, kind="wrap")
    with pytest.raises(InputError) as caught:
        SealedKeystore.create(FolderPlace(tmp_path / "keystore"), unlock)
    assert caught.value.check == "keystore.exists"
    assert keystore.get("a") == SECRET


def test_a_missing_parent_folder(tmp_path: Path, unlock: KeyFile) -> None:
    with pytest.raises(InputError) as caught:
        SealedKeystore.create(FolderPlace(tmp_path / "no" / "k"), unlock)
    assert caught.value.check == "keystore.create"


def test_another_keystore_in_its_place_is_noticed(keystore: SealedKeystore, tmp_path: Path, unlock: KeyFile) -> None:
    SealedKeystore.create(FolderPlace(tmp_path / "other"), unlock)
    (tmp_path / "other" / "keystore.sealed").replace(tmp_path / "keystore" / "keystore.sealed")
    with pytest.raises(IntegrityError) as caught:
        keystore.entries()
    assert caught.value.check == "keystore.seal"


# --- crashes and crowds


def test_what_a_killed_writer_left_aside_is_removed_by_the_next_write(keystore: SealedKeystore, sealed: Path) -> None:
    left = sealed.parent / ".keystore.sealed.abcd.part"
    left.write_bytes(b"half")
    keystore.put("a", SECRET, kind="wrap")
    assert sorted(path.name for path in sealed.parent.iterdir()) == ["keystore.sealed", "lock"]


def _die_in_rename(folder: Path, unlock: KeyFile) -> None:
    keystore = SealedKeystore.open(FolderPlace(folder), unlock)
    Path.replace = lambda self, target: os._exit(9)  # type: ignore[assignment,method-assign]
    keystore.put("b", SECRET, kind="wrap")


def test_a_writer_killed_before_the_rename_changes_nothing_and_leaves_no_lock(
    keystore: SealedKeystore, sealed: Path, unlock: KeyFile
) -> None:
    keystore.put("a", SECRET, kind="wrap")
    before = sealed.read_bytes()
    child = multiprocessing.get_context("fork").Process(target=_die_in_rename, args=(sealed.parent, unlock))
    child.start()
    child.join(30)
    assert child.exitcode == 9
    assert sealed.read_bytes() == before
    keystore.put("b", bytes(16), kind="wrap")
    assert SealedKeystore.open(FolderPlace(sealed.parent), unlock).get("b") == bytes(16)


def _put_many(folder: Path, unlock: KeyFile, name: str) -> None:
    keystore = SealedKeystore.open(FolderPlace(folder), unlock)
    for number in range(8):
        keystore.put(f"{name}/{number}", SECRET, kind="wrap")


def test_no_put_is_lost_between_processes_and_threads(keystore: SealedKeystore, sealed: Path, unlock: KeyFile) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_put_many, args=(sealed.parent, unlock, f"p{n}")) for n in range(3)]
    for process in processes:
        process.start()
    threads = [
        threading.Thread(
            target=lambda n=n: [keystore.put(f"t{n}/{i}", SECRET, kind="wrap") for i in range(8)]  # type: ignore[misc]
        )
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert len(keystore.entries()) == 6 * 8


def test_of_two_who_put_the_same_id_one_is_refused(keystore: SealedKeystore) -> None:
    outcomes: list[str] = []

    def put(secret: bytes) -> None:
        try:
            keystore.put("a", secret, kind="wrap")
            outcomes.append("stored")
        except InputError as error:
            outcomes.append(error.check)

    threads = [threading.Thread(target=put, args=(bytes([n]) * 16,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["key.exists"] * 3 + ["stored"]
