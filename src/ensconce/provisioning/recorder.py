"""Writes the audit log off the event loop, one batch at a time: what came while one was being synced is the next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ensconce.audit.entry import FieldValue
from ensconce.audit.log import AuditLog
from ensconce.errors import EnsconceError
from ensconce.provisioning.threads import Threads

__all__ = ["Event", "Recorder"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """What is to be recorded.

    Attributes:
        name: dotted, e.g. ``key.released``.
        fields: see :meth:`ensconce.audit.log.AuditLog.append`; no secrets.
    """

    name: str
    fields: Mapping[str, FieldValue]


@dataclass
class _Waiting:
    events: Sequence[Event]
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Recorder:
    """The log for sessions. For one event loop.

    Args:
        audit: the log.
    """

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        # One thread: the log is a chain.
        self._threads = Threads(1, "provisioning log")
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None

    async def record(self, *events: Event) -> None:
        """Record events, in their order and with nothing of the same connection between. They are on disk afterwards.

        Raises:
            EnsconceError: the log fails; what was to be recorded must not happen.
        """
        waiting = _Waiting(events)
        self._waiting.append(waiting)
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write())
        # Whoever gives up waiting does not take back what it had recorded.
        await asyncio.shield(waiting.done)

    def close(self) -> None:
        """Let the thread end."""
        self._threads.close()

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                failure = await self._threads.run(self._append, batch)
                if failure is None:
                    for event in (event for waiting in batch for event in waiting.events):
                        _log.info(event.name, extra={"fields": event.fields})
                for waiting in batch:
                    if waiting.done.done():
                        continue
                    if failure is None:
                        waiting.done.set_result(None)
                    else:
                        # Each an exception of its own: tracebacks grow with each raise.
                        waiting.done.set_exception(
                            failure.altered() if isinstance(failure, EnsconceError) else RuntimeError()
                        )
                        waiting.done.exception()  # its caller may have gone
        finally:
            self._writer = None

    def _append(self, batch: Sequence[_Waiting]) -> Exception | None:
        try:
            self._audit.append_many([(event.name, event.fields) for waiting in batch for event in waiting.events])
        except EnsconceError as error:
            return error
        except Exception:
            return RuntimeError()
        return None
