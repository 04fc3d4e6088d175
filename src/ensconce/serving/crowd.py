"""Which connection must go when a server has as many as it may have, and another client comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Protocol, TypeVar

__all__ = ["Member", "least_wanted"]


class Member(Protocol):
    """A connection."""

    @property
    def host(self) -> str:
        """The address of whoever made it."""

    @property
    def waits_since(self) -> float | None:
        """Since when it has been waiting for the whole of a request; None when it is not, or ends already."""


MemberT = TypeVar("MemberT", bound=Member)


def least_wanted(connections: Collection[MemberT]) -> MemberT | None:
    """Of those on which nothing is being answered: one of the address that has the most, and of these the oldest.

    Whoever opens connections in order to keep others out so loses its own. Behind a proxy all have one address: then
    the one goes that has been waiting for longest.
    """
    waiting = [(each, since) for each in connections if (since := each.waits_since) is not None]
    if not waiting:
        return None
    crowds = Counter(each.host for each in connections)
    return min(waiting, key=lambda pair: (-crowds[pair[0].host], pair[1]))[0]
