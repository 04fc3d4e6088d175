"""Requests at replicas: queues by load, and an autoscaler that waits for enclaves."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.scaling.kernel import Process, Simulation, Table
from benchmarks.scaling.samples import Samples, quantile

__all__ = ["Engine", "Queue", "Scaled", "queue", "rolling", "scaled"]

WAITING = 256
"""Requests of a model at a replica; the next one is refused (docs/reference/serving.md)."""
_GAIN = 0.9  # what a larger batch must save for each row (ensconce.serving.batching.pace)
_SYNC_S = 15.0  # --horizontal-pod-autoscaler-sync-period
_TOLERANCE = 0.1  # --horizontal-pod-autoscaler-tolerance
_WINDOW_S = 60.0  # of the metric (docs/reference/kubernetes.md)
_PERIOD_S = 30.0  # of the policies by which the objects of `kubernetes render` scale up: twice as many, or two more


@dataclass(frozen=True)
class Engine:
    """Inference, by rows: values that were measured for some numbers of rows, in between a straight line.

    Attributes:
        by_rows: seconds of a batch.
        limit: rows of the largest batch that pays.
    """

    by_rows: Mapping[int, Samples]
    limit: int

    @classmethod
    def of(cls, measured: Mapping[str, Any]) -> Engine:
        """From what was measured; the limit is the smallest size that none beats by a tenth for each row."""
        by_rows = {
            int(rows): Samples.of([each["cpu"] for each in values]) for rows, values in measured["inference"].items()
        }
        per_row = {rows: samples.at(0.5) / rows for rows, samples in by_rows.items()}
        limit = min(rows for rows, cost in per_row.items() if min(per_row.values()) > _GAIN * cost)
        return cls(by_rows, limit)

    def seconds(self, rows: int, chance: random.Random) -> float:
        """One batch; as lucky as ``chance`` says among all batches of its size."""
        part = chance.random()
        below = max(size for size in self.by_rows if size <= rows)
        above = min(size for size in self.by_rows if size >= rows)
        least, most = self.by_rows[below].at(part), self.by_rows[above].at(part)
        return least if above == below else least + (most - least) * (rows - below) / (above - below)

    @property
    def most_a_second(self) -> float:
        """Rows that one replica computes, in the batches that it would have then."""
        return self.limit / self.by_rows[self.limit].mean


@dataclass(frozen=True)
class Queue:
    """How long requests wait at a replica before their batch is begun, seconds; and rows of a batch on average."""

    p50: float
    p99: float
    rows: float
    refused: float


def queue(
    engine: Engine, load: float, *, merged: bool, bursty: bool, seed: int, count: int = 50_000, alone: float = 0.0
) -> Queue:
    """One replica at ``load``, a part of what it computes one by one.

    Args:
        engine: what computes.
        load: 0.5 is half of the rate at which it would be always busy with batches of one.
        merged: whether what waits together is computed together.
        bursty: three times the rate for 1 s in 5 on average, half of it in between, both exponential.
        seed: of all chance.
        count: requests.
        alone: seconds that each batch takes beside inference.
    """
    simulation, chance = Simulation(), random.Random(seed)
    table = Table(simulation, engine.limit if merged else 1, lambda rows: alone + engine.seconds(rows, chance))
    rate = load / (alone + engine.by_rows[1].mean)
    waits: list[float] = []
    refused = 0
    high = False

    def bursts() -> Process:
        nonlocal high
        while len(waits) + refused < count:
            high = not high
            yield chance.expovariate(1.0 if high else 1 / 4.0)

    def arrivals() -> Process:
        nonlocal refused
        for _ in range(count):
            # Thinned: at the highest rate, but some do not come.
            while True:
                yield chance.expovariate(3 * rate if bursty else rate)
                if not bursty or high or chance.random() < 1 / 6:
                    break
            if table.waiting >= WAITING:
                refused += 1
            else:
                table.add(waits.append)

    if bursty:
        simulation.begin(bursts())
    simulation.begin(arrivals())
    simulation.run()
    waits.sort()
    return Queue(quantile(waits, 0.5), quantile(waits, 0.99), table.guests / table.batches, refused / count)


@dataclass(frozen=True)
class Scaled:
    """What a step in the load did.

    Attributes:
        p99: seconds of queueing, of the requests in the five minutes after it.
        late: seconds of those minutes in which 99 of 100 requests did not stay below the bound.
        refused: the part of the requests that found a full queue.
        replicas: how many there were at the end.
    """

    p99: float
    late: int
    refused: float
    replicas: int


@dataclass(eq=False, slots=True)
class _Replica:
    table: Table
    connections: int = 0
    waits: deque[tuple[float, float]] | None = None


def scaled(
    engine: Engine,
    start: Samples,
    *,
    replicas: int,
    spare: int,
    before: float,
    factor: float,
    bound: float,
    target: float,
    seed: int,
    most: int,
    age: float = 300.0,
    alone: float = 0.0,
    after: float = 300.0,
) -> Scaled:
    """A load that is multiplied within ten seconds, and the autoscaler of ``kubernetes render``.

    Connections ask once a second on average and go to the replica with the fewest of them, as the gateway sends them;
    they end at ``age``, a tenth sooner or later. More load is more connections.

    Args:
        engine: of each replica.
        start: seconds from the decision until a new replica takes connections.
        replicas: that the load needs before the step.
        spare: more of them.
        before: load of ``replicas`` before it, a part of what they compute one by one.
        factor: of the load.
        bound: seconds of queueing that are too many.
        target: seconds of queueing that the autoscaler wants.
        seed: of all chance.
        most: replicas that the autoscaler may make.
        age: of connections, seconds.
        alone: seconds that each batch takes beside inference.
        after: seconds that are watched.
    """
    simulation, chance = Simulation(), random.Random(seed)
    ready: list[_Replica] = []
    wanted = least = replicas + spare
    warm = _WINDOW_S
    seen: list[tuple[float, float]] = []
    refused = 0

    def join(_: Any = None) -> None:
        table = Table(simulation, engine.limit, lambda rows: alone + engine.seconds(rows, chance))
        ready.append(_Replica(table, 0, deque()))

    def connect(life: float | None) -> None:
        mine = min(ready, key=lambda each: each.connections)
        mine.connections += 1
        until = simulation.now + (chance.uniform(0.9, 1.1) * age if life is None else life)

        def told(waited: float) -> None:
            assert mine.waits is not None
            mine.waits.append((simulation.now, waited))
            if simulation.now >= warm:
                seen.append((simulation.now, waited))

        def ask(_: Any) -> None:
            nonlocal refused
            if simulation.now > until:
                mine.connections -= 1
                connect(None)
                return
            if mine.table.waiting >= WAITING:
                refused += 1
            else:
                mine.table.add(told)
            simulation.at(chance.expovariate(1.0), ask)

        simulation.at(chance.expovariate(1.0), ask)

    def scaler() -> Process:
        nonlocal wanted
        history: deque[tuple[float, int]] = deque()
        while True:
            yield _SYNC_S
            now = simulation.now
            means = []
            for each in ready:
                assert each.waits is not None
                while each.waits and each.waits[0][0] < now - _WINDOW_S:
                    each.waits.popleft()
                if each.waits:
                    means.append(math.fsum(waited for _, waited in each.waits) / len(each.waits))
            # Pods that are not there yet count as if nobody waited at them.
            ratio = math.fsum(means) / max(len(means), wanted) / target if means else 0.0
            while history and history[0][0] <= now - _PERIOD_S:
                history.popleft()
            if ratio <= 1 + _TOLERANCE:
                continue
            # So long as it asks for more; it takes ten quiet minutes until there are fewer.
            base = wanted - sum(more for _, more in history)
            more = min(math.ceil(ratio * wanted), max(2 * base, base + 2), most) - wanted
            if more > 0:
                wanted += more
                history.append((now, more))
                for _ in range(more):
                    simulation.at(start.draw(chance), join)

    for _ in range(least):
        join()
    connections = round(replicas * before / (alone + engine.by_rows[1].mean))
    for _ in range(connections):
        # They have been there for any part of their lives.
        simulation.at(chance.random(), connect, chance.random() * age)
    for _ in range(round(connections * (factor - 1))):
        simulation.at(warm + chance.uniform(0.0, 10.0), connect)
    simulation.begin(scaler(), chance.uniform(0.0, _SYNC_S))
    simulation.run(warm + after)
    by_second: dict[int, list[float]] = {}
    for at, waited in seen:
        by_second.setdefault(int(at), []).append(waited)
    late = sum(quantile(sorted(waits), 0.99) > bound for waits in by_second.values())
    waits = sorted(waited for _, waited in seen)
    return Scaled(quantile(waits, 0.99), late, refused / (len(waits) + refused), len(ready))


def rolling(start: Samples, replicas: int, surge: int, seed: int) -> float:
    """Seconds until each of so many replicas was replaced, ``surge`` at a time, each new one ready before an old one
    goes."""
    chance = random.Random(seed)
    # When each of those that are under way is ready: the first of them makes room for the next.
    ready = [start.draw(chance) for _ in range(min(surge, replicas))]
    heapq.heapify(ready)
    for _ in range(replicas - len(ready)):
        heapq.heapreplace(ready, ready[0] + start.draw(chance))
    return max(ready)
