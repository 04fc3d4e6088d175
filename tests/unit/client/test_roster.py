"""Which connections a pool has and wants, and which one takes the next call."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.addresses import Address
from ensconce.client.roster import EXPLORE_S, LARGEST, Roster

GATEWAY = Address("gateway.test", 8500)
ONE, TWO = Address("192.0.2.1", 8500), Address("192.0.2.2", 8500)


@dataclass(eq=False)
class Seat:
    replica_id: str
    address: Address = GATEWAY
    is_lost: bool = False


def roster(*seats: Seat, wanted: int = 2, addresses: tuple[Address, ...] = (GATEWAY,)) -> Roster[Seat]:
    made: Roster[Seat] = Roster(wanted, lambda: 0.5)
    made.addresses = addresses
    for seat in seats:
        add(made, seat)
    return made


def add(made: Roster[Seat], seat: Seat) -> list[Seat]:
    """Open one more; what it replaces."""
    made.dialled(seat.address, 0.0)
    return list(made.opened(seat))


def names(made: Roster[Seat]) -> list[str]:
    return sorted(seat.replica_id for seat in made.seats)


def chosen(made: Roster[Seat], avoid: tuple[str, ...] = ()) -> Seat:
    seat = made.choose(avoid)
    assert seat is not None
    return seat


def test_calls_go_round_when_none_is_under_way() -> None:
    made = roster(Seat("a"), Seat("a"), Seat("b"), wanted=3)
    served: Counter[str] = Counter()
    by_seat: Counter[Seat] = Counter()
    for _ in range(12):
        seat = chosen(made)
        served[seat.replica_id] += 1
        by_seat[seat] += 1
        made.release(seat)
    assert served == {"a": 6, "b": 6}
    assert sorted(by_seat.values()) == [3, 3, 6]


def test_the_replica_with_the_fewest_calls_and_there_the_seat_with_the_fewest() -> None:
    a1, a2, b = Seat("a"), Seat("a"), Seat("b")
    made = roster(a1, a2, b, wanted=3)
    under_way = [chosen(made) for _ in range(6)]
    assert Counter(seat.replica_id for seat in under_way) == {"a": 3, "b": 3}
    for seat in under_way:
        if seat is b:
            made.release(seat)
    assert [chosen(made) for _ in range(3)] == [b, b, b]


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12), st.integers(1, 60))
def test_no_replica_ever_has_two_calls_more_than_another(replicas: list[str], calls: int) -> None:
    made = roster(*(Seat(name) for name in replicas), wanted=len(replicas))
    load = Counter(chosen(made).replica_id for _ in range(calls))
    counts = [load[name] for name in set(replicas)]
    assert max(counts) - min(counts) <= 1


def test_what_is_lost_or_to_be_avoided_is_left_alone_as_long_as_there_is_another() -> None:
    a, b = Seat("a"), Seat("b")
    made = roster(a, b)
    assert {chosen(made, ("a",)) for _ in range(3)} == {b}
    a.is_lost = True
    assert {chosen(made) for _ in range(3)} == {b}
    assert chosen(made, ("b",)) is b
    b.is_lost = True
    assert {chosen(made) for _ in range(8)} == {a, b}
    assert roster().choose() is None


def test_missing_connections_are_opened_where_there_are_fewest() -> None:
    made = roster(Seat("a", ONE), wanted=3, addresses=(ONE, TWO))
    assert made.missing(0.0) == TWO
    add(made, Seat("b", TWO))
    assert made.missing(0.0) == ONE
    add(made, Seat("a", ONE))
    assert made.missing(0.0) is None
    assert names(made) == ["a", "a", "b"]


def test_every_address_has_one() -> None:
    made = roster(Seat("a", ONE), Seat("a", ONE), wanted=1, addresses=(ONE, TWO))
    assert made.missing(0.0) == TWO


def test_an_address_that_fails_is_left_alone_longer_each_time() -> None:
    made = roster(Seat("a", ONE), wanted=1, addresses=(ONE, TWO))
    now, pauses = 0.0, []
    for _ in range(9):
        made.dialled(TWO, now)
        made.failed(TWO, now)
        assert made.missing(now) is None
        pauses.append(made.next_look(now))
        now += pauses[-1]
        assert made.missing(now) == TWO
    assert pauses[:4] == pytest.approx([0.075, 0.15, 0.3, 0.6])
    assert pauses[-3:] == pytest.approx([3.75] * 3)
    made.dialled(TWO, now)
    made.opened(Seat("b", TWO))
    made.dialled(TWO, now)
    made.failed(TWO, now)
    assert made.next_look(now) == pytest.approx(0.075)


def test_while_one_address_takes_its_time_others_are_opened() -> None:
    made = roster(Seat("a", ONE), wanted=4, addresses=(ONE, TWO))
    assert made.missing(0.0) == TWO
    made.dialled(TWO, 0.0)
    assert made.missing(0.0) == ONE
    made.dialled(ONE, 0.0)
    assert made.missing(0.0) is None
    made.failed(ONE, 0.0)
    assert made.missing(1.0) == ONE
    chosen(made)
    assert made.next_look(100.0) > 0


def test_addresses_that_the_name_has_no_more_are_forgotten() -> None:
    made = roster(Seat("a", ONE), wanted=1, addresses=(ONE, TWO))
    made.dialled(TWO, 0.0)
    made.failed(TWO, 0.0)
    made.reach((ONE,))
    assert made.missing(1.0) is None
    made.reach((ONE, TWO))
    # As one that was never tried: at once, and with the shortest pause.
    assert made.missing(0.0) == TWO
    made.dialled(TWO, 0.0)
    made.failed(TWO, 0.0)
    assert made.next_look(0.0) == pytest.approx(0.075)
    assert names(made) == ["a"]


def test_only_so_many_are_opened_at_once() -> None:
    many = tuple(Address(f"192.0.2.{number}", 1) for number in range(20))
    made = roster(wanted=1, addresses=many)
    opening = []
    while (address := made.missing(0.0)) is not None:
        made.dialled(address, 0.0)
        opening.append(address)
    assert opening == list(many[:8])


def test_a_look_around_after_a_while_with_calls_and_none_without() -> None:
    made = roster(Seat("a"), Seat("b"))
    assert made.missing(EXPLORE_S) is None
    chosen(made)
    assert made.missing(EXPLORE_S - 0.01) is None
    assert made.next_look(1.0) == pytest.approx(EXPLORE_S - 1)
    assert made.missing(EXPLORE_S) == GATEWAY
    made.dialled(GATEWAY, EXPLORE_S)
    assert made.missing(10 * EXPLORE_S) is None


def test_looks_around_are_not_in_step_with_others() -> None:
    for chance, first in ((0.0, 0.9), (0.999, 1.0999)):
        made: Roster[Seat] = Roster(1, lambda chance=chance: chance)
        made.addresses = (GATEWAY,)
        add(made, Seat("a"))
        chosen(made)
        assert made.missing(EXPLORE_S * first - 0.01) is None
        assert made.missing(EXPLORE_S * first + 0.01) == GATEWAY


def test_a_known_replica_takes_the_place_of_its_oldest_and_a_new_one_gets_its_own() -> None:
    oldest = Seat("a")
    made = roster(oldest, Seat("b"))
    assert add(made, Seat("a")) == [oldest]
    assert names(made) == ["a", "b"]
    assert add(made, Seat("c")) == []
    assert names(made) == ["a", "b", "c"]


def test_a_new_replica_takes_a_place_of_the_one_that_has_most() -> None:
    first = Seat("a")
    made = roster(first, Seat("b"), Seat("a"), Seat("a"), wanted=4)
    assert add(made, Seat("c")) == [first]
    assert names(made) == ["a", "a", "b", "c"]


def test_lost_seats_go_once_there_is_another() -> None:
    a, b = Seat("a"), Seat("b")
    made = roster(a, b)
    a.is_lost = b.is_lost = True
    assert list(made.weed()) == []
    assert set(add(made, Seat("c"))) == {a, b}
    assert names(made) == ["c"]


def test_it_does_not_grow_for_ever() -> None:
    made = roster(*(Seat(str(number)) for number in range(LARGEST + 5)), wanted=1)
    assert len(made.seats) == LARGEST


def test_a_seat_that_is_gone_is_told_of_when_its_last_call_ends() -> None:
    a, b = Seat("a"), Seat("b")
    made = roster(a, b)
    for _ in range(2):
        assert {chosen(made), chosen(made)} == {a, b}
    a.is_lost = True
    assert list(made.weed()) == [a]
    assert made.calls[a] == 2
    assert [made.release(a), made.release(a)] == [False, True]
    assert [made.release(b), made.release(b)] == [False, False]
    assert list(made.close()) == [b]
