"""Where every byte of an encrypted file lies: arithmetic only, no I/O and no keys.

The unit that everything here works in is the *group*: one MHT node ("Merkle hash tree", a table of keys and MACs)
followed by the up to 96 data nodes that it describes. Groups follow the metadata node without gaps::

    node 0            metadata (holds the first 3072 bytes of the data)
    node 1 + 97 g     MHT node of group g
    the 96 after it   data nodes of group g

Besides its data nodes an MHT node describes up to 32 child MHT nodes: group g is child (g-1) % 32 of group
(g-1) // 32. So a parent always has a smaller number than its children, and the children of g are the neighbours
32 g + 1 to 32 g + 32.

Source: ``protected_files_format.h`` and ``get_node_numbers`` in ``protected_files.c`` of Gramine 1.9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "CHILDREN",
    "DATA_NODES",
    "ENTRY_SIZE",
    "GROUP_DATA",
    "GROUP_NODES",
    "HEAD_SIZE",
    "NODE_SIZE",
    "Format",
    "Layout",
    "encrypted_size",
]

Format = Literal[1, 2]
"""Major version of the format: 1 is written by Gramine before 1.9, 2 by 1.9 and later; 1.9 reads both."""

NODE_SIZE: Final = 4096
HEAD_SIZE: Final = 3072
"""Bytes of data inside the metadata node."""
DATA_NODES: Final = 96
CHILDREN: Final = 32
ENTRY_SIZE: Final = 32
"""An entry of an MHT node: 16 bytes of key, then 16 bytes of GCM tag."""
GROUP_NODES: Final = 1 + DATA_NODES
GROUP_DATA: Final = DATA_NODES * NODE_SIZE
"""Bytes of plaintext that a full group holds."""


@dataclass(frozen=True)
class Layout:
    """The layout of a file with ``size`` bytes of plaintext."""

    size: int

    @property
    def data_nodes(self) -> int:
        """How many data nodes there are (MHT and metadata nodes not counted)."""
        return -(-max(0, self.size - HEAD_SIZE) // NODE_SIZE)

    @property
    def groups(self) -> int:
        """How many groups, which is also how many MHT nodes."""
        return -(-self.data_nodes // DATA_NODES)

    @property
    def first_leaf(self) -> int:
        """The first group without children: this one and all after it depend on no other group."""
        return (self.groups + CHILDREN - 2) // CHILDREN

    @property
    def encrypted_size(self) -> int:
        """Length of the encrypted file in bytes."""
        return NODE_SIZE * (1 + self.groups + self.data_nodes)

    def plain_span(self, group: int) -> tuple[int, int]:
        """Offset and length, in the plaintext, of what ``group`` holds."""
        offset = HEAD_SIZE + group * GROUP_DATA
        return offset, min(GROUP_DATA, self.size - offset)

    def node_span(self, group: int) -> tuple[int, int]:
        """First node of ``group`` (its MHT node), and how many nodes it has."""
        return 1 + group * GROUP_NODES, 1 + min(DATA_NODES, self.data_nodes - group * DATA_NODES)

    def child_slots(self, group: int) -> slice:
        """Where, in a table with one entry per group, the entries of the children of ``group`` lie."""
        first = min(self.groups, CHILDREN * group + 1)
        return slice(ENTRY_SIZE * first, ENTRY_SIZE * min(self.groups, first + CHILDREN))

    @staticmethod
    def slot(group: int) -> slice:
        """Where, in a table with one entry per group, the entry of ``group`` lies."""
        return slice(ENTRY_SIZE * group, ENTRY_SIZE * (group + 1))


def encrypted_size(size: int) -> int:
    """Length in bytes of the encrypted form of ``size`` bytes; the same in both versions."""
    return Layout(size).encrypted_size
