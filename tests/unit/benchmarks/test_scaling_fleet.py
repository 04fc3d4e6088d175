"""The provisioning server's model, where its answers can be worked out by hand."""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import Any

import pytest
from benchmarks.scaling.fleet import herd, renewals
from benchmarks.scaling.kernel import Pool, Process, Simulation
from benchmarks.scaling.samples import Samples
from benchmarks.scaling.server import Bucket, Costs, Guest, Place, Server, SharedLog, closed

ONE = Samples.of([0.010])
COSTS = Costs(ONE, Samples.of([0.080]), Samples.of([0.020]), Samples.of([0.005]), {1: ONE, 64: Samples.of([0.030])})
AT_ONCE = Samples.of([0.0])


def run(simulation: Simulation, *sessions: Generator[Any, Any, bool]) -> list[tuple[bool, float]]:
    told: list[tuple[bool, float]] = []

    def client(session: Generator[Any, Any, bool]) -> Process:
        granted = yield from session
        told.append((granted, round(simulation.now, 6)))

    for session in sessions:
        simulation.begin(client(session))
    simulation.run()
    return told


def server(simulation: Simulation, **options: Any) -> Server:
    chance = random.Random(1)
    return Server(simulation, COSTS, chance, SharedLog(simulation, COSTS, chance), **options)


def test_a_session_alone_takes_the_sum_of_its_steps() -> None:
    simulation = Simulation()
    told = run(simulation, server(simulation).session(30.0))
    assert told == [(True, round(0.010 + 0.005 + 0.040 + 0.020 + 0.040 + 0.010, 6))]


def test_the_event_loop_is_what_many_wait_for() -> None:
    simulation = Simulation()
    one = server(simulation, verifiers=8)
    told = run(simulation, *(one.session(300.0) for _ in range(100)))
    assert all(granted for granted, _ in told)
    assert told[-1][1] == pytest.approx(100 * 0.090, rel=0.02)
    assert one.loop.busy_seconds == pytest.approx(100 * 0.090)


@pytest.mark.parametrize(("tokens", "appraised"), [(2, 3), (0, 0)])
def test_who_has_no_token_is_refused_before_the_appraisal_where_that_is_known_by_then(
    tokens: int, appraised: int
) -> None:
    simulation = Simulation()
    # With several verifiers all three are under way when the first token is taken.
    one = server(simulation, identity=Bucket(simulation, 0.0, tokens), verifiers=8)
    one.loop = Pool(simulation, 8)
    told = run(simulation, *(one.session(30.0) for _ in range(3)))
    assert sum(granted for granted, _ in told) == tokens
    assert (one.released, one.refused) == (tokens, 3 - tokens)
    assert one.verifiers.busy_seconds == pytest.approx(0.020 * appraised)


def test_tokens_come_back_and_never_exceed_the_burst() -> None:
    simulation = Simulation()
    bucket = Bucket(simulation, 2.0, 3)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    simulation.run(until=1.0)
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    simulation.run(until=100.0)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


def test_the_oldest_gives_way_once_it_was_left_alone() -> None:
    simulation, told = Simulation(), []
    place = Place(simulation, 1, 1.0)
    guests = [Guest(), Guest()]

    def stay(guest: Guest, name: str) -> Process:
        told.append((name, (yield place.enter(guest)), simulation.now))
        yield 5.0
        place.leave(guest)

    for guest, name in zip(guests, ("first", "second"), strict=True):
        simulation.begin(stay(guest, name))
    simulation.run()
    assert told == [("first", True, 0.0), ("second", True, 1.0)]
    assert [guest.evicted for guest in guests] == [True, False]
    assert place.evictions == 1


def test_who_is_evicted_while_it_waits_for_the_next_place_learns_it() -> None:
    simulation, told = Simulation(), []
    first, second = Place(simulation, 1, 1.0), Place(simulation, 1, float("inf"))

    def stay() -> Process:
        yield second.enter(Guest())

    def climb(guest: Guest, name: str) -> Process:
        assert (yield first.enter(guest))
        told.append((name, (yield second.enter(guest)), simulation.now))

    simulation.begin(stay())
    simulation.begin(climb(Guest(), "first"))
    simulation.begin(climb(Guest(), "second"), 0.5)
    simulation.run()
    assert told == [("first", False, 1.0)]


def test_a_full_door_is_knocked_at_again_until_patience_ends() -> None:
    simulation = Simulation()
    one = server(simulation)
    one.door.places = 0
    assert run(simulation, one.session(8.0)) == [(False, 7.0)]


def test_batches_share_one_log_among_servers() -> None:
    simulation = Simulation()
    log = SharedLog(simulation, COSTS, random.Random(1))
    # Two servers ask at one moment: the second waits for the first; a batch of more than one costs as the next size.
    assert [log.seconds(1), log.seconds(2), log.seconds(64)] == pytest.approx([0.010, 0.040, 0.070])


def test_a_herd_that_fits_has_its_keys_when_its_machines_are_back() -> None:
    found = herd(COSTS, AT_ONCE, 50, 1, verifiers=1, seed=1)
    assert found.attempts == 1
    assert 50 < found.all < 61
    assert found.half <= found.most <= found.all


def test_a_herd_at_once_takes_what_the_loops_take_and_less_with_more_of_them() -> None:
    one, four = (
        herd(COSTS, AT_ONCE, 200, servers, verifiers=4, seed=2, spread=0.1, identity=None) for servers in (1, 4)
    )
    assert one.all == pytest.approx(200 * 0.090, rel=0.05)
    assert 4.0 < four.all < 8.0
    assert one.attempts == four.attempts == 1


def test_a_limit_on_the_identity_holds_a_herd_back_and_costs_sessions() -> None:
    free, held = (
        herd(COSTS, AT_ONCE, 150, 1, verifiers=4, seed=3, spread=1.0, identity=limit) for limit in (None, (1.0, 10.0))
    )
    assert held.all > 2 * free.all
    assert held.attempts > 1.5


def test_the_same_seed_is_the_same_herd() -> None:
    first, again = (herd(COSTS, Samples.of([0.1, 0.9]), 80, 2, verifiers=1, seed=9) for _ in range(2))
    assert first == again


def test_renewals_use_what_their_rate_times_their_cost_says() -> None:
    found = renewals(COSTS, 1000, 3600.0, 1, verifiers=1, seed=1, count=2000)
    assert found.rate == pytest.approx(1000 / 2400)
    assert found.loop == pytest.approx(found.rate * 0.090, rel=0.08)
    assert found.verifiers == pytest.approx(found.rate * 0.020, rel=0.08)
    assert found.failed == 0


def test_on_one_machine_the_processors_are_what_many_share() -> None:
    waits = {clients: closed(COSTS, clients, 20.0, 2, 1) for clients in (1, 16)}
    # Alone, the sum of all bursts; with many, the loop's or two processors' time, whichever is more.
    assert waits[1][0] == pytest.approx(0.005 + 0.090 + 0.020 + 0.010)
    assert len(waits[16]) / 20.0 == pytest.approx(1 / 0.090, rel=0.08)


def test_costs_are_read_from_what_was_measured() -> None:
    batch = [{"wall": 0.012, "disk": 0.010}]
    sessions = {"handshake": [0.001, 0.002, 0.003], "server": [0.009], "verifiers": [0.002], "client": [0.004]}
    costs = Costs.of({"sessions": sessions, "log": {"1": batch, "64": batch}})
    assert costs.rest.values == pytest.approx((0.007,))
    assert costs.sync(5, random.Random(1)) == pytest.approx(0.010)
