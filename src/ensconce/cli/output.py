"""How commands print: tables and lines for people on a terminal, JSON for programs."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ensconce.errors import printable
from ensconce.times import utc_text

__all__ = ["print_json", "print_table", "progress_bar", "remark", "say", "updated_bar", "with_times"]

# What is said may be in part a stranger's: no escape sequence of theirs may reach the terminal.
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def with_times(value: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """``value`` with the times called ``names``, Unix time in seconds or None, in the form of every time we print."""
    return {**value, **{name: None if value[name] is None else utc_text(value[name]) for name in names}}


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on standard output; nothing in it is cut, however narrow the terminal.

    What is in a cell stays in it: a line feed in a stranger's name would begin a row of that stranger's own.
    """
    lines = [[printable(text) for text in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        say("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip())


def say(text: str) -> None:
    """One line of result on standard output."""
    print(text.translate(_CONTROLS), flush=True)  # noqa: T201


def remark(text: str) -> None:
    """One line on standard error: what was done, or is to be thought of."""
    print(text.translate(_CONTROLS), file=sys.stderr, flush=True)  # noqa: T201


@contextlib.contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error where that is a terminal; yields a function to be told of each further byte done."""
    with updated_bar(title, total) as update:
        yield lambda done: update(advance=done)


@contextlib.contextmanager
def updated_bar(title: str, total: int | None) -> Iterator[Callable[..., None]]:
    """The same; yields what takes the arguments of :meth:`rich.progress.Progress.update`."""
    if not sys.stderr.isatty():
        yield lambda **_: None
        return
    # Loaded where a bar is drawn: most commands end sooner than this takes.
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        yield functools.partial(bar.update, bar.add_task(title, total=total))
