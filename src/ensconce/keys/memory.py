"""Memory for secrets: pages of their own, locked and left out of core dumps where the system allows, zeroed at the end.

What this cannot do: ``bytes``, ``str`` and everything that a library copies stay in Python's heap until something
overwrites them. ``docs/reference/keystore.md`` says which secrets those are.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

__all__ = ["Protection", "SecretBuffer", "forbid_core_dumps", "protect_process"]

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
# prctl(2), mlockall(2), capabilities(7); the same numbers on every architecture that SGX or TDX runs on.
_PR_SET_DUMPABLE = 4
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAP_IPC_LOCK = 14


class SecretBuffer:
    """So many bytes that only this object owns; as a context manager, zeroed when the block ends.

    Attributes:
        locked: whether the system keeps the pages out of swap (mlock(2)); RLIMIT_MEMLOCK may forbid it.
    """

    def __init__(self, size: int) -> None:
        """A zeroed buffer of ``size`` bytes."""
        self._size = size
        # Whole pages that nothing else lies in: mlock and MADV_DONTDUMP act on pages, and do not nest.
        self._pages = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._pages))
        self.locked = _libc.mlock(self._address, len(self._pages)) == 0
        with contextlib.suppress(OSError):
            self._pages.madvise(mmap.MADV_DONTDUMP)
        self._wiped = False

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> SecretBuffer:
        """A buffer that holds a copy of ``data``; a ``bytearray`` is zeroed, anything else its owner's to forget."""
        buffer = cls(len(data))
        buffer.view[:] = data
        if isinstance(data, bytearray):
            data[:] = bytes(len(data))
        return buffer

    def __repr__(self) -> str:
        return f"SecretBuffer({self._size} bytes)"

    def __len__(self) -> int:
        return self._size

    @property
    def view(self) -> memoryview:
        """The bytes, to read and write in place.

        Raises:
            ValueError: they were wiped.
        """
        if self._wiped:
            raise ValueError("this secret was wiped")
        return memoryview(self._pages)[: self._size]

    def wipe(self) -> None:
        """Zero the bytes; views that somebody still holds see zeros."""
        ctypes.memset(self._address, 0, self._size)
        self._wiped = True

    def __enter__(self) -> SecretBuffer:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.wipe()

    def __del__(self) -> None:
        if not getattr(self, "_wiped", True):
            self.wipe()


@dataclass(frozen=True)
class Protection:
    """What the system granted to a process that holds keys.

    Attributes:
        core_dumps_off: no core file will be written, and no other process of this user can attach or read its memory.
        memory_locked: none of its memory goes to swap.
        remark: why not, in words for the log; None when both hold.
    """

    core_dumps_off: bool
    memory_locked: bool
    remark: str | None


def forbid_core_dumps() -> bool:
    """Whether from now on this process leaves no core file, and no other process of this user can read its memory."""
    undumpable: bool = _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError):
        return False
    return undumpable


def protect_process() -> Protection:
    """Switch core dumps off for this process and lock its memory, as far as the system allows; never fails.

    Memory is locked only where RLIMIT_MEMLOCK is unlimited or the process has CAP_IPC_LOCK: under a limit, the first
    allocation beyond it would fail and take the server down.
    """
    remarks = []
    undumpable = forbid_core_dumps()
    if not undumpable:
        remarks.append("core dumps could not be switched off")
    locked = False
    if _may_lock_everything():
        # On fault: what is never touched, such as most of each thread's stack, takes no memory.
        locked = _libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0
        if not locked:
            remarks.append(f"memory could not be locked: {os.strerror(ctypes.get_errno())}")
    else:
        limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        remarks.append(f"memory is not locked: RLIMIT_MEMLOCK is {limit} bytes; keys may reach the swap space")
    return Protection(undumpable, locked, "; ".join(remarks) or None)


def _may_lock_everything() -> bool:
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return limit == resource.RLIM_INFINITY or bool(_effective_capabilities() >> _CAP_IPC_LOCK & 1)


def _effective_capabilities() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return 0
