from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ensconce.audit import AuditLog
from ensconce.audit import folder as folder_module
from ensconce.audit.folder import FolderLog
from ensconce.audit.merkle import EMPTY_ROOT, Frontier, Tree, leaf_hash
from ensconce.audit.storage import Position
from ensconce.audit.tree import LogTree
from ensconce.errors import InputError, IntegrityError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()
LEAVES = [leaf_hash(bytes([n])) for n in range(70)]


def tree(size: int) -> Tree:
    made = Tree()
    for leaf in LEAVES[:size]:
        made.append(leaf)
    return made


@given(st.integers(0, 70), st.data())
def test_a_tree_proves_of_its_beginning_what_that_proved(size: int, data: st.DataObject) -> None:
    kept = tree(size)
    earlier = data.draw(st.integers(0, size))
    frontier = Frontier()
    for leaf in LEAVES[:earlier]:
        frontier.append(leaf)
    assert kept.size == size
    assert kept.root(earlier) == frontier.root()
    assert kept.leaves(earlier) == LEAVES[:earlier]
    if earlier:
        index = data.draw(st.integers(0, earlier - 1))
        assert kept.inclusion(index, earlier) == tree(earlier).inclusion(index, earlier)
        first = data.draw(st.integers(1, earlier))
        assert kept.consistency(first, earlier) == tree(earlier).consistency(first, earlier)


def test_what_the_tree_does_not_have_is_refused() -> None:
    kept = tree(5)
    assert Tree().root(0) == EMPTY_ROOT == hashlib.sha256(b"").digest()
    for ask in (
        lambda: kept.root(6),
        lambda: kept.root(-1),
        lambda: kept.inclusion(5, 5),
        lambda: kept.inclusion(-1, 5),
        lambda: kept.inclusion(0, 6),
        lambda: kept.consistency(0, 5),
        lambda: kept.consistency(4, 3),
        lambda: kept.consistency(1, 6),
    ):
        with pytest.raises(InputError) as caught:
            ask()
        assert caught.value.check == "merkle.range"


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    log = AuditLog.open(tmp_path / "audit", KEY, lambda: 1_769_860_800)
    log.append_many([("a", {"n": n}) for n in range(9)])
    return log


def test_proofs_do_not_read_the_log_again(log: AuditLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = LogTree(FolderLog(tmp_path / "audit"), PUBLIC)
    assert reader.head() == log.head()
    log.append("b")
    read: list[Position] = []
    real = folder_module._View.lines

    def lines(self: folder_module._View, after: Position) -> object:
        read.append(after)
        return real(self, after)

    monkeypatch.setattr(folder_module._View, "lines", lines)
    proof = reader.consistency(4, 10)
    assert [after.size for after in read] == [9]
    assert reader.consistency(4, 10) == proof
    reader.inclusion(3, 7)
    assert len(read) == 1


def test_every_earlier_size_can_be_asked_for(log: AuditLog) -> None:
    head = log.head()
    for first in range(1, head.size + 1):
        assert log.consistency(first, head.size).first == first
    with pytest.raises(InputError):
        log.consistency(0, head.size)
    with pytest.raises(InputError):
        log.consistency(1, head.size + 1)


def test_a_changed_log_gives_no_proof_until_it_is_restored(log: AuditLog, tmp_path: Path) -> None:
    reader = LogTree(FolderLog(tmp_path / "audit"), PUBLIC)
    path = tmp_path / "audit" / "log.jsonl"
    good = path.read_bytes()
    path.write_bytes(good.replace(b'"n":3', b'"n":4'))
    for _ in range(2):
        with pytest.raises(IntegrityError) as caught:
            reader.head()
        assert caught.value.check == "audit.root"
    path.write_bytes(good[:-1])
    with pytest.raises(IntegrityError) as caught:
        reader.consistency(1, 9)
    assert caught.value.check == "audit.truncated"
    path.write_bytes(good)
    assert reader.consistency(1, 9).second == 9


def test_a_head_that_went_back_gives_no_proof(log: AuditLog, tmp_path: Path) -> None:
    reader = LogTree(FolderLog(tmp_path / "audit"), PUBLIC)
    old = {name: (tmp_path / "audit" / name).read_bytes() for name in ("log.jsonl", "head.json")}
    log.append("b")
    reader.head()
    for name, data in old.items():
        (tmp_path / "audit" / name).write_bytes(data)
    with pytest.raises(IntegrityError) as caught:
        reader.head()
    assert caught.value.check == "audit.head"
    (tmp_path / "audit" / "head.json").unlink()
    with pytest.raises(IntegrityError):
        reader.head()
