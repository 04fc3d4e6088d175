from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from ensconce.serving.http2.limits import Patience
from ensconce.serving.http2.memory import Memory


@dataclass
class Connection:
    held: int = 0


@dataclass
class Waiter:
    connection: Connection
    amounts: list[int] = field(default_factory=list)

    def granted(self, amount: int) -> None:
        self.amounts.append(amount)


def test_first_come_first_served_but_for_those_who_wait_for_their_own_connection() -> None:
    memory = Memory(server_bytes=10, connection_bytes=6)
    busy, other = Connection(), Connection()
    assert memory.take(busy, 5)
    own, first, second = Waiter(busy), Waiter(other), Waiter(other)
    memory.reserve(own, 2)
    memory.reserve(first, 4)
    memory.reserve(second, 2)
    assert (own.amounts, first.amounts, second.amounts) == ([], [], [])
    memory.give(busy, 1)
    assert (own.amounts, first.amounts, second.amounts) == ([2], [4], [])
    memory.forget(second)
    memory.give(busy, 6)
    memory.give(other, 4)
    assert (second.amounts, memory.free, busy.held, other.held) == ([], 10, 0, 0)


def test_answers_are_counted_even_where_there_is_no_room() -> None:
    memory, connection = Memory(server_bytes=10, connection_bytes=10), Connection()
    memory.hold(connection, 12)
    assert memory.free == -2
    assert not memory.take(connection, 1)
    memory.give(connection, 12)
    assert memory.take(connection, 10)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 8), st.booleans()), max_size=40))
def test_nobody_waits_for_ever_and_nothing_is_lost(steps: list[tuple[int, int, bool]]) -> None:
    memory = Memory(server_bytes=10, connection_bytes=8)
    connections = [Connection() for _ in range(4)]
    waiters = []
    for number, amount, gives in steps:
        if gives and connections[number].held:
            memory.give(connections[number], 1)
        else:
            waiters.append((Waiter(connections[number]), amount))
            memory.reserve(*waiters[-1])
        assert memory.free >= 0
        assert all(connection.held <= 8 for connection in connections)
        assert memory.free + sum(connection.held for connection in connections) == 10
    for _ in range(400):
        for connection in connections:
            if connection.held:
                memory.give(connection, connection.held)
    assert [waiter.amounts for waiter, _ in waiters] == [[amount] for _, amount in waiters]


def test_patience() -> None:
    patience = Patience(0.0)
    assert patience.spend(Patience.FULL, 0.0)
    assert not patience.spend(1, 0.0)
    patience.earn(2)
    assert patience.spend(1, 0.0)
    assert patience.spend(Patience.PER_SECOND, 1.0)
    assert not patience.spend(Patience.FULL + 1, 1e9)
