"""A discrete-event simulator: a clock, processes, places to wait for, tables at which batches form.

A process is a generator. What it yields is what it waits for: a number is that many seconds, anything else was made by
a :class:`Pool` or a :class:`Table`, and what it was given is the value of the ``yield``. Events at one moment happen in
the order in which they were asked for, so a run with the same seed is the same run.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Protocol

__all__ = ["Pool", "Process", "Simulation", "Table"]

Process = Generator["float | Waitable", Any, None]


class Waitable(Protocol):
    """What a process may wait for besides time."""

    def start(self, resume: Callable[[Any], None]) -> None:
        """Call ``resume`` with the outcome, now or later, once."""


class Simulation:
    """The clock and what is due; times in seconds, from 0."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._due: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._asked = 0

    def at(self, delay: float, call: Callable[[Any], None], given: Any = None) -> None:
        """Call ``call(given)`` in ``delay`` seconds."""
        self._asked += 1
        heapq.heappush(self._due, (self.now + delay, self._asked, call, given))

    def begin(self, process: Process, delay: float = 0.0) -> None:
        """Start a process."""

        def go_on(given: Any) -> None:
            try:
                wanted = process.send(given)
            except StopIteration:
                return
            if isinstance(wanted, int | float):
                self.at(wanted, go_on)
            else:
                wanted.start(go_on)

        self.at(delay, go_on)

    def run(self, until: float = float("inf")) -> float:
        """Let everything happen that is due until then, or at all; returns the time."""
        while self._due and self._due[0][0] <= until:
            self.now, _, call, given = heapq.heappop(self._due)
            self.events += 1
            call(given)
        if until != float("inf"):
            self.now = until
        return self.now


class Pool:
    """Places that processes take and give back; who came first is next.

    Args:
        simulation: whose clock.
        places: how many; it may be changed while the simulation runs.
    """

    def __init__(self, simulation: Simulation, places: int) -> None:
        self._simulation = simulation
        self.places = places
        self.taken = 0
        self.busy_seconds = 0.0
        self._since = 0.0
        self._waiting: deque[_Turn] = deque()

    def take(self, patience: float = float("inf")) -> _Turn:
        """To be yielded: True once a place was taken, False after ``patience`` seconds without one."""
        return _Turn(self, patience)

    def give_back(self) -> None:
        """A place that was taken."""
        while self._waiting:
            turn = self._waiting.popleft()
            if turn.settled:
                continue
            turn.settled = True
            self._simulation.at(0.0, turn.resume, True)
            return
        self._count()
        self.taken -= 1

    def use(self, seconds: float, patience: float = float("inf")) -> Generator[Any, Any, bool]:
        """To be used with ``yield from``: take a place for ``seconds``; False when none was had in time."""
        if not (yield self.take(patience)):
            return False
        yield seconds
        self.give_back()
        return True

    @property
    def utilisation(self) -> float:
        """The part of all places' time that was used so far."""
        self._count()
        return self.busy_seconds / (self.places * self._simulation.now) if self._simulation.now else 0.0

    def _count(self) -> None:
        self.busy_seconds += self.taken * (self._simulation.now - self._since)
        self._since = self._simulation.now

    def _wait(self, turn: _Turn) -> None:
        if self.taken < self.places:
            self._count()
            self.taken += 1
            turn.settled = True
            self._simulation.at(0.0, turn.resume, True)
        elif turn.patience <= 0:
            turn.settled = True
            self._simulation.at(0.0, turn.resume, False)
        else:
            self._waiting.append(turn)
            if turn.patience != float("inf"):
                self._simulation.at(turn.patience, turn.give_up)


class _Turn:
    """Someone who wants a place."""

    __slots__ = ("patience", "pool", "resume", "settled")

    def __init__(self, pool: Pool, patience: float) -> None:
        self.pool, self.patience, self.settled = pool, patience, False

    def start(self, resume: Callable[[Any], None]) -> None:
        self.resume = resume
        self.pool._wait(self)

    def give_up(self, _: Any) -> None:
        if not self.settled:
            self.settled = True
            self.resume(False)


class Table:
    """Where batches form: whoever comes while one is served is in the next, or in a later one when that is full.

    Args:
        simulation: whose clock.
        most: guests of one batch.
        seconds: how long a batch of so many takes.
    """

    def __init__(self, simulation: Simulation, most: int, seconds: Callable[[int], float]) -> None:
        self._simulation, self._most, self._seconds = simulation, most, seconds
        self._waiting: deque[tuple[float, Callable[[Any], None]]] = deque()
        self._busy = False
        self.batches = self.guests = 0
        self.busy_seconds = 0.0

    @property
    def waiting(self) -> int:
        """How many wait to be served."""
        return len(self._waiting)

    def join(self) -> _Guest:
        """To be yielded: how many seconds the guest waited before its batch began, once the batch is over."""
        return _Guest(self)

    def add(self, over: Callable[[Any], None]) -> None:
        """A guest: ``over`` is called with the seconds that it waited, once its batch is over."""
        self._waiting.append((self._simulation.now, over))
        if not self._busy:
            self._busy = True
            self._serve(())

    def _serve(self, served: tuple[tuple[float, Callable[[Any], None]], ...]) -> None:
        for waited, over in served:
            over(waited)
        if not self._waiting:
            self._busy = False
            return
        now = self._simulation.now
        batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
        seconds = self._seconds(len(batch))
        self.batches, self.guests = self.batches + 1, self.guests + len(batch)
        self.busy_seconds += seconds
        self._simulation.at(seconds, self._serve, tuple((now - came, over) for came, over in batch))


class _Guest:
    """Someone at a table."""

    __slots__ = ("_table",)

    def __init__(self, table: Table) -> None:
        self._table = table

    def start(self, resume: Callable[[Any], None]) -> None:
        self._table.add(resume)
