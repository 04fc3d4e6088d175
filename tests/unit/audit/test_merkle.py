from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensconce.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    Tree,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from ensconce.errors import InputError, IntegrityError

# The tree that Certificate Transparency implementations have tested against since RFC 6962.
LEAVES = [
    leaf_hash(bytes.fromhex(data))
    for data in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH as RFC 9162 section 2.1.1 defines it."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH as section 2.1.3.1 defines it."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_subproof(m: int, leaves: list[bytes], complete: bool) -> list[bytes]:
    """SUBPROOF as section 2.1.4.1 defines it."""
    if m == len(leaves):
        return [] if complete else [naive_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return [*naive_subproof(m, leaves[:k], complete), naive_root(leaves[k:])]
    return [*naive_subproof(m - k, leaves[k:], False), naive_root(leaves[:k])]


def frontier_root(leaves: list[bytes]) -> bytes:
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    assert frontier.size == len(leaves)
    return frontier.root()


def tree_of(leaves: list[bytes]) -> Tree:
    tree = Tree()
    for leaf in leaves:
        tree.append(leaf)
    return tree


def test_known_roots() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert frontier_root([]) == EMPTY_ROOT
    assert [frontier_root(LEAVES[:size]).hex() for size in range(1, 9)] == ROOTS


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_known_inclusion_proofs(index: int, size: int) -> None:
    proof = tree_of(LEAVES[:size]).inclusion(index, size)
    assert [node.hex() for node in proof] == INCLUSION[index, size]
    verify_inclusion(LEAVES[index], index, size, proof, bytes.fromhex(ROOTS[size - 1]))


@pytest.mark.parametrize(("earlier", "size"), CONSISTENCY)
def test_known_consistency_proofs(earlier: int, size: int) -> None:
    proof = tree_of(LEAVES[:size]).consistency(earlier, size)
    assert [node.hex() for node in proof] == CONSISTENCY[earlier, size]
    verify_consistency(earlier, size, proof, bytes.fromhex(ROOTS[earlier - 1]), bytes.fromhex(ROOTS[size - 1]))


def test_a_copy_of_a_frontier_grows_on_its_own() -> None:
    frontier = Frontier()
    for leaf in LEAVES[:5]:
        frontier.append(leaf)
    copy = frontier.copy()
    copy.append(LEAVES[5])
    assert frontier.root().hex() == ROOTS[4]
    assert copy.root().hex() == ROOTS[5]


def leaves_of(size: int) -> list[bytes]:
    return [leaf_hash(index.to_bytes(4, "big")) for index in range(size)]


@settings(max_examples=60)
@given(st.integers(1, 70), st.data())
def test_against_the_definitions(size: int, data: st.DataObject) -> None:
    leaves = leaves_of(size)
    root = naive_root(leaves)
    assert frontier_root(leaves) == root
    index = data.draw(st.integers(0, size - 1))
    proof = tree_of(leaves).inclusion(index, size)
    assert proof == naive_path(index, leaves)
    verify_inclusion(leaves[index], index, size, proof, root)
    earlier = data.draw(st.integers(1, size))
    consistency = tree_of(leaves).consistency(earlier, size)
    assert consistency == naive_subproof(earlier, leaves, True)
    verify_consistency(earlier, size, consistency, naive_root(leaves[:earlier]), root)


def mutated(proof: list[bytes], data: st.DataObject) -> list[bytes]:
    choices = ["longer"] + (["shorter", "flipped"] if proof else []) + (["swapped"] if len(proof) > 1 else [])
    how = data.draw(st.sampled_from(choices))
    at = data.draw(st.integers(0, max(len(proof) - 1, 0)))
    if how == "longer":
        return [*proof[:at], bytes(32), *proof[at:]]
    if how == "shorter":
        return proof[:at] + proof[at + 1 :]
    if how == "flipped":
        return [*proof[:at], bytes([proof[at][0] ^ 1]) + proof[at][1:], *proof[at + 1 :]]
    return [*proof[1:], proof[0]]


@settings(max_examples=150)
@given(st.integers(1, 40), st.data())
def test_no_other_proof_is_believed(size: int, data: st.DataObject) -> None:
    leaves = leaves_of(size)
    root = naive_root(leaves)
    index = data.draw(st.integers(0, size - 1))
    proof = tree_of(leaves).inclusion(index, size)
    with pytest.raises(IntegrityError) as caught:
        verify_inclusion(leaves[index], index, size, mutated(proof, data), root)
    assert caught.value.check == "merkle.inclusion"
    other = data.draw(st.integers(-1, size).filter(lambda other: other != index))
    with pytest.raises(IntegrityError):
        verify_inclusion(leaves[index], other, size, proof, root)
    with pytest.raises(IntegrityError):
        verify_inclusion(leaf_hash(b"other"), index, size, proof, root)
    earlier = data.draw(st.integers(1, size))
    earlier_root = naive_root(leaves[:earlier])
    consistency = tree_of(leaves).consistency(earlier, size)
    with pytest.raises(IntegrityError) as caught:
        verify_consistency(earlier, size, mutated(consistency, data), earlier_root, root)
    assert caught.value.check == "merkle.consistency"
    with pytest.raises(IntegrityError):
        verify_consistency(earlier, size, consistency, bytes(32), root)
    with pytest.raises(IntegrityError):
        verify_consistency(earlier, size, consistency, earlier_root, bytes(32))


@pytest.mark.parametrize(("earlier", "size"), [(0, 8), (9, 8), (-1, 8)])
def test_sizes_out_of_range(earlier: int, size: int) -> None:
    with pytest.raises(InputError):
        tree_of(LEAVES[:size]).consistency(earlier, size)
    with pytest.raises(IntegrityError):
        verify_consistency(earlier, size, [bytes(32)], bytes(32), bytes(32))


@pytest.mark.parametrize("index", [-1, 8])
def test_leaves_out_of_range(index: int) -> None:
    with pytest.raises(InputError):
        tree_of(LEAVES).inclusion(index, len(LEAVES))
    with pytest.raises(IntegrityError):
        verify_inclusion(LEAVES[0], index, 8, [bytes(32)] * 3, bytes(32))
