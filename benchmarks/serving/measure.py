"""The rounds: every contestant in turn, cell by cell (A B C A B C ...): a slow minute of the machine hits all."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from benchmarks.serving.contestants import Contestant
from benchmarks.serving.results import Cell, Run, summarize

__all__ = ["Entry", "WrongAnswerError", "agreement", "cells_of", "check", "measure"]

_PILOT_S = 0.15
_MOST = 200_000


@dataclass(frozen=True)
class Entry:
    """A line of the table.

    Attributes:
        key: a short name.
        label: what it is.
        contestant: who answers.
        models: of the table's models, under which name it has them.
    """

    key: str
    label: str
    contestant: Contestant
    models: Mapping[str, str]


class WrongAnswerError(Exception):
    """A contestant does not compute what the others do."""


def check(entries: Sequence[Entry], images: Mapping[str, np.ndarray], batches: Sequence[int]) -> None:
    """Every contestant has to name the classes that the first one does, before anything is measured.

    Raises:
        WrongAnswerError: one does not.
    """
    first: dict[tuple[str, int], list[int]] = {}
    for entry in entries:
        with _alone(entry):
            for (name, own), batch in itertools.product(entry.models.items(), batches):
                found = entry.contestant.classes(own, images[name][:batch])
                expected = first.setdefault((name, batch), found)
                if found != expected:
                    raise WrongAnswerError(f"{entry.label}, {name}: classes {found}, expected {expected}")


def agreement(these: Sequence[int], those: Sequence[int]) -> float:
    """The part of the images of which both say the same class.

    Raises:
        ValueError: they are not as many.
    """
    return sum(this == that for this, that in zip(these, those, strict=True)) / len(these)


def measure(
    entries: Sequence[Entry],
    cells: Sequence[Cell],
    images: Mapping[str, np.ndarray],
    *,
    rounds: int,
    seconds: Callable[[Cell], float],
    tell: Callable[[Cell, Entry, Run], None],
) -> dict[Cell, dict[str, list[Run]]]:
    """Runs by cell and entry, one of each in every round."""
    found: dict[Cell, dict[str, list[Run]]] = {}
    for cell in cells:
        here = [entry for entry in entries if cell.model in entry.models]
        runs: dict[str, list[Run]] = {entry.key: [] for entry in here}
        asked = images[cell.model][: cell.batch]
        for _ in range(rounds):
            for entry in here:
                with _alone(entry):
                    run = _run(entry, cell, asked, seconds(cell), runs[entry.key])
                runs[entry.key].append(run)
                tell(cell, entry, run)
        found[cell] = runs
    return found


def _run(entry: Entry, cell: Cell, asked: np.ndarray, seconds: float, before: Sequence[Run]) -> Run:
    own = entry.models[cell.model]
    rate = before[-1].rate if before else _pilot(entry, own, asked, cell.concurrency)
    # As many on each connection, so that all of them end at the same time.
    each = max(round(rate * seconds / cell.concurrency), 1)
    requests = min(each * cell.concurrency, _MOST // cell.concurrency * cell.concurrency)
    return summarize(entry.contestant.ask(own, asked, cell.concurrency, requests), cell.concurrency)


def _pilot(entry: Entry, model: str, asked: np.ndarray, concurrency: int) -> float:
    """Requests a second, roughly; everything that happens the first time has happened then."""
    requests = concurrency
    while True:
        start = time.perf_counter()
        rate = summarize(entry.contestant.ask(model, asked, concurrency, requests), concurrency).rate
        if time.perf_counter() - start > _PILOT_S or requests * 8 > _MOST:
            return rate
        requests *= 8


@contextlib.contextmanager
def _alone(entry: Entry) -> Iterator[None]:
    """The entry's contestant goes on for as long as this lasts."""
    entry.contestant.resume()
    try:
        yield
    finally:
        entry.contestant.pause()


def cells_of(models: Sequence[str], batches: Sequence[int], concurrencies: Sequence[int]) -> list[Cell]:
    """Every combination."""
    return [Cell(*each) for each in itertools.product(models, batches, concurrencies)]
