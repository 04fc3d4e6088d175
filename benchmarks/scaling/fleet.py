"""A fleet of replicas and its provisioning servers: everybody at once, or renewals over the day."""

from __future__ import annotations

import random
from dataclasses import dataclass

from benchmarks.scaling.kernel import Process, Simulation
from benchmarks.scaling.samples import Samples, quantile
from benchmarks.scaling.server import Bucket, Costs, Server, SharedLog

__all__ = ["Herd", "Renewals", "herd", "renewals"]

PATIENCE = 30.0
"""Seconds that a replica waits for one server (:data:`ensconce.provisioning.client.TIMEOUT`)."""
_RETRY_S = 30.0  # of a renewal (ensconce.enclave.replica)
_FIRST_BACK_OFF, _LONGEST_BACK_OFF = 10.0, 300.0  # of a container that ends, by kubelet


@dataclass(frozen=True)
class Herd:
    """How all replicas got their keys.

    Attributes:
        half: seconds after which half of them had theirs.
        most: the same for 99 of 100.
        all: for the last one.
        attempts: sessions that were begun, for each replica.
        loop: the part of its time that the busiest event loop worked.
    """

    half: float
    most: float
    all: float
    attempts: float
    loop: float


def herd(
    costs: Costs,
    start: Samples,
    replicas: int,
    servers: int,
    *,
    verifiers: int,
    seed: int,
    spread: float = 60.0,
    identity: tuple[float, float] | None = (50.0, 500.0),
    places: int = 1024,
    in_place: bool = True,
) -> Herd:
    """Power is back: replicas start within ``spread`` seconds, ask, and those that get no answer ask again.

    Args:
        costs: of sessions.
        start: seconds from a replica's start until it asks.
        replicas: how many.
        servers: how many, among which replicas choose by chance.
        verifiers: of each server.
        seed: of all chance.
        spread: seconds within which machines come back.
        identity: rate and burst of the fleet's one identity at each server; None for no limit.
        places: of each server.
        in_place: who was not answered asks again after 1, 2, 4 ... 30 s, with a random part, as
            :mod:`ensconce.enclave.asking` has it; or else ends, and its container starts again.
    """
    simulation, chance = Simulation(), random.Random(seed)
    log = SharedLog(simulation, costs, chance)
    every = [
        Server(
            simulation, costs, chance, log, verifiers=verifiers, places=places,
            identity=None if identity is None else Bucket(simulation, *identity),
        )
        for _ in range(servers)
    ]  # fmt: skip
    done: list[float] = []
    attempts = 0

    def replica() -> Process:
        nonlocal attempts
        back_off = 1.0 if in_place else 0.0
        yield start.draw(chance)
        while True:
            attempts += 1
            if (yield from chance.choice(every).session(PATIENCE)):
                done.append(simulation.now)
                return
            if in_place:
                yield back_off * (0.5 + chance.random())
                back_off = min(2 * back_off, _RETRY_S)
            else:
                # The first restart of a container is immediate.
                yield back_off
                back_off = min(max(_FIRST_BACK_OFF, 2 * back_off), _LONGEST_BACK_OFF)
                yield start.draw(chance)

    for _ in range(replicas):
        simulation.begin(replica(), chance.random() * spread)
    simulation.run()
    busiest = max(server.loop.busy_seconds for server in every) / done[-1]
    return Herd(quantile(done, 0.5), quantile(done, 0.99), done[-1], attempts / replicas, busiest)


@dataclass(frozen=True)
class Renewals:
    """A quiet day.

    Attributes:
        rate: renewals a second, of all replicas.
        loop: the part of its time that an event loop works.
        verifiers: the same of a verifier.
        p99: seconds that 99 of 100 renewals take at most.
        failed: the part of them that got no answer at first.
    """

    rate: float
    loop: float
    verifiers: float
    p99: float
    failed: float


def renewals(
    costs: Costs,
    replicas: int,
    lifetime: float,
    servers: int,
    *,
    verifiers: int,
    seed: int,
    count: int = 3000,
    identity: tuple[float, float] | None = (50.0, 500.0),
) -> Renewals:
    """So many renewals, of a fleet whose replicas started at any time: each at two thirds of its certificate's life."""
    simulation, chance = Simulation(), random.Random(seed)
    log = SharedLog(simulation, costs, chance)
    every = [
        Server(
            simulation, costs, chance, log, verifiers=verifiers,
            identity=None if identity is None else Bucket(simulation, *identity),
        )
        for _ in range(servers)
    ]  # fmt: skip
    rate = replicas / (lifetime * 2 / 3)
    waited: list[float] = []
    failed = 0

    def renewal() -> Process:
        nonlocal failed
        began = simulation.now
        while not (yield from chance.choice(every).session(PATIENCE)):
            failed += 1
            if simulation.now - began > lifetime / 3:
                return
            yield _RETRY_S
        waited.append(simulation.now - began)

    def day() -> Process:
        for _ in range(count):
            yield chance.expovariate(rate)
            simulation.begin(renewal())

    simulation.begin(day())
    until = simulation.run(count / rate)
    loop = sum(server.loop.utilisation for server in every) / servers
    working = sum(server.verifiers.utilisation for server in every) / servers
    simulation.run()
    assert until > 0
    return Renewals(rate, loop, working, quantile(sorted(waited), 0.99), failed / count)
