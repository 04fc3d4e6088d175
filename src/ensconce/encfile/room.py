"""Memory for a large plaintext: what it costs is getting pages from the kernel, which takes as long as decrypting.

For 100 MB on Linux: 37 ms page by page as they are touched, 30 all at once, 7 in huge pages; but 300 in huge pages that
a hypervisor has to find first. Whether it has to shows in how long the first ones take.
"""

from __future__ import annotations

import contextlib
import mmap
import time
from typing import Final

__all__ = ["room"]

_LARGE: Final = 1 << 20
_HUGE: Final = 2 << 20
_SLOW_S: Final = 0.001
"""A huge page that takes longer than this had to be found; it takes 0.15 ms to clear."""
_POPULATE_WRITE: Final = 23
"""``MADV_POPULATE_WRITE`` of Linux 5.14, which Python has no name for."""


def room(size: int) -> memoryview:
    """So many bytes of zeros, given back when nobody refers to them any more.

    Raises:
        MemoryError: there are not so many.
        OSError: the same.
        OverflowError: there never will be.
    """
    if size < _LARGE:
        return memoryview(bytearray(size))
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    view = memoryview(memory)
    # All of this is advice, which not every kernel takes, nor Gramine.
    with contextlib.suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, size, _HUGE):
            start = time.perf_counter()
            view[at] = 0
            if time.perf_counter() - start > _SLOW_S:
                memory.madvise(mmap.MADV_NOHUGEPAGE)
                break
        memory.madvise(_POPULATE_WRITE)
    return view
