"""Lets connections in: as many as there are places for, and from each address as often as the owner allows."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from ensconce.addresses import Address
from ensconce.errors import EnsconceError
from ensconce.provisioning.connection import Connection, Stages
from ensconce.provisioning.limits import Limits
from ensconce.provisioning.metrics import Metrics
from ensconce.provisioning.rates import TokenBuckets

__all__ = ["Door"]

_log = logging.getLogger(__name__)

_ACCEPTED_AT_ONCE = 16


class Door:
    """Accepts connections and sees each of them out. For one event loop.

    Args:
        listener: a listening socket.
        limits: how many, and how often.
        stages: places.
        metrics: counts.
        talk: serves a connection that was let in: with the deadline of its handshake, by ``time.monotonic()``, and
            whether its address connects too often to be heard.
    """

    def __init__(
        self,
        listener: socket.socket,
        limits: Limits,
        stages: Stages,
        metrics: Metrics,
        talk: Callable[[Connection, float, bool], Coroutine[Any, Any, None]],
    ) -> None:
        self._listener = listener
        self._limits = limits
        self._stages = stages
        self._metrics = metrics
        self._talk = talk
        self._askers = TokenBuckets(limits.address_rate, limits.address_burst)
        # Whoever goes on although it was told to wait is not even shaken hands with.
        self._knockers = TokenBuckets(2 * limits.address_rate, 2 * limits.address_burst)
        self._tasks: dict[Connection, asyncio.Task[None]] = {}
        self._by_address: Counter[str] = Counter()

    async def run(self) -> None:
        """Let connections in until this is cancelled."""
        loop = asyncio.get_running_loop()
        accepted = 0
        while True:
            try:
                sock, address = await loop.sock_accept(self._listener)
            except (ConnectionAbortedError, InterruptedError):
                continue
            except OSError as error:
                # Out of descriptors or memory: connections in progress will free some.
                _log.error("cannot accept a connection: %s", error.strerror)
                await asyncio.sleep(0.2)
                continue
            accepted += 1
            if accepted % _ACCEPTED_AT_ONCE == 0:
                await asyncio.sleep(0)  # a flood of newcomers must not hold up those who are here
            try:
                await self._admit(Connection(sock, Address(address[0], address[1]), self._stages))
            except BaseException:
                sock.close()
                raise

    async def close(self, patience: float) -> None:
        """Let connections end for a while, then cut them.

        Args:
            patience: seconds, for each of the two.
        """
        tasks = set(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=patience)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=patience)

    async def _admit(self, connection: Connection) -> None:
        address = connection.address
        if not self._knockers.take(address):
            self._turn_away(connection, "rate")
            return
        crowded = self._by_address.get(address, 0) >= self._limits.connections_per_address
        if crowded and not self._stages.handshake.evict_one_of(address):
            self._turn_away(connection, "address")
            return
        await self._stages.waiting.enter(connection)
        deadline = time.monotonic() + self._limits.handshake_time
        too_many = not self._askers.take(address)
        task = asyncio.get_running_loop().create_task(self._talk(connection, deadline, too_many))
        self._by_address[address] += 1
        self._tasks[connection] = connection.task = task
        # Also for a task that is cancelled before its first step.
        task.add_done_callback(lambda _: self._see_out(connection, task))

    def _turn_away(self, connection: Connection, reason: str) -> None:
        self._metrics.turned_away.labels(reason).inc()
        connection.close()

    def _see_out(self, connection: Connection, task: asyncio.Task[None]) -> None:
        del self._tasks[connection]
        self._by_address[connection.address] -= 1
        if not self._by_address[connection.address]:
            del self._by_address[connection.address]
        connection.close()
        if connection.evicted:
            self._metrics.turned_away.labels("place").inc()
        if not task.cancelled() and (error := task.exception()) is not None:
            known = isinstance(error, EnsconceError)
            problem = str(error) if known else type(error).__name__
            _log.error("cannot serve a connection", extra={"fields": {"peer": connection.peer, "problem": problem}})
