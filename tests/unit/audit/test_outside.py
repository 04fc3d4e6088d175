"""What those can check who have the owner's public key and no entry: proofs, exported hashes, heads kept over time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ensconce.audit import AuditLog, Head, verify_log
from ensconce.audit.check import (
    check_log,
    check_proof,
    check_public_log,
    export_full,
    export_public,
    prove_continuation,
    prove_entry,
)
from ensconce.audit.entry import canonical
from ensconce.audit.folder import FolderLog
from ensconce.audit.head import parse_head, sign_head
from ensconce.audit.merkle import EMPTY_ROOT
from ensconce.audit.proofs import (
    ConsistencyProof,
    Continuation,
    InclusionProof,
    check_continuation,
    parse_consistency,
    parse_proof,
)
from ensconce.audit.public import load_public_key, read_public_log
from ensconce.audit.witness import Exported, watch
from ensconce.errors import EnsconceError, InputError, IntegrityError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
PUBLIC = KEY.public_key()


def grown(folder: Path, size: int, word: str = "a", key: Ed25519PrivateKey = KEY) -> FolderLog:
    log = AuditLog.open(folder, key, lambda: 1_769_860_800)
    log.append_many([(word, {"peer": "10.0.0.1", "n": n}) for n in range(log.head().size, size)])
    return FolderLog(folder)


@pytest.fixture
def log(tmp_path: Path) -> FolderLog:
    return grown(tmp_path / "audit", 7)


def refused(act: Callable[[], object]) -> EnsconceError:
    with pytest.raises(EnsconceError) as caught:
        act()
    return caught.value


# --- proofs


def test_an_entry_is_proved_to_who_has_nothing_but_the_key(log: FolderLog, tmp_path: Path) -> None:
    for index in range(7):
        proof = prove_entry(log, PUBLIC, index)
        (tmp_path / "proof").write_bytes(proof.to_bytes())
        assert check_proof(tmp_path / "proof", PUBLIC, None) == proof
        assert proof.entry.fields["n"] == index
        # It shows that entry and no other.
        assert proof.to_bytes().count(b"10.0.0.1") == 1
    assert refused(lambda: prove_entry(log, PUBLIC, 7)).check == "merkle.range"


@given(st.data())
def test_no_changed_proof_is_believed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "shared-log"
    log = FolderLog(folder) if folder.exists() else grown(folder, 7)
    good = prove_entry(log, PUBLIC, data.draw(st.integers(0, 6))).to_bytes()
    content = bytearray(good)
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    try:
        proof = parse_proof(bytes(content), PUBLIC)
    except (InputError, IntegrityError):
        return
    assert proof.to_bytes() == good  # white space and the spelling of hexadecimal aside, it says the same


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.pop("path"),
        lambda value: value.update(more=1),
        lambda value: value.update(path=None),
        lambda value: value.update(path=[5]),
        lambda value: value.update(path=["AB" * 32]),
        lambda value: value.update(path=["ab" * 32] * 200),
        lambda value: value["path"].pop(),
        lambda value: value["path"].append("ab" * 32),
        lambda value: value["path"].reverse(),
        lambda value: value.update(entry=None),
        lambda value: value["entry"].update(seq="1"),
        lambda value: value["entry"].update(seq=2),
        lambda value: value["entry"].update(fields={}),
        lambda value: value.update(head=None),
        lambda value: value["head"].update(size=6),
    ],
)
def test_a_proof_with_a_wrong_part_is_refused(log: FolderLog, change: Callable[[dict[str, object]], object]) -> None:
    value = json.loads(prove_entry(log, PUBLIC, 1).to_bytes())
    change(value)
    with pytest.raises((InputError, IntegrityError)):
        parse_proof(canonical(value), PUBLIC)


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{}", b"\xff", b"[" * 9999, b'{"first":1,"first":1}', b"NaN"])
def test_what_is_no_proof(data: bytes) -> None:
    assert refused(lambda: parse_proof(data, PUBLIC)).check == "audit.proof"
    assert refused(lambda: parse_consistency(data)).check == "audit.proof"


@pytest.mark.parametrize(("first", "second"), [(0, 5), (6, 5), (-1, 5), (1, 2**53), (True, 2), (1.0, 2), ("1", 2)])
def test_sizes_that_no_log_has(first: object, second: object) -> None:
    data = canonical({"first": str(first) if isinstance(first, float) else first, "second": second, "path": []})
    assert refused(lambda: parse_consistency(data)).check == "audit.proof"


def test_an_entry_of_another_writer_is_not_believed(log: FolderLog, tmp_path: Path) -> None:
    proof = prove_entry(log, PUBLIC, 3)
    other = grown(tmp_path / "other", 7, key=OTHER)
    assert refused(lambda: parse_proof(proof.to_bytes(), OTHER.public_key())).check == "audit.key"
    mixed = InclusionProof(prove_entry(other, OTHER.public_key(), 3).entry, proof.head, proof.path)
    assert refused(lambda: parse_proof(mixed.to_bytes(), PUBLIC)).check == "audit.signature"


def test_a_continuation_is_judged_with_the_head_that_was_kept(log: FolderLog, tmp_path: Path) -> None:
    heads = {}
    for size in (7, 8, 16, 20):
        grown(tmp_path / "audit", size)
        heads[size] = verify_log(log, PUBLIC)
    path = tmp_path / "proof"
    for size, head in heads.items():
        proof = prove_continuation(log, PUBLIC, size)
        path.write_bytes(proof.to_bytes())
        assert check_proof(path, PUBLIC, head) == proof
        others = [each for each in heads.values() if each.size not in (size, 20)]
        assert all(refused(lambda each=each: check_proof(path, PUBLIC, each)).exit_status == 6 for each in others)  # type: ignore[misc]
    assert refused(lambda: check_proof(path, PUBLIC, None)).check == "audit.since"
    path.write_bytes(prove_entry(log, PUBLIC, 1).to_bytes())
    assert refused(lambda: check_proof(path, PUBLIC, heads[7])).check == "audit.since"
    wrong = Continuation(heads[20], ConsistencyProof(7, 19, ()))
    assert refused(lambda: parse_proof(wrong.to_bytes(), PUBLIC)).check == "audit.proof"


def head_of(size: int, root: bytes, last: bytes = bytes(32)) -> Head:
    return sign_head(size, root, last, "2026-01-31T12:00:00Z", KEY)


def test_heads_that_cannot_be_of_one_log() -> None:
    empty, one, other = head_of(0, EMPTY_ROOT), head_of(1, b"1" * 32), head_of(1, b"2" * 32)
    check_continuation(empty, one, None)
    check_continuation(one, one, None)
    assert refused(lambda: check_continuation(one, other, None)).check == "audit.fork"
    assert refused(lambda: check_continuation(one, empty, None)).check == "audit.rollback"
    assert refused(lambda: check_continuation(head_of(0, b"x" * 32), one, None)).check == "audit.fork"
    later = head_of(2, b"4" * 32)
    for proof in (None, ConsistencyProof(1, 3, ()), ConsistencyProof(1, 2, ()), ConsistencyProof(1, 2, (b"3" * 32,))):
        assert refused(lambda proof=proof: check_continuation(one, later, proof)).check == "merkle.consistency"  # type: ignore[misc]


# --- the whole log, and its export


def test_a_log_is_held_against_a_kept_head(log: FolderLog, tmp_path: Path) -> None:
    kept = verify_log(log, PUBLIC)
    grown(tmp_path / "audit", 12)
    assert check_log(log, PUBLIC, kept).size == 12
    later = verify_log(log, PUBLIC)
    shorter = grown(tmp_path / "shorter", 9)
    assert refused(lambda: check_log(shorter, PUBLIC, later)).check == "audit.rollback"
    another = grown(tmp_path / "another", 12, word="b")
    assert refused(lambda: check_log(another, PUBLIC, kept)).check == "audit.fork"


def test_the_public_log_says_nothing_and_checks_everything(log: FolderLog, tmp_path: Path) -> None:
    kept = verify_log(log, PUBLIC)
    grown(tmp_path / "audit", 12)
    out = tmp_path / "public"
    head = export_public(log, PUBLIC, out)
    assert check_public_log(out, PUBLIC, kept) == head == verify_log(log, PUBLIC)
    assert b"10.0.0.1" not in out.read_bytes()
    assert out.read_bytes().count(b"\n") == 13
    exported = read_public_log(out, PUBLIC)
    assert exported.consistency(7, 12) == prove_continuation(log, PUBLIC, 7).consistency
    another = export_public(grown(tmp_path / "another", 12, word="b"), PUBLIC, tmp_path / "public-2")
    assert another.size == 12
    assert refused(lambda: check_public_log(tmp_path / "public-2", PUBLIC, kept)).check == "audit.fork"
    good = out.read_bytes()
    for data, check in (
        (good[:-1], "audit.public"),
        (good[:-65], "audit.public"),
        (good + b"00" * 32 + b"\n", "audit.public"),
        (good[:-66] + b"\r" + good[-65:], "audit.public"),
        (good[:-2] + bytes([good[-2] ^ 1]) + b"\n", "audit."),
        (good[:-65] + b"ab" * 32 + b"\n", "audit.root"),
        (b"", "audit.head"),
        (good[1:], "audit.head"),
    ):
        out.write_bytes(data)
        assert refused(lambda: read_public_log(out, PUBLIC)).check.startswith(check)


def test_a_full_export_is_a_log_in_a_folder(log: FolderLog, tmp_path: Path) -> None:
    out = tmp_path / "full"
    head = export_full(log, PUBLIC, out)
    assert verify_log(out, PUBLIC) == head
    assert [json.loads(line)["seq"] for line in (out / "log.jsonl").read_text().splitlines()] == list(range(7))
    assert (out / "log.jsonl").read_bytes() == (tmp_path / "audit" / "log.jsonl").read_bytes()
    assert out.stat().st_mode & 0o777 == 0o700
    assert refused(lambda: export_full(log, PUBLIC, out)).check == "audit.export"
    (tmp_path / "audit" / "log.jsonl").write_bytes((out / "log.jsonl").read_bytes().replace(b'"n":3', b'"n":4'))
    with pytest.raises(IntegrityError, match="entry 3 "):
        export_full(log, PUBLIC, tmp_path / "full-2")
    assert refused(lambda: export_public(log, PUBLIC, tmp_path / "public")).exit_status == 6
    assert not (tmp_path / "public").exists()


def test_the_owners_public_key_is_one(tmp_path: Path) -> None:
    path = tmp_path / "owner.pub"
    for key in (KEY.public_key(), X25519PrivateKey.generate().public_key()):
        path.write_bytes(key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
        if key == KEY.public_key():
            assert load_public_key(path) == key
    assert refused(lambda: load_public_key(path)).check == "audit.public_key"
    path.write_bytes(b"x")
    assert refused(lambda: load_public_key(path)).check == "audit.public_key"


# --- a witness


def source(log: FolderLog, tmp_path: Path) -> Exported:
    export_public(log, PUBLIC, tmp_path / "public")
    return Exported(read_public_log(tmp_path / "public", PUBLIC))


def test_a_witness_follows_a_log_that_grows(log: FolderLog, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    first = watch(source(log, tmp_path), kept, PUBLIC)
    assert (first.earlier, first.head.size) == (None, 7)
    assert parse_head(kept.read_bytes(), PUBLIC) == first.head
    assert watch(source(log, tmp_path), kept, PUBLIC) == type(first)(first.head, first.head)
    grown(tmp_path / "audit", 12)
    later = watch(source(log, tmp_path), kept, PUBLIC)
    assert (later.earlier, later.head.size) == (first.head, 12)
    assert parse_head(kept.read_bytes(), PUBLIC) == later.head


@pytest.mark.parametrize(("size", "check"), [(5, "audit.rollback"), (7, "audit.fork"), (9, "merkle.consistency")])
def test_a_witness_keeps_both_heads_of_a_bent_log(log: FolderLog, tmp_path: Path, size: int, check: str) -> None:
    kept = tmp_path / "kept"
    watch(source(log, tmp_path), kept, PUBLIC)
    before = kept.read_bytes()
    bent = grown(tmp_path / "bent", size, word="b")
    for _ in range(2):
        error = refused(lambda: watch(source(bent, tmp_path), kept, PUBLIC))
        assert (error.check, error.exit_status) == (check, 6)
        assert kept.read_bytes() == before
        (evidence,) = tmp_path.glob("kept.*.bent")
        assert evidence.name in str(error)
        assert parse_head(evidence.read_bytes(), PUBLIC).size == size


def test_a_witness_refuses_what_the_owner_did_not_sign(log: FolderLog, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    other = Exported(read_public_log_of(grown(tmp_path / "other", 9, key=OTHER), tmp_path))
    assert refused(lambda: watch(other, kept, PUBLIC)).check == "audit.key"
    assert not kept.exists()
    kept.write_bytes(b"{}")
    assert refused(lambda: watch(source(log, tmp_path), kept, PUBLIC)).check == "audit.head"


def read_public_log_of(log: FolderLog, tmp_path: Path):  # type: ignore[no-untyped-def]
    export_public(log, OTHER.public_key(), tmp_path / "public-other")
    return read_public_log(tmp_path / "public-other", OTHER.public_key())
