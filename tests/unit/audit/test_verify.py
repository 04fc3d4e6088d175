from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ensconce.audit import AuditLog, read_entries, verify_log
from ensconce.audit.entry import GENESIS, Entry, canonical, sign_entry
from ensconce.audit.head import parse_head
from ensconce.errors import InputError, IntegrityError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
PUBLIC = KEY.public_key()
SIZE = 9


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit") / "original"
    log = AuditLog.open(folder, KEY, lambda: 1_769_860_800)
    for number in range(SIZE):
        log.append("key.released", model="digits", number=number)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "audit")


def change(folder: Path, how: Callable[[list[bytes]], list[bytes]]) -> None:
    path = folder / "log.jsonl"
    path.write_bytes(b"".join(how(path.read_bytes().splitlines(keepends=True))))


def broken(folder: Path) -> IntegrityError:
    with pytest.raises(IntegrityError) as caught:
        verify_log(folder, PUBLIC)
    return caught.value


def test_a_read_only_copy_without_the_lock_verifies(folder: Path) -> None:
    (folder / "lock").unlink()
    (folder / "log.jsonl").chmod(0o400)
    folder.chmod(0o500)
    assert verify_log(folder, PUBLIC).size == SIZE
    assert [entry.seq for entry in read_entries(folder)] == list(range(SIZE))
    folder.chmod(0o700)


@pytest.mark.parametrize("at", range(SIZE))
def test_a_dropped_entry(folder: Path, at: int) -> None:
    change(folder, lambda lines: lines[:at] + lines[at + 1 :])
    error = broken(folder)
    assert error.check == ("audit.sequence" if at < SIZE - 1 else "audit.truncated")
    assert f"entry {at} " in error.problem


@pytest.mark.parametrize("at", range(SIZE - 1))
def test_reordered_entries(folder: Path, at: int) -> None:
    change(folder, lambda lines: [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]])
    error = broken(folder)
    assert error.check == "audit.sequence"
    assert f"entry {at} " in error.problem


@pytest.mark.parametrize("at", range(SIZE))
def test_a_duplicated_entry(folder: Path, at: int) -> None:
    change(folder, lambda lines: lines[: at + 1] + lines[at:])
    error = broken(folder)
    assert f"entry {at + 1} " in error.problem


@pytest.mark.parametrize("at", range(SIZE))
def test_a_log_cut_between_entries(folder: Path, at: int) -> None:
    change(folder, lambda lines: lines[:at])
    error = broken(folder)
    assert error.check == "audit.truncated"
    assert f"entry {at} of the audit log is missing" in error.problem


