"""What processes cost: processor time and memory, as the kernel accounts them."""

from __future__ import annotations

import re
import time
from pathlib import Path

__all__ = ["children", "memory", "processor_seconds"]


def processor_seconds(pid: int) -> float:
    """Processor time that a process has taken, all threads, those that ended too; to the nanosecond.

    Linux makes a clock of each process (``clock_getcpuclockid(3)``): the complement of its id, and 2 for the
    scheduler's own accounting, in the low three bits.
    """
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e9


def children(pid: int) -> list[int]:
    """Processes that a process has started (proc(5), task/TID/children)."""
    return [
        int(each) for task in Path(f"/proc/{pid}/task").iterdir() for each in (task / "children").read_text().split()
    ]


def memory(pid: int) -> dict[str, int]:
    """Bytes that are in memory now (``VmRSS``), that ever were (``VmHWM``), and a fair share of what is shared
    (``Pss``)."""
    fields = Path(f"/proc/{pid}/status").read_text() + Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: 1024 * int(found[1]) for name in ("VmRSS", "VmHWM", "Pss") if (found := _field(name, fields))}


def _field(name: str, text: str) -> re.Match[str] | None:
    return re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
