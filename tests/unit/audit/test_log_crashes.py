"""The log in a folder, when its writer is killed or its disk is full, at each step and at any byte."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import ensconce.audit.folder
import ensconce.audit.log
import ensconce.files
from ensconce.audit import AuditLog, Entry, verify_log
from ensconce.errors import InputError, IntegrityError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()


def clock() -> int:
    return 1_769_860_800


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def log(folder: Path) -> AuditLog:
    return AuditLog.open(folder, KEY, clock)


@pytest.fixture
def before_and_after(log: AuditLog, folder: Path) -> tuple[bytes, bytes, bytes, bytes, Entry]:
    """Log and head before the last entry, and after it."""
    for number in range(3):
        log.append("a", number=number)
    log_before, head_before = (folder / "log.jsonl").read_bytes(), (folder / "head.json").read_bytes()
    last = log.append("b", what="the last")
    return log_before, head_before, (folder / "log.jsonl").read_bytes(), (folder / "head.json").read_bytes(), last


def test_a_crash_at_any_byte_loses_no_acknowledged_entry(
    before_and_after: tuple[bytes, bytes, bytes, bytes, Entry], folder: Path
) -> None:
    log_before, head_before, log_after, _, last = before_and_after
    for end in range(len(log_before), len(log_after) + 1):
        (folder / "log.jsonl").write_bytes(log_after[:end])
        (folder / "head.json").write_bytes(head_before)
        if end > len(log_before):
            with pytest.raises(IntegrityError) as caught:
                verify_log(folder, PUBLIC)
            assert caught.value.check == "audit.tail"
            assert "entry 3" in caught.value.problem
        again = AuditLog.open(folder, KEY, clock)
        adopted = end == len(log_after)
        assert verify_log(folder, PUBLIC).size == (4 if adopted else 3)
        assert ([*again.entries()][-1] == last) is adopted
        again.append("c")
        assert verify_log(folder, PUBLIC).size == (5 if adopted else 4)


def test_a_page_of_zeros_after_a_power_cut_is_cut_off(
    before_and_after: tuple[bytes, bytes, bytes, bytes, Entry], folder: Path
) -> None:
    log_before, head_before, _, _, _ = before_and_after
    for tail in (bytes(4096), bytes(100) + b'"}\n', b"\n"):
        (folder / "log.jsonl").write_bytes(log_before + tail)
        (folder / "head.json").write_bytes(head_before)
        AuditLog.open(folder, KEY, clock)
        assert (folder / "log.jsonl").read_bytes() == log_before


def _die_at(folder: Path, step: str) -> None:
    log = AuditLog.open(folder, KEY, clock)
    die = lambda *_, **__: os._exit(9)  # noqa: E731
    if step == "fsync":
        os.fsync = die
    elif step == "write":
        real = os.pwrite
        os.pwrite = lambda file, data, at: (real(file, data[:50], at), os._exit(9))[0]
    elif step == "head":
        ensconce.audit.folder.write_aside = die
    else:
        Path.replace = die  # type: ignore[method-assign]
    log.append("b")


@pytest.mark.parametrize(("step", "size"), [("write", 1), ("fsync", 2), ("head", 2), ("rename of the head", 2)])
def test_a_writer_killed_at_each_step(log: AuditLog, folder: Path, step: str, size: int) -> None:
    log.append("a")
    child = multiprocessing.get_context("fork").Process(target=_die_at, args=(folder, step))
    child.start()
    child.join(30)
    assert child.exitcode == 9
    # The writer that lived on puts it right, and so does one that opens the log.
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    AuditLog.open(copy, KEY, clock)
    assert verify_log(copy, PUBLIC).size == size
    assert sorted(path.name for path in copy.iterdir()) == ["head.json", "lock", "log.jsonl"]
    assert log.append("c").seq == size
    assert verify_log(folder, PUBLIC).size == size + 1


def test_a_full_disk_is_a_clear_error_and_the_log_goes_on_afterwards(
    log: AuditLog, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append("a")
    real = os.pwrite
    calls = itertools.count()

    def full(file: int, data: bytes, at: int) -> int:
        if next(calls):
            raise OSError(28, "No space left on device")
        return real(file, data[:40], at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(InputError) as caught:
            log.append("b")
    assert caught.value.check == "audit.write"
    assert "No space left" in caught.value.problem
    assert log.append("c").seq == 1
    assert verify_log(folder, PUBLIC).size == 2


@pytest.mark.parametrize("step", ["fsync of the log", "head", "rename of the head"])
def test_a_full_disk_leaves_no_entry_that_no_head_covers(
    log: AuditLog, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    log.append("a")
    before = {name: (folder / name).read_bytes() for name in ("log.jsonl", "head.json")}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if step == "fsync of the log":
            patch.setattr(os, "fsync", full)
        elif step == "head":
            patch.setattr(tempfile, "mkstemp", full)
        else:
            patch.setattr(Path, "replace", full)
        with pytest.raises(InputError) as caught:
            log.append_many([("b", {}), ("c", {})])
    assert caught.value.check == "audit.write"
    assert caught.value.rule == "what is not recorded does not happen"
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert verify_log(folder, PUBLIC).size == 1
    assert log.append("d").seq == 1


def test_an_entry_whose_head_got_its_name_stays_although_the_disk_failed(
    log: AuditLog, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(ensconce.files, "sync_folder", fail)
        with pytest.raises(InputError):
            log.append("a")
    assert verify_log(folder, PUBLIC).size == 1
    assert log.append("b").seq == 1


def test_a_batch_cut_at_any_byte_keeps_what_was_acknowledged(log: AuditLog, folder: Path) -> None:
    log.append("a")
    log_before, head_before = (folder / "log.jsonl").read_bytes(), (folder / "head.json").read_bytes()
    log.append_many([("b", {"n": n}) for n in range(3)])
    log_after = (folder / "log.jsonl").read_bytes()
    ends = [n + 1 for n, byte in enumerate(log_after) if byte == ord("\n")]
    for end in range(len(log_before), len(log_after) + 1, 31):
        (folder / "log.jsonl").write_bytes(log_after[:end])
        (folder / "head.json").write_bytes(head_before)
        again = AuditLog.open(folder, KEY, clock)
        whole = sum(each <= end for each in ends)
        assert verify_log(folder, PUBLIC).size == whole
        assert again.append("c").seq == whole


def test_a_batch_of_which_a_page_did_not_reach_the_disk(log: AuditLog, folder: Path) -> None:
    log.append("a")
    head = (folder / "head.json").read_bytes()
    log.append_many([("b", {"n": n}) for n in range(4)])
    lines = (folder / "log.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "log.jsonl").write_bytes(b"".join([*lines[:2], bytes(len(lines[2])), *lines[3:]]))
    (folder / "head.json").write_bytes(head)
    with pytest.raises(IntegrityError, match=r"audit\.tail"):
        verify_log(folder, PUBLIC)
    AuditLog.open(folder, KEY, clock)
    assert (folder / "log.jsonl").read_bytes() == b"".join(lines[:2])
    assert verify_log(folder, PUBLIC).size == 2


def test_short_writes_are_finished(log: AuditLog, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: real(file, data[:7], at))
    log.append("a")
    assert verify_log(folder, PUBLIC).size == 1
