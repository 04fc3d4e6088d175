"""What has to be done for one group of an encrypted file: read, seal or open, write.

Both makers return a function of the group's number, with buffers of its own: under a megabyte, whatever the size of
the file. The functions share a table with one 32-byte entry (key and tag of the MHT node) per group, which is all
that one group needs to know about another: sealing fills a group's entry from those of its children, opening fills
the children's from its own.
"""

from __future__ import annotations

from collections.abc import Callable

from ensconce.encfile.layout import NODE_SIZE, Layout
from ensconce.encfile.nodes import GroupBuffers, open_group, seal_group

__all__ = ["At", "Work", "memory_opener", "opener", "sealer"]

At = Callable[[memoryview, int], None]
"""Fill (or write out) a buffer at an offset."""
Work = Callable[[int], None]
"""Do one group."""


def sealer(layout: Layout, read: At, write: At, entries: memoryview) -> Work:
    """A function that encrypts a group; all children of the group must have been done before."""
    buffers = GroupBuffers()

    def seal(group: int) -> None:
        offset, length = layout.plain_span(group)
        node, count = layout.node_span(group)
        padded = (count - 1) * NODE_SIZE
        read(buffers.plain[:length], offset)
        buffers.plain[length:padded] = bytes(padded - length)
        children = entries[layout.child_slots(group)].tobytes()
        entries[layout.slot(group)] = seal_group(buffers, count - 1, children)
        write(buffers.sealed[: count * NODE_SIZE], node * NODE_SIZE)

    return seal


def opener(layout: Layout, read: At, write: At, entries: memoryview) -> Work:
    """A function that decrypts a group; the parent of the group must have been done before."""
    buffers = GroupBuffers()

    def open_(group: int) -> None:
        offset, length = layout.plain_span(group)
        node, count = layout.node_span(group)
        read(buffers.sealed[: count * NODE_SIZE], node * NODE_SIZE)
        children = open_group(buffers, count - 1, entries[layout.slot(group)].tobytes(), node)
        slots = layout.child_slots(group)
        entries[slots] = children[: slots.stop - slots.start]
        write(buffers.plain[:length], offset)

    return open_


def memory_opener(layout: Layout, read: At, target: memoryview, entries: memoryview) -> Work:
    """A function that decrypts a group to its place in memory; the parent of the group must have been done before.

    ``target`` is the whole plaintext and what fills its last node.
    """
    buffers = GroupBuffers()

    def open_(group: int) -> None:
        start, _ = layout.plain_span(group)
        node, count = layout.node_span(group)
        read(buffers.sealed[: count * NODE_SIZE], node * NODE_SIZE)
        into = [target[at : at + NODE_SIZE] for at in range(start, start + (count - 1) * NODE_SIZE, NODE_SIZE)]
        children = open_group(buffers, count - 1, entries[layout.slot(group)].tobytes(), node, into)
        slots = layout.child_slots(group)
        entries[slots] = children[: slots.stop - slots.start]

    return open_