def test_a_log_cut_within_its_last_entry(folder: Path) -> None:
    change(folder, lambda lines: [*lines[:-1], lines[-1][:-1]])
    error = broken(folder)
    assert error.check == "audit.truncated"
    assert f"entry {SIZE - 1} of the audit log is cut short" in error.problem


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_any_changed_byte_is_found_in_its_entry(original: Path, tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "audit"
    shutil.copytree(original, folder, dirs_exist_ok=True)
    content = bytearray((folder / "log.jsonl").read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    entry = bytes(content[:at]).count(b"\n")
    content[at] ^= data.draw(st.integers(1, 255))
    (folder / "log.jsonl").write_bytes(content)
    assert f"entry {entry} " in broken(folder).problem


def rewritten(lines: list[bytes], at: int, key: Ed25519PrivateKey) -> list[bytes]:
    """The log as a forger would write it: entry ``at`` changed, all later hashes made to fit, signed with ``key``."""
    kept = lines[:at]
    previous = bytes.fromhex(json.loads(kept[-1])["hash"]) if kept else GENESIS
    for seq in range(at, len(lines)):
        old = json.loads(lines[seq])
        entry = sign_entry(seq, old["time"], old["event"], old["fields"] | {"forged": seq == at}, previous, key)
        kept.append(entry.to_line())
        previous = entry.hash
    return kept


@pytest.mark.parametrize("at", range(SIZE))
def test_a_forged_entry_is_named_even_when_all_later_hashes_fit(folder: Path, at: int) -> None:
    change(folder, lambda lines: rewritten(lines, at, OTHER))
    error = broken(folder)
    assert error.check == "audit.signature"
    assert f"entry {at} " in error.problem


def test_a_changed_entry_with_its_own_hash_made_to_fit_is_named_not_the_next_one(folder: Path) -> None:
    change(folder, lambda lines: [*lines[:4], rewritten(lines, 4, OTHER)[4], *lines[5:]])
    assert "entry 4 " in broken(folder).problem


def test_an_inserted_entry_is_named(folder: Path) -> None:
    def insert(lines: list[bytes]) -> list[bytes]:
        previous = bytes.fromhex(json.loads(lines[3])["hash"])
        entry = sign_entry(4, "2026-01-31T12:00:00Z", "key.released", {}, previous, OTHER)
        return [*lines[:4], entry.to_line(), *lines[4:]]

    change(folder, insert)
    assert "entry 4 " in broken(folder).problem


def test_a_signature_of_another_entry_is_found(folder: Path) -> None:
    def swap(lines: list[bytes]) -> list[bytes]:
        first, second = json.loads(lines[2]), json.loads(lines[3])
        first["signature"] = second["signature"]
        return [*lines[:2], canonical(first) + b"\n", *lines[3:]]

    change(folder, swap)
    error = broken(folder)
    assert error.check == "audit.signature"
    assert "entry 2 " in error.problem


def test_another_history_of_the_same_writer_is_found(folder: Path) -> None:
    # Only the owner could do this; the head still says that it is not the log it was signed over.
    change(folder, lambda lines: rewritten(lines, 5, KEY))
    assert broken(folder).check == "audit.root"


def test_a_head_of_another_size_of_the_same_log(folder: Path, tmp_path: Path) -> None:
    log = AuditLog.open(tmp_path / "longer", KEY, lambda: 1_769_860_800)
    for number in range(SIZE + 1):
        log.append("key.released", model="digits", number=number)
    shutil.copy(tmp_path / "longer" / "head.json", folder / "head.json")
    error = broken(folder)
    assert error.check == "audit.truncated"
    assert f"entry {SIZE} " in error.problem


@pytest.mark.parametrize("name", ["size", "root", "last", "time", "key_id", "signature"])
def test_a_changed_head(folder: Path, name: str) -> None:
    head = json.loads((folder / "head.json").read_bytes())
    value = head[name]
    if name == "size":
        head[name] = value - 1
    elif name == "signature":
        head[name] = base64.b64encode(bytes(64)).decode()
    elif name == "time":
        head[name] = "2026-01-31T12:00:01Z"
    else:
        head[name] = "00" * 32
    (folder / "head.json").write_bytes(canonical(head) + b"\n")
    assert broken(folder).check == ("audit.key" if name == "key_id" else "audit.head")


@pytest.mark.parametrize(
    "data",
    [b"", b"{}\n", b"[]\n", b"null\n", b"\xff", b"[" * 5000, b'{"size":1}\n', b" " * 5000],
)
def test_a_head_that_is_none(folder: Path, data: bytes) -> None:
    (folder / "head.json").write_bytes(data)
    assert broken(folder).check == "audit.head"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("size", "9"), ("size", -1), ("size", True), ("size", 1.0), ("root", None), ("root", "AB" * 32)],
        *[("time", 5), ("signature", "!"), ("signature", 5), ("more", 1)],
    ],
)
def test_a_head_with_a_field_that_is_wrong(folder: Path, name: str, value: object) -> None:
    head = json.loads((folder / "head.json").read_bytes()) | {name: value}
    with pytest.raises(IntegrityError) as caught:
        parse_head(canonical(head) + b"\n", PUBLIC)
    assert caught.value.check == "audit.head"


def test_a_head_in_another_spelling(folder: Path) -> None:
    data = (folder / "head.json").read_bytes()
    for other in (b" " + data, data + b"\n", data[:-1]):
        with pytest.raises(IntegrityError):
            parse_head(other, PUBLIC)


def test_another_public_key(folder: Path) -> None:
    with pytest.raises(IntegrityError) as caught:
        verify_log(folder, OTHER.public_key())
    assert caught.value.check == "audit.key"


def test_no_log_there(tmp_path: Path) -> None:
    for act in (lambda: verify_log(tmp_path, PUBLIC), lambda: list(read_entries(tmp_path / "nowhere"))):
        with pytest.raises(InputError) as caught:
            act()
        assert caught.value.check == "audit.missing"


def test_reading_without_the_key_still_checks_the_chain(folder: Path) -> None:
    change(folder, lambda lines: [*lines[:3], lines[3].replace(b"digits", b"others"), *lines[4:]])
    seen: list[Entry] = []
    with pytest.raises(IntegrityError) as caught:
        seen.extend(read_entries(folder))
    assert caught.value.check == "audit.hash"
    assert "entry 3 " in caught.value.problem
    change(folder, lambda lines: [lines[0], lines[1][:-1]])
    with pytest.raises(IntegrityError) as caught:
        list(read_entries(folder))
    assert caught.value.check == "audit.truncated"


def test_a_line_without_end_is_not_read_without_end(folder: Path) -> None:
    with (folder / "log.jsonl").open("ab") as file:
        file.truncate(file.tell() + 3 * 1024 * 1024)
    error = broken(folder)
    assert error.check == "audit.tail"
    assert f"entry {SIZE} " in error.problem
    with pytest.raises(IntegrityError):
        list(read_entries(folder))
