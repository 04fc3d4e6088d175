"""The simulator against what queueing theory knows for certain, and against what can be worked out by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from benchmarks.scaling.kernel import Pool, Process, Simulation, Table
from benchmarks.scaling.samples import Samples, quantile


def mean_wait(servers: int, rate: float, service: Callable[[], float], customers: int, seed: int) -> float:
    simulation, chance, waits = Simulation(), random.Random(seed), []
    pool = Pool(simulation, servers)

    def customer() -> Process:
        came = simulation.now
        yield pool.take()
        waits.append(simulation.now - came)
        yield service()
        pool.give_back()

    def arrivals() -> Process:
        for _ in range(customers):
            yield chance.expovariate(rate)
            simulation.begin(customer())

    simulation.begin(arrivals())
    simulation.run()
    assert len(waits) == customers
    return sum(waits) / len(waits)


def erlang_c(servers: int, offered: float) -> float:
    """The probability that a customer of M/M/c has to wait."""
    last = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (2, 0.7), (4, 0.75)])
def test_mmc(servers: int, load: float) -> None:
    chance = random.Random(7)
    expected = erlang_c(servers, load * servers) / (servers - load * servers)
    found = mean_wait(servers, load * servers, lambda: chance.expovariate(1.0), 25_000, seed=servers)
    assert found == pytest.approx(expected, rel=0.10)


@pytest.mark.parametrize("load", [0.4, 0.8])
def test_md1(load: float) -> None:
    expected = load / (2 * (1 - load))
    assert mean_wait(1, load, lambda: 1.0, 20_000, seed=3) == pytest.approx(expected, rel=0.08)


def test_mg1_with_values_that_were_measured() -> None:
    """Pollaczek and Khinchine: the second moment decides, which a mean would have hidden."""
    measured, chance = Samples.of([0.2] * 9 + [8.2]), random.Random(5)
    second = sum(value * value for value in measured.values) / len(measured.values)
    rate = 0.6 / measured.mean
    expected = rate * second / (2 * (1 - 0.6))
    assert mean_wait(1, rate, lambda: measured.draw(chance), 25_000, seed=2) == pytest.approx(expected, rel=0.12)


def test_a_place_is_given_to_who_came_first_and_not_to_who_has_gone() -> None:
    simulation, told = Simulation(), []
    pool = Pool(simulation, 1)

    def guest(name: str, patience: float) -> Process:
        got = yield from pool.use(10.0, patience)
        told.append((name, got, simulation.now))

    for at, (name, patience) in enumerate([("first", 99.0), ("hasty", 3.0), ("third", 99.0), ("fourth", 99.0)]):
        simulation.begin(guest(name, patience), float(at))
    simulation.run(until=29.0)
    assert told == [("hasty", False, 4.0), ("first", True, 10.0), ("third", True, 20.0)]
    assert pool.taken == 1
    assert pool.utilisation == 1.0
    simulation.run(until=60.0)
    assert told[-1] == ("fourth", True, 30.0)
    assert (pool.taken, pool.utilisation) == (0, pytest.approx(30 / 60))


def test_without_patience_a_full_pool_says_so_at_once() -> None:
    simulation, told = Simulation(), []
    pool = Pool(simulation, 1)

    def guest() -> Process:
        told.append((yield from pool.use(5.0, 0.0)))

    simulation.begin(guest())
    simulation.begin(guest())
    assert simulation.run() == 5.0
    assert told == [False, True]


def test_a_batch_takes_who_waits_up_to_its_size() -> None:
    simulation, waits = Simulation(), []
    table = Table(simulation, 3, lambda size: 10.0 + size)

    def guest() -> Process:
        waits.append((yield table.join()))

    for at in range(6):
        simulation.begin(guest(), float(at))
    # One alone (11 s), then three who came at 1, 2 and 3 (13 s), then the rest.
    assert simulation.run() == 11.0 + 13.0 + 12.0
    assert waits == [0.0, 10.0, 9.0, 8.0, 20.0, 19.0]
    assert (table.batches, table.guests, table.waiting) == (3, 6, 0)


def test_nothing_happens_after_the_end_that_was_asked_for() -> None:
    simulation, told = Simulation(), []

    def process() -> Process:
        for _ in range(10):
            yield 1.0
            told.append(simulation.now)

    simulation.begin(process())
    simulation.run(until=3.5)
    assert told == [1.0, 2.0, 3.0]


def test_quantiles_are_values_that_were_seen() -> None:
    samples = Samples.of([3.0, 1.0, 2.0, 4.0])
    assert [samples.at(part) for part in (0.0, 0.25, 0.5, 0.51, 0.99, 1.0)] == [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]
    assert quantile([7.0], 0.5) == 7.0
    assert samples.mean == 2.5
    assert samples.times(2).values == (2.0, 4.0, 6.0, 8.0)
    with pytest.raises(ValueError, match="no samples"):
        Samples.of([])
