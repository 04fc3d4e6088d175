"""The provisioning server as the simulator sees it: an event loop, verifiers, a log, places, token buckets."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.scaling.kernel import Pool, Process, Simulation, Table
from benchmarks.scaling.samples import Samples

__all__ = ["Bucket", "Costs", "Guest", "Place", "Server", "SharedLog", "closed"]

BATCH = 64
"""Entries of the log that are synced together (:data:`ensconce.audit.chain.MAX_BATCH`)."""
_KERNELS_QUEUE = 511  # connections that are not accepted yet (docs/reference/provisioning.md)


@dataclass(frozen=True)
class Costs:
    """What a session takes, in seconds; drawn anew for each.

    Attributes:
        handshake: processor time of the server until it has asked the client to prove itself.
        rest: of the server after that, if the client is granted its keys.
        verifiers: of the processes that verify.
        client: of the client, on its own machine.
        disk: what the log waits for the disk, by entries in a batch.
    """

    handshake: Samples
    rest: Samples
    verifiers: Samples
    client: Samples
    disk: Mapping[int, Samples]

    @classmethod
    def of(cls, measured: Mapping[str, Any]) -> Costs:
        """From what :mod:`benchmarks.scaling.measured` wrote."""
        sessions = measured["sessions"]
        handshake = Samples.of(sessions["handshake"])
        # Measured apart from the whole session, so the median of the one is taken from each of the other.
        rest = Samples.of([max(0.0, whole - handshake.at(0.5)) for whole in sessions["server"]])
        disk = {int(size): Samples.of([each["disk"] for each in batches]) for size, batches in measured["log"].items()}
        return cls(handshake, rest, Samples.of(sessions["verifiers"]), Samples.of(sessions["client"]), disk)

    def sync(self, entries: int, chance: random.Random) -> float:
        """What the disk takes for a batch: that of the next larger one that was measured."""
        return self.disk[min((size for size in self.disk if size >= entries), default=max(self.disk))].draw(chance)


class Bucket:
    """As :class:`ensconce.provisioning.rates.TokenBuckets` has one."""

    def __init__(self, simulation: Simulation, rate: float, burst: float) -> None:
        self._simulation, self._rate, self._burst = simulation, rate, burst
        self._left, self._at = burst, 0.0

    @property
    def spent(self) -> bool:
        """There is no token now."""
        now = self._simulation.now
        self._left, self._at = min(self._burst, self._left + (now - self._at) * self._rate), now
        return self._left < 1

    def take(self) -> bool:
        """Take a token; False when there is none."""
        if self.spent:
            return False
        self._left -= 1
        return True


@dataclass(eq=False, slots=True)
class Guest:
    """A connection; once it was evicted, its client is told as soon as it waits for a place."""

    evicted: bool = False
    waiting: Callable[[Any], None] | None = None


class Place:
    """A stage with so many places, where the oldest has to go after a while for a newcomer, as
    :class:`ensconce.provisioning.places.Places` does it among addresses that have one connection each."""

    def __init__(self, simulation: Simulation, size: int, grace: float) -> None:
        self._simulation, self._size, self._grace = simulation, size, grace
        # Of a dict whose first entries were deleted, the first is found slowly.
        self._guests: OrderedDict[Guest, float] = OrderedDict()
        self._newcomers: OrderedDict[Guest, None] = OrderedDict()
        self._looking = False
        self.evictions = 0

    def enter(self, guest: Guest) -> _Entering:
        """To be yielded: whether a place was had; not, when the guest was evicted from the one before meanwhile."""
        return _Entering(self, guest)

    def leave(self, guest: Guest) -> None:
        """Give the place back, if the guest has one."""
        if self._guests.pop(guest, None) is not None:
            self._serve()

    def _serve(self, _: Any = None) -> None:
        now = self._simulation.now
        while self._newcomers:
            if len(self._guests) >= self._size:
                oldest, since = next(iter(self._guests.items()))
                if now < since + self._grace:
                    if not self._looking and self._grace != float("inf"):
                        self._looking = True
                        self._simulation.at(since + self._grace - now, self._look)
                    return
                del self._guests[oldest]
                self.evictions += 1
                oldest.evicted = True
                if oldest.waiting is not None:
                    resume, oldest.waiting = oldest.waiting, None
                    resume(False)
                continue
            guest = next(iter(self._newcomers))
            del self._newcomers[guest]
            if guest.evicted:
                continue
            come_in, guest.waiting = guest.waiting, None
            assert come_in is not None
            self._guests[guest] = now
            self._simulation.at(0.0, come_in, True)

    def _look(self, _: Any) -> None:
        self._looking = False
        self._serve()


@dataclass(slots=True)
class _Entering:
    place: Place
    guest: Guest

    def start(self, resume: Callable[[Any], None]) -> None:
        self.guest.waiting = resume
        self.place._newcomers[self.guest] = None
        self.place._serve()


class SharedLog:
    """The one log of all servers: each commits its own batches, one at a time."""

    def __init__(self, simulation: Simulation, costs: Costs, chance: random.Random) -> None:
        self._simulation, self._costs, self._chance = simulation, costs, chance
        self._free = 0.0

    def seconds(self, entries: int) -> float:
        """Until a batch that asks now is on disk."""
        self._free = max(self._free, self._simulation.now) + self._costs.sync(entries, self._chance)
        return self._free - self._simulation.now


class Server:
    """One of them.

    Args:
        simulation: whose clock.
        costs: of sessions.
        chance: what draws.
        log: where all servers write.
        verifiers: processes that verify, each with a processor of its own, as the event loop has.
        places: :attr:`ensconce.provisioning.limits.Limits.connections`.
        identity: how often the one identity of the fleet may be answered; None for as often as it likes.
    """

    def __init__(
        self,
        simulation: Simulation,
        costs: Costs,
        chance: random.Random,
        log: SharedLog,
        *,
        verifiers: int = 1,
        places: int = 1024,
        identity: Bucket | None = None,
    ) -> None:
        self._simulation, self._costs, self._chance, self._identity = simulation, costs, chance, identity
        self.loop, self.verifiers = Pool(simulation, 1), Pool(simulation, verifiers)
        self.door = Pool(simulation, places + _KERNELS_QUEUE)
        self._log = Table(simulation, BATCH, log.seconds)
        self.handshakes = Place(simulation, places, 1.0)
        self.requests = Place(simulation, places, 1.0)
        self.answers = Place(simulation, places, float("inf"))
        self.released = self.refused = 0

    def session(self, patience: float) -> Generator[Any, Any, bool]:
        """One session, to be used with ``yield from``: whether it ended in a grant. The client leaves after
        ``patience`` seconds."""
        end = self._simulation.now + patience
        guest = Guest()
        wait = 1.0
        while not (yield self.door.take(0.0)):
            # A first packet that found the kernel's queue full is sent again after 1, 2, 4 ... seconds.
            if self._simulation.now + wait > end:
                return False
            yield wait
            wait *= 2
        granted = yield from self._inside(guest, end)
        for place in (self.handshakes, self.requests, self.answers):
            place.leave(guest)
        return granted

    def _inside(self, guest: Guest, end: float) -> Generator[Any, Any, bool]:
        simulation, costs, chance = self._simulation, self._costs, self._chance
        came_in = yield self.handshakes.enter(guest)
        self.door.give_back()
        if not came_in or not (yield from self._work(guest, costs.handshake.draw(chance), end)):
            return False
        came_in = yield self.requests.enter(guest)
        self.handshakes.leave(guest)
        if not came_in:
            return False
        yield costs.client.draw(chance)
        came_in = not guest.evicted and (yield self.answers.enter(guest))
        self.requests.leave(guest)
        rest = costs.rest.draw(chance) / 2
        if not came_in or not (yield from self._work(guest, rest, end)):
            return False
        if self._identity is not None and self._identity.spent:
            self.refused += 1
            return False
        if not (yield from self.verifiers.use(costs.verifiers.draw(chance), end - simulation.now)):
            return False
        if self._identity is not None and not self._identity.take():
            self.refused += 1
            return False
        if not (yield from self._work(guest, rest, end)):
            return False
        yield self._log.join()
        self.released += 1
        return simulation.now <= end

    def _work(self, guest: Guest, seconds: float, end: float) -> Generator[Any, Any, bool]:
        """A turn of the event loop; none for who has gone, or had to go, until then."""
        if not (yield self.loop.take(end - self._simulation.now)):
            return False
        if not guest.evicted:
            yield seconds
        self.loop.give_back()
        return not guest.evicted


def closed(costs: Costs, clients: int, seconds: float, processors: int, seed: int, others: float = 0.0) -> list[float]:
    """As :func:`benchmarks.scaling.sessions.at_once` has it on one machine: clients that ask again and again, in one or
    two processes, beside the server and a verifier for each processor.

    Args:
        costs: of sessions.
        clients: how many.
        seconds: how long they begin new ones.
        processors: of the machine.
        seed: of all chance.
        others: the part of the processors' time that others take: everything takes so much longer.

    Returns:
        seconds that each session took.
    """
    simulation, chance = Simulation(), random.Random(seed)
    cores = Pool(simulation, processors)
    loop, verifiers = Pool(simulation, 1), Pool(simulation, processors)
    askers = [Pool(simulation, 1) for _ in range(min(clients, 2))]
    log = Table(simulation, BATCH, SharedLog(simulation, costs, chance).seconds)
    waited: list[float] = []

    def burst(process: Pool, taken: float) -> Generator[Any, Any, None]:
        # Of a process's threads one runs at a time (Python's lock), and then on one processor.
        yield process.take()
        yield from cores.use(taken / (1 - others))
        process.give_back()

    def client(process: Pool) -> Process:
        while simulation.now < seconds:
            began = simulation.now
            mine, rest = costs.client.draw(chance) / 3, costs.rest.draw(chance) / 2
            yield from burst(process, mine)
            yield from burst(loop, costs.handshake.draw(chance))
            yield from burst(process, mine)
            yield from burst(loop, rest)
            yield from burst(verifiers, costs.verifiers.draw(chance))
            yield from burst(loop, rest)
            yield log.join()
            yield from burst(process, mine)
            waited.append(simulation.now - began)

    for number in range(clients):
        simulation.begin(client(askers[number % len(askers)]))
    simulation.run()
    return waited
