from __future__ import annotations

import json
import multiprocessing
import stat
import threading
import tracemalloc
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import ensconce.audit.folder
import ensconce.audit.log
import ensconce.files
from ensconce.audit import AuditLog, verify_log
from ensconce.audit.chain import MAX_BATCH
from ensconce.audit.entry import sign_entry
from ensconce.audit.merkle import Tree, verify_consistency, verify_inclusion
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


def test_what_was_appended_is_there_chained_and_signed(log: AuditLog, folder: Path) -> None:
    first = log.append("key.released", model="digits", keys=["model/digits/1"], svn=1, debug=False)
    second = log.append("key.refused", check="policy.debug")
    assert first.seq == 0
    assert first.previous == bytes(32)
    assert second.previous == first.hash
    assert first.time == "2026-01-31T12:00:00Z"
    assert list(log.entries()) == [first, second]
    head = verify_log(folder, PUBLIC)
    assert head == log.head()
    assert (head.size, head.last) == (2, second.hash)


def test_a_new_log_is_empty_private_and_verifies(log: AuditLog, folder: Path) -> None:
    assert verify_log(folder, PUBLIC).size == 0
    assert list(log.entries()) == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        "head.json": 0o600,
        "lock": 0o600,
        "log.jsonl": 0o600,
    }


def test_a_field_may_be_called_as_the_parameters_are(log: AuditLog) -> None:
    assert log.append("a", event="b", self="c").fields == {"event": "b", "self": "c"}


def test_a_refused_entry_leaves_nothing(log: AuditLog, folder: Path) -> None:
    with pytest.raises(InputError):
        log.append("a", key=b"secret")  # type: ignore[arg-type]
    assert (folder / "log.jsonl").read_bytes() == b""
    log.append("a")
    assert verify_log(folder, PUBLIC).size == 1


def test_it_goes_on_after_opening_again(log: AuditLog, folder: Path) -> None:
    log.append("a")
    again = AuditLog.open(folder, KEY, clock)
    assert again.append("b").seq == 1
    assert log.append("c").seq == 2
    assert verify_log(folder, PUBLIC).size == 3


def test_an_append_does_not_reread_the_log(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.append("a")

    def fail(*_: object) -> None:
        pytest.fail("the log was reread")

    monkeypatch.setattr(ensconce.audit.log, "follow", fail)
    assert log.append("b").seq == 1


def test_opening_reads_a_line_at_a_time(log: AuditLog, folder: Path) -> None:
    text = "x" * 1000
    for _ in range(16):
        log.append_many([("key.released", {"one": text, "two": text})] * MAX_BATCH)
    written = (folder / "log.jsonl").stat().st_size
    tracemalloc.start()
    try:
        AuditLog.open(folder, KEY, clock)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 300_000 < written / 7


def test_proofs_lead_to_the_signed_heads(log: AuditLog) -> None:
    heads = []
    for number in range(11):
        log.append("a", number=number)
        heads.append(log.head())
    entries = list(log.entries())
    last, tree = heads[-1], Tree()
    for entry in entries:
        tree.append(entry.leaf_hash())
    for entry in entries:
        proof = tree.inclusion(entry.seq, last.size)
        verify_inclusion(entry.leaf_hash(), entry.seq, last.size, proof, last.root)
    for head in heads:
        verify_consistency(head.size, last.size, tree.consistency(head.size, last.size), head.root, last.root)


def test_another_key_may_not_write(log: AuditLog, folder: Path) -> None:
    log.append("a")
    with pytest.raises(IntegrityError) as caught:
        AuditLog.open(folder, Ed25519PrivateKey.generate(), clock)
    assert caught.value.check == "audit.key"


def test_a_missing_parent_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        AuditLog.open(tmp_path / "no" / "audit", KEY, clock)
    assert caught.value.check == "audit.open"


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "audit").write_bytes(b"")
    with pytest.raises(InputError):
        AuditLog.open(tmp_path / "audit", KEY, clock)


# --- crowds


def _append_many(folder: Path, name: str) -> None:
    log = AuditLog.open(folder, KEY, clock)
    for number in range(10):
        log.append("a", who=name, number=number)


def test_threads_and_processes_lose_nothing(log: AuditLog, folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_append_many, args=(folder, f"p{n}")) for n in range(3)]

    def append(name: str) -> None:
        for number in range(10):
            log.append("a", who=name, number=number)

    threads = [threading.Thread(target=append, args=(f"t{n}",)) for n in range(3)]
    for worker in [*processes, *threads]:
        worker.start()
    seen = 0
    while any(worker.is_alive() for worker in [*processes, *threads]):
        # A reader finds a good log at every moment, and it only grows.
        size = verify_log(folder, PUBLIC).size
        assert size >= seen
        seen = size
    for worker in [*processes, *threads]:
        worker.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert verify_log(folder, PUBLIC).size == 60
    order: dict[object, list[object]] = {}
    for entry in log.entries():
        order.setdefault(entry.fields["who"], []).append(entry.fields["number"])
    assert order == {name: list(range(10)) for name in ("p0", "p1", "p2", "t0", "t1", "t2")}


