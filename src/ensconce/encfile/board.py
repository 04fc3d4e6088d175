"""The table of entries, and the memory through which several processes share one file's work.

Work on the leaves (all groups but the first thirty-second) is handed out in *tickets* of a few neighbouring groups.
The board is anonymous memory (``memfd_create``): keys in it never reach a disk, an argument or the environment. ::

    u64 number of the next ticket | one byte per ticket, 1 when done | one 32-byte entry per group
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from typing import Final, Self

from ensconce.encfile.layout import ENTRY_SIZE, GROUP_DATA, Layout

__all__ = ["Board"]

_TICKET: Final = 8
"""Groups per ticket: 3 MiB of data, a few milliseconds of work."""
_NEXT: Final = struct.Struct("<Q")


class Board:
    """Shared memory with the tickets and the entries of one file.

    Attributes:
        handle: the file descriptor to hand to other processes.
        layout: the layout of the file.
        tickets: how many tickets there are.
        entries: one 32-byte entry per group, shared by all processes.
    """

    def __init__(self, layout: Layout, handle: int) -> None:
        """Attach to the board behind ``handle``, which stays the caller's."""
        self.handle = handle
        self.layout = layout
        self.tickets = -(-(layout.groups - layout.first_leaf) // _TICKET)
        self._memory = mmap.mmap(handle, self._size(layout))
        self._done = memoryview(self._memory)[_NEXT.size : _NEXT.size + self.tickets]
        self.entries = memoryview(self._memory)[_NEXT.size + self.tickets :]

    @staticmethod
    def _size(layout: Layout) -> int:
        tickets = -(-(layout.groups - layout.first_leaf) // _TICKET)
        return _NEXT.size + tickets + layout.groups * ENTRY_SIZE

    @classmethod
    def create(cls, layout: Layout) -> Self:
        """Make a new board; :meth:`close` releases it."""
        handle = os.memfd_create("encfile-board", os.MFD_CLOEXEC)
        try:
            os.ftruncate(handle, cls._size(layout))
            return cls(layout, handle)
        except BaseException:
            os.close(handle)
            raise

    def close(self) -> None:
        """Wipe and release the board."""
        self.entries[:] = bytes(len(self.entries))
        self._done.release()
        self.entries.release()
        self._memory.close()
        os.close(self.handle)

    def claim(self) -> int | None:
        """Take the next ticket that nobody has taken, or None when all are taken."""
        fcntl.lockf(self.handle, fcntl.LOCK_EX)
        try:
            (ticket,) = _NEXT.unpack_from(self._memory)
            _NEXT.pack_into(self._memory, 0, ticket + 1)
        finally:
            fcntl.lockf(self.handle, fcntl.LOCK_UN)
        return int(ticket) if ticket < self.tickets else None

    def groups(self, ticket: int) -> range:
        """The groups that a ticket stands for."""
        first = self.layout.first_leaf + ticket * _TICKET
        return range(first, min(self.layout.groups, first + _TICKET))

    def finish(self, ticket: int) -> None:
        """Note that every group of ``ticket`` was done and written."""
        self._done[ticket] = 1

    def finished_bytes(self) -> int:
        """How many bytes of plaintext the finished tickets stand for."""
        done = bytes(self._done)
        if 0 not in done:
            first = self.layout.plain_span(self.layout.first_leaf)[0]
            return self.layout.size - first
        return done.count(1) * _TICKET * GROUP_DATA

    def unfinished(self) -> list[int]:
        """The tickets that are not done."""
        return [ticket for ticket in range(self.tickets) if not self._done[ticket]]
