"""Getting all groups of one file done, by this process alone or with helper processes.

Why processes: ``cryptography`` keeps the interpreter's lock while it encrypts, so threads would take turns. A helper
is a fresh interpreter (no fork: the caller may have threads) that inherits three open files: source, target and
board. No key is on its command line; when sealing it needs none at all, because it makes the node keys itself.

A helper only ever speeds things up. One that does not start, fails or is killed leaves tickets that are not marked
done, and this process does those itself, meeting the same error in its own name if there is one.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from ensconce.encfile.board import Board
from ensconce.encfile.groups import Work
from ensconce.encfile.layout import ENTRY_SIZE, Layout

__all__ = ["Crew", "Direction", "Progress", "do_groups", "gathered", "ignore"]

Direction = Literal["seal", "open"]
Progress = Callable[[int], None]
"""Called now and then with the number of further bytes of plaintext that are done."""

_HELP_FROM: Final = 64 << 20
"""Bytes of plaintext from which helpers are started; a smaller file is done before a helper is up."""
_MOST_WORKERS: Final = 4
"""More would wait for each other: the kernel lets one process at a time write to a file."""


@dataclass(frozen=True)
class Crew:
    """What helpers need: the board, descriptors of the files to read and write, and how many helpers there may be."""

    board: Board
    source: int
    target: int
    helpers: int


def ignore(_count: int) -> None:
    """The progress callback of those who did not ask for one."""


@contextlib.contextmanager
def gathered(layout: Layout, source: int, target: int, workers: int | None) -> Iterator[tuple[memoryview, Crew | None]]:
    """The table of entries for one file, and a crew if there are to be helpers.

    Args:
        layout: the layout of the file.
        source: file descriptor to read from.
        target: file descriptor to write to.
        workers: how many processes may work; None for as many as are useful here.
    """
    if workers is None:
        workers = min(_MOST_WORKERS, len(os.sched_getaffinity(0))) if layout.size >= _HELP_FROM else 1
    if workers <= 1 or layout.groups <= 1:
        yield memoryview(bytearray(layout.groups * ENTRY_SIZE)), None
        return
    board = Board.create(layout)
    try:
        yield board.entries, Crew(board, source, target, workers - 1)
    finally:
        board.close()


def do_groups(direction: Direction, layout: Layout, work: Work, progress: Progress, crew: Crew | None) -> None:
    """Do every group of a file: the leaves before their ancestors when sealing, after them when opening."""

    def do(groups: Iterable[int]) -> None:
        for group in groups:
            work(group)
            progress(layout.plain_span(group)[1])

    inner = range(layout.first_leaf)
    if direction == "open":
        do(inner)
    if crew is None:
        do(range(layout.first_leaf, layout.groups))
    else:
        _do_leaves(direction, work, progress, crew)
    if direction == "seal":
        do(reversed(inner))


def _do_leaves(direction: Direction, work: Work, progress: Progress, crew: Crew) -> None:
    board, reported = crew.board, 0

    def do(ticket: int) -> None:
        nonlocal reported
        for group in board.groups(ticket):
            work(group)
        board.finish(ticket)
        done = board.finished_bytes()
        progress(done - reported)
        reported = done

    with _helpers(direction, crew) as helpers:
        while (ticket := board.claim()) is not None:
            do(ticket)
        if board.unfinished():
            for helper in helpers:
                helper.wait()
    for ticket in board.unfinished():
        do(ticket)
    progress(board.finished_bytes() - reported)


@contextlib.contextmanager
def _helpers(direction: Direction, crew: Crew) -> Iterator[list[subprocess.Popen[bytes]]]:
    handles = (crew.source, crew.target, crew.board.handle)
    numbers = (*handles, crew.board.layout.size, os.getpid())
    started: list[subprocess.Popen[bytes]] = []
    try:
        # An OSError (no process to be had) is no failure: the work gets done without.
        with contextlib.suppress(OSError):
            for _ in range(crew.helpers):
                started.append(
                    subprocess.Popen(
                        [sys.executable, "-P", "-m", "ensconce.encfile.helper", direction, *map(str, numbers)],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        pass_fds=handles,
                        start_new_session=True,  # Ctrl-C is for this process, which ends its helpers itself.
                    )
                )
        yield started
    finally:
        for helper in started:
            helper.kill()
        for helper in started:
            helper.wait()
