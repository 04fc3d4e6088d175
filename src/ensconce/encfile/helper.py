"""A helper process: ``python -m ensconce.encfile.helper seal|open SOURCE TARGET BOARD SIZE PARENT``.

Started by :mod:`ensconce.encfile.crew` alone. The numbers are three inherited file descriptors, the plaintext's
size, and the process id of the parent: when that is gone, so is the helper, a few milliseconds later.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ensconce.encfile.board import Board
from ensconce.encfile.fileio import read_at, write_at
from ensconce.encfile.groups import opener, sealer
from ensconce.encfile.layout import Layout

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Do tickets until there are none left, something fails, or the parent is gone."""
    make = {"seal": sealer, "open": opener}[arguments[0]]
    source, target, handle, size, parent = map(int, arguments[1:])
    board = Board(Layout(size), handle)
    name = Path("the source")  # Nobody sees this process's errors; the parent repeats the work and tells.
    work = make(
        board.layout,
        lambda view, offset: read_at(source, view, offset, name),
        lambda view, offset: write_at(target, view, offset),
        board.entries,
    )
    while os.getppid() == parent and (ticket := board.claim()) is not None:
        for group in board.groups(ticket):
            work(group)
        board.finish(ticket)


if __name__ == "__main__":
    main(sys.argv[1:])