def test_a_batch_has_one_sync_and_one_head(log: AuditLog, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = []
    real = ensconce.audit.folder.write_aside

    def write_aside(path: Path, data: bytes, mode: int) -> None:
        heads.append(data)
        real(path, data, mode)

    monkeypatch.setattr(ensconce.audit.folder, "write_aside", write_aside)
    entries = log.append_many([("a", {"n": n}) for n in range(MAX_BATCH)])
    assert [entry.seq for entry in entries] == list(range(MAX_BATCH))
    assert len(heads) == 1
    assert log.append_many([]) == []
    large = [("b", {f"f{n}": "x" * 1000 for n in range(32)})] * 40
    assert len(log.append_many(large)) == 40
    assert len(heads) == 3  # together they are longer than a batch may be
    assert verify_log(folder, PUBLIC).size == MAX_BATCH + 40


def test_one_event_that_the_log_does_not_take_leaves_all_unrecorded(log: AuditLog, folder: Path) -> None:
    with pytest.raises(InputError):
        log.append_many([("a", {}), ("not an event", {})])
    with pytest.raises(InputError) as caught:
        log.append_many([("a", {}), ("b", {f"f{n}": ["é" * 1024] * 256 for n in range(3)})])
    assert caught.value.check == "audit.field"
    assert verify_log(folder, PUBLIC).size == 0


def test_a_missing_log_is_begun_only_when_asked_to(folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        AuditLog.open(folder, KEY, clock, begin=False)
    assert caught.value.check == "audit.missing"
    AuditLog.open(folder, KEY, clock)
    assert AuditLog.open(folder, KEY, clock, begin=False).append("a").seq == 0


# --- the writer refuses a log that was changed


def test_an_entry_that_somebody_else_added_is_not_adopted(log: AuditLog, folder: Path) -> None:
    # Right number, and made to continue the chain; only the signature is not the owner's.
    last = log.append("a")
    entry = sign_entry(1, last.time, "key.retired", {}, last.hash, Ed25519PrivateKey.generate())
    with (folder / "log.jsonl").open("ab") as file:
        file.write(entry.to_line())
    for act in (lambda: AuditLog.open(folder, KEY, clock), lambda: log.append("b"), lambda: verify_log(folder, PUBLIC)):
        with pytest.raises(IntegrityError) as caught:
            act()
        assert caught.value.check == "audit.signature"
        assert "entry 1" in caught.value.problem


def test_more_than_a_batch_after_the_head_is_refused(log: AuditLog, folder: Path) -> None:
    log.append("a")
    head = (folder / "head.json").read_bytes()
    log.append_many([("b", {})] * (MAX_BATCH + 1))
    (folder / "head.json").write_bytes(head)
    for act in (lambda: AuditLog.open(folder, KEY, clock), lambda: verify_log(folder, PUBLIC)):
        with pytest.raises(IntegrityError) as caught:
            act()
        assert caught.value.check == "audit.tail"
        assert "entry 1" in caught.value.problem


def test_a_log_that_shrank_under_a_running_writer_is_refused(log: AuditLog, folder: Path) -> None:
    log.append("a")
    saved = {name: (folder / name).read_bytes() for name in ("log.jsonl", "head.json")}
    log.append("b")
    for name, data in saved.items():
        (folder / name).write_bytes(data)
    with pytest.raises(IntegrityError) as caught:
        log.append("c")
    assert caught.value.check == "audit.head"
    assert "put back" in caught.value.problem


def test_a_missing_head_is_not_begun_anew(log: AuditLog, folder: Path) -> None:
    log.append("a")
    (folder / "head.json").unlink()
    for act in (lambda: AuditLog.open(folder, KEY, clock), lambda: verify_log(folder, PUBLIC)):
        with pytest.raises(IntegrityError) as caught:
            act()
        assert caught.value.check == "audit.head"


def test_a_missing_log_is_not_begun_anew(log: AuditLog, folder: Path) -> None:
    log.append("a")
    (folder / "log.jsonl").unlink()
    with pytest.raises(IntegrityError) as caught:
        verify_log(folder, PUBLIC)
    assert caught.value.check == "audit.truncated"
    with pytest.raises(IntegrityError) as caught:
        AuditLog.open(folder, KEY, clock)
    assert caught.value.check == "audit.truncated"


def test_the_head_says_what_the_reference_says(log: AuditLog, folder: Path) -> None:
    log.append("a")
    head = json.loads((folder / "head.json").read_bytes())
    assert set(head) == {"size", "root", "last", "time", "key_id", "signature"}
