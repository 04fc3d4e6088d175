"""How commands print: tables and lines for people on a terminal, JSON for programs."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ensconce.times import utc_text

__all__ = ["notices", "print_json", "print_table", "progress_bar", "say", "with_times"]

# Results go to standard output; progress and remarks to standard error. Rich honours NO_COLOR.
_results = Console(soft_wrap=True, highlight=False)
notices = Console(stderr=True, soft_wrap=True, highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def with_times(value: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """``value`` with the times called ``names``, Unix time in seconds or None, in the form of every time we print."""
    return {**value, **{name: None if value[name] is None else utc_text(value[name]) for name in names}}


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on standard output."""
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    _results.print(table)


def say(text: str) -> None:
    """One line of result on standard output, without markup."""
    _results.print(text, markup=False)


@contextlib.contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error where that is a terminal; yields a function to be told of each further byte done."""
    with Progress(console=notices, transient=True, disable=not notices.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.advance(task, done)
