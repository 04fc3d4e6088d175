"""What processes cost: processor time and memory, as the kernel accounts them; and what others take meanwhile."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["busy_seconds", "children", "memory", "processor_seconds", "queued_seconds", "undisturbed"]

_DISTURBED = 0.03


def processor_seconds(pid: int) -> float:
    """Processor time that a process has taken, all threads, those that ended too; to the nanosecond.

    Linux makes a clock of each process (``clock_getcpuclockid(3)``): the complement of its id, and 2 for the
    scheduler's own accounting, in the low three bits.
    """
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e9


def busy_seconds() -> float:
    """Processor time that all processors of this machine have spent on anything (proc(5), stat)."""
    user, nice, system, _idle, _waiting, *rest = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + sum(rest[:3])) / os.sysconf("SC_CLK_TCK")


def undisturbed(step: Callable[[], object], count: int) -> list[float]:
    """Seconds of ``count`` calls in which no thread of this process waited for a processor for more than a few
    hundredths of the time; of four times as many, if there are not as many so, the least disturbed ones."""
    found: list[tuple[float, float]] = []
    for _ in range(4 * count):
        queued, began = queued_seconds(), time.perf_counter()
        step()
        took = time.perf_counter() - began
        found.append(((queued_seconds() - queued) / took, took))
        if sum(part <= _DISTURBED for part, _ in found) == count:
            break
    return [took for _, took in sorted(found)[:count]]


def queued_seconds() -> float:
    """Seconds that this process's threads were ready to run and did not, for others ran (the kernel's schedstats)."""
    total = 0
    for task in Path("/proc/self/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[1])
        except OSError:
            continue  # it has ended
    return total / 1e9


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
