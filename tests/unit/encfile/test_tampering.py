from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce import encfile
from ensconce.encfile.metadata import Metadata, seal_metadata
from ensconce.errors import IntegrityError

KEY = bytes(range(16))
NODE = 4096
GROUP = 96 * NODE


@pytest.fixture(scope="module")
def seal(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    folder = tmp_path_factory.mktemp("seal")

    def make(size: int, format: encfile.Format = 2, path: str = "a/x") -> bytes:
        (folder / "in").write_bytes(b"d" * size)
        encfile.encrypt_file(folder / "in", folder / "enc", KEY, embedded_path=path, format=format)
        return (folder / "enc").read_bytes()

    return make


def refusal(blob: bytes, key: bytes = KEY, path: str | None = "a/x") -> IntegrityError:
    with pytest.raises(IntegrityError) as caught:
        encfile.decrypt_bytes(blob, key, verify_path=path)
    return caught.value


def expected_checks(offset: int, format: int) -> set[str]:
    """The only checks that may notice a change of the byte at ``offset``."""
    body = 58 if format == 1 else 59
    if offset < 8:
        return {"encfile.magic"}
    if offset < 10:
        return {"encfile.version", "encfile.metadata_mac", "encfile.padding"}
    if offset == 58 and format == 2:
        return {"encfile.pending", "encfile.flags"}
    if offset < body + 3884:
        return {"encfile.metadata_mac"}
    return {"encfile.padding"} if offset < NODE else {"encfile.node_mac"}


@pytest.mark.parametrize("format", [1, 2])
def test_every_bit_of_the_header_and_one_of_every_other_byte(
    seal: Callable[..., bytes], format: encfile.Format
) -> None:
    blob = bytearray(seal(3073, format))
    for offset in range(len(blob) if format == 2 else NODE):
        for bit in range(8) if offset < 60 else (offset % 8,):
            blob[offset] ^= 1 << bit
            error = refusal(blob)
            assert error.check in expected_checks(offset, format), (offset, bit)
            if offset >= NODE:
                assert f"node {offset // NODE} " in error.problem
            blob[offset] ^= 1 << bit
    encfile.decrypt_bytes(blob, KEY, verify_path="a/x")


def test_the_pending_flag_has_its_own_name(seal: Callable[..., bytes]) -> None:
    blob = bytearray(seal(1))
    blob[58] = 0x01
    assert refusal(blob).check == "encfile.pending"
    blob[58] = 0x80
    assert refusal(blob).check == "encfile.flags"


@pytest.mark.parametrize(("offset", "value"), [(8, 0), (8, 3), (9, 1)])
def test_unknown_versions(seal: Callable[..., bytes], offset: int, value: int) -> None:
    blob = bytearray(seal(1))
    blob[offset] = value
    assert refusal(blob).check == "encfile.version"


def test_wrong_key(seal: Callable[..., bytes]) -> None:
    error = refusal(seal(5000), key=bytes(16))
    assert error.check == "encfile.metadata_mac"
    assert "wrap key is wrong" in error.problem


@pytest.mark.parametrize("path", ["a/y", "a", "a/x/b", "/a/x", "a/xx"])
def test_wrong_path(seal: Callable[..., bytes], path: str) -> None:
    error = refusal(seal(10), path=path)
    assert error.check == "encfile.path"
    assert error.found == "a/x"


@given(st.data())
def test_any_truncation(seal: Callable[..., bytes], data: st.DataObject) -> None:
    blob = seal(20000)
    length = data.draw(st.integers(0, len(blob) - 1))
    assert refusal(blob[:length]).check == ("encfile.magic" if length == 0 else "encfile.size")


@pytest.mark.parametrize("size", [0, 3072, 3073, 20000])
@pytest.mark.parametrize("extra", [1, NODE, 2 * NODE])
def test_anything_behind_the_end(seal: Callable[..., bytes], size: int, extra: int) -> None:
    error = refusal(seal(size) + bytes(extra))
    assert error.check == "encfile.size"
    assert "extra" in error.problem


def test_swapped_data_nodes(seal: Callable[..., bytes]) -> None:
    blob = seal(3072 + 3 * NODE)
    nodes = [blob[at : at + NODE] for at in range(0, len(blob), NODE)]
    nodes[2], nodes[3] = nodes[3], nodes[2]
    error = refusal(b"".join(nodes))
    assert error.check == "encfile.node_mac"
    assert "node 3 of" in error.problem


def test_swapped_tables(seal: Callable[..., bytes]) -> None:
    blob = seal(3072 + 3 * GROUP)
    nodes = [blob[at : at + NODE] for at in range(0, len(blob), NODE)]
    nodes[98], nodes[195] = nodes[195], nodes[98]
    error = refusal(b"".join(nodes))
    assert error.check == "encfile.node_mac"
    assert "node 98 of the encrypted file, a table" in error.problem


def test_nodes_of_another_encryption_of_the_same_data(seal: Callable[..., bytes]) -> None:
    one, other = seal(9000), seal(9000)
    for node in range(4):
        mixed = one[: node * NODE] + other[node * NODE : (node + 1) * NODE] + one[(node + 1) * NODE :]
        assert refusal(mixed).check == "encfile.node_mac"


def test_metadata_that_lies_about_the_size(seal: Callable[..., bytes]) -> None:
    blob = seal(9000)
    for size in (0, 9000 - NODE, 9000 + NODE, 2**63, 2**64 - 1):
        node = seal_metadata(Metadata(path=b"a/x", size=size, root=bytes(32), head=b""), KEY, 2)
        assert refusal(node + blob[NODE:]).check == "encfile.size"


def test_metadata_whose_path_has_no_end() -> None:
    node = seal_metadata(Metadata(path=b"a" * 772, size=0, root=bytes(32), head=b""), KEY, 2)
    assert refusal(node, path=None).check == "encfile.path"


def test_what_gramine_leaves_in_a_shortened_file_is_accepted() -> None:
    # After a truncation inside an enclave, old data stays behind the end, and the old root entry stays in place.
    node = seal_metadata(Metadata(path=b"a/x", size=5, root=b"r" * 32, head=b"12345old"), KEY, 2)
    assert encfile.decrypt_bytes(node, KEY, verify_path="a/x") == b"12345"


@given(st.binary(max_size=9000))
def test_any_bytes_are_refused(blob: bytes) -> None:
    assert refusal(blob).check.startswith("encfile.")
    assert refusal((b"GRAFS_PF\x02\x00" + blob).ljust(NODE, b"\0")).check.startswith("encfile.")


def test_a_damaged_file_leaves_no_output(seal: Callable[..., bytes], tmp_path: Path) -> None:
    blob = bytearray(seal(3072 + 5 * GROUP))
    blob[-1] ^= 1
    (tmp_path / "enc").write_bytes(blob)
    (tmp_path / "out").write_bytes(b"what was there")
    with pytest.raises(IntegrityError, match="data node"):
        encfile.decrypt_file(tmp_path / "enc", tmp_path / "out", KEY, verify_path="a/x")
    assert (tmp_path / "out").read_bytes() == b"what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["enc", "out"]


def test_fingerprint_of_a_stump(tmp_path: Path) -> None:
    (tmp_path / "enc").write_bytes(b"GRAFS_PF")
    with pytest.raises(IntegrityError):
        encfile.fingerprint(tmp_path / "enc")
