"""Sealing and opening one group of nodes: the only place where data meets AES-GCM.

Every node has a key of its own, used once, which is why the IV may be (and in this format is) always zero. A key is
made and used in :func:`seal_group` within a few lines; no caller can pass one in.

``cryptography`` wants ciphertext and tag side by side, but in the file the tags live in the MHT node. Two orders
save copying every node: sealing goes upwards, each node's tag landing where the next node's ciphertext will
overwrite it; opening goes downwards, each tag being put over the start of the next node, which is already open.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ensconce.encfile.layout import DATA_NODES, ENTRY_SIZE, GROUP_DATA, GROUP_NODES, NODE_SIZE
from ensconce.errors import IntegrityError

__all__ = ["ZERO_IV", "GroupBuffers", "open_group", "seal_group"]

ZERO_IV: Final = bytes(12)
_KEY_SIZE: Final = 16
_TAG_SIZE: Final = 16
_CHILD_AT: Final = DATA_NODES * ENTRY_SIZE
_ENTRY: Final = struct.Struct(f"{_KEY_SIZE}s{_TAG_SIZE}s")


def _zeros(size: int) -> memoryview:
    return memoryview(bytearray(size))


@dataclass(frozen=True)
class GroupBuffers:
    """Memory for one group, allocated once and used for one group after the other.

    Attributes:
        plain: the data, 96 nodes.
        sealed: the MHT node, then 96 data nodes, then room for one tag.
        nodes: for each data node the parts of the above that it uses: its data, its ciphertext with the place
            behind it, and that place (16 bytes) alone. Cut once, because cutting costs a tenth of encrypting.
    """

    plain: memoryview = field(default_factory=lambda: _zeros(GROUP_DATA))
    sealed: memoryview = field(default_factory=lambda: _zeros(GROUP_NODES * NODE_SIZE + _TAG_SIZE))
    nodes: tuple[tuple[memoryview, memoryview, memoryview], ...] = field(init=False)

    def __post_init__(self) -> None:
        starts = range(0, GROUP_DATA, NODE_SIZE)
        ends = range(2 * NODE_SIZE, len(self.sealed), NODE_SIZE)
        nodes = tuple(
            (
                self.plain[start : start + NODE_SIZE],
                self.sealed[end - NODE_SIZE : end + _TAG_SIZE],
                self.sealed[end : end + _TAG_SIZE],
            )
            for start, end in zip(starts, ends, strict=True)
        )
        object.__setattr__(self, "nodes", nodes)


def seal_group(buffers: GroupBuffers, count: int, children: bytes) -> bytes:
    """Encrypt ``count`` data nodes from ``buffers.plain``, and the MHT node that describes them.

    Args:
        buffers: ``sealed`` gets the MHT node and the data nodes, in file order.
        count: data nodes, 1 to 96.
        children: entries of the child MHT nodes, 32 bytes each, at most 32 of them.

    Returns:
        The entry of this MHT node (key and tag) for its parent.
    """
    keys = os.urandom(_KEY_SIZE * (count + 1))
    entries: list[bytes | memoryview] = []
    for index, (plain, box, tag) in enumerate(buffers.nodes[:count]):
        key = keys[_KEY_SIZE * index : _KEY_SIZE * (index + 1)]
        AESGCM(key).encrypt_into(ZERO_IV, plain, None, box)
        entries += (key, tag.tobytes())
    table = b"".join(entries).ljust(_CHILD_AT, b"\0") + children.ljust(NODE_SIZE - _CHILD_AT, b"\0")
    key = keys[_KEY_SIZE * count :]
    sealed = AESGCM(key).encrypt(ZERO_IV, table, None)
    buffers.sealed[:NODE_SIZE] = sealed[:NODE_SIZE]
    return key + sealed[NODE_SIZE:]


def open_group(
    buffers: GroupBuffers, count: int, entry: bytes, first_node: int, into: Sequence[memoryview] | None = None
) -> bytes:
    """Verify and decrypt one group, from ``buffers.sealed`` (which is overwritten).

    Args:
        buffers: ``sealed`` holds the MHT node and the data nodes, in file order.
        count: data nodes, 1 to 96.
        entry: key and tag of the MHT node.
        first_node: number of the MHT node in the file, for messages.
        into: for each data node, where its 4096 bytes go; ``buffers.plain`` if None.

    Returns:
        All 32 entries of the child MHT nodes.

    Raises:
        IntegrityError: ``encfile.node_mac``, naming the node; what was decrypted must not be used then.
    """
    node = first_node
    # A node takes 1.5 microseconds: looking up a global name twice is a tenth of that.
    cipher, iv = AESGCM, ZERO_IV
    try:
        table = cipher(entry[:_KEY_SIZE]).decrypt(iv, buffers.sealed[:NODE_SIZE].tobytes() + entry[_KEY_SIZE:], None)
        targets = into if into is not None else [plain for plain, _, _ in buffers.nodes[:count]]
        entries = [*_ENTRY.iter_unpack(table[: count * ENTRY_SIZE])]
        node += count
        for (key, entry_tag), target, (_, box, tag) in zip(
            reversed(entries), reversed(targets), reversed(buffers.nodes[:count]), strict=True
        ):
            tag[:] = entry_tag
            cipher(key).decrypt_into(iv, box, None, target)
            node -= 1
    except InvalidTag:
        kind = "table (MHT)" if node == first_node else "data"
        raise IntegrityError(
            "encfile.node_mac",
            f"node {node} of the encrypted file, a {kind} node, was changed or swapped",
            found=f"bytes {node * NODE_SIZE} to {(node + 1) * NODE_SIZE - 1} do not match their GCM tag",
            rule="every node must verify under the key and tag that its parent holds",
            remedy="fetch the file again",
        ) from None
    return table[_CHILD_AT:]
