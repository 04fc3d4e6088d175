from __future__ import annotations

from dataclasses import dataclass

from ensconce.serving.crowd import least_wanted


@dataclass(eq=False)
class Member:
    host: str
    waits_since: float | None


def test_whoever_has_the_most_connections_loses_its_oldest() -> None:
    honest = Member("::1", 1.0)
    crowd = [Member("::2", None), Member("::2", 5.0), Member("::2", 4.0)]
    assert least_wanted([honest, *crowd]) is crowd[2]


def test_none_is_closed_that_is_busy() -> None:
    assert least_wanted([Member("a", None), Member("a", None)]) is None
    assert least_wanted([Member("a", None), Member("a", None), (quiet := Member("b", 9.0))]) is quiet
