"""What the status address answers: ``/healthz``, ``/readyz``, ``/metrics``, ``/log/head``, ``/log/consistency``.

Reference: ``docs/reference/provisioning.md``. The log's head and the proofs hold hashes, sizes and times alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ensconce.audit.log import AuditLog
from ensconce.errors import EnsconceError, InputError
from ensconce.provisioning.metrics import Metrics
from ensconce.provisioning.status import Answer
from ensconce.provisioning.threads import Threads

__all__ = ["Public"]

_log = logging.getLogger(__name__)

_MAX_SIZE = 2**53 - 1


@dataclass(frozen=True)
class Public:
    """Answers status requests.

    Attributes:
        audit: the log.
        metrics: counts.
        threads: for what reads the log; one is enough, and holds up nobody but those who ask here.
        check: raises what keeps the server from answering at all, if anything does.
    """

    audit: AuditLog
    metrics: Metrics
    threads: Threads
    check: Callable[[], None]
    # What was unavailable and why, as far as the log says so already: whoever asks does not see to its length.
    _said: set[tuple[str, str]] = field(default_factory=set, init=False, repr=False)

    async def answer(self, target: str) -> Answer:
        """The answer to a GET request for ``target``; raises nothing that a stranger can cause."""
        try:
            parts = urlsplit(target)
            query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query), max_num_fields=2))
        except ValueError:
            return _error(400, "status.request")
        try:
            match parts.path:
                case "/healthz":
                    return Answer(200, b"{}\n")
                case "/readyz":
                    await self._size()
                    self.check()
                    self._ready()
                    return Answer(200, b"{}\n")
                case "/metrics":
                    with contextlib.suppress(EnsconceError):
                        await self._size()  # the other metrics are worth having when the log is away
                    return Answer(200, generate_latest(self.metrics.registry), CONTENT_TYPE_LATEST)
                case "/log/head":
                    head = await self.threads.run(self.audit.head)
                    return Answer(200, head.to_bytes())
                case "/log/consistency":
                    if set(query) != {"first", "second"}:
                        return _error(400, "status.request")
                    first, second = _number(query["first"]), _number(query["second"])
                    proof = await self.threads.run(self.audit.consistency, first, second)
                    return Answer(200, proof.to_bytes())
        except InputError as error:
            asked = error.check in ("merkle.range", "status.request")
            return _error(400, error.check) if asked else self._unavailable(parts.path, error.check)
        except EnsconceError as error:
            return self._unavailable(parts.path, error.check)
        return _error(404, "status.path")

    async def _size(self) -> None:
        head = await self.threads.run(self.audit.head)
        self.metrics.log_size.set(head.size)

    def _unavailable(self, path: str, check: str) -> Answer:
        if (path, check) not in self._said:
            self._said.add((path, check))
            _log.warning("not ready", extra={"fields": {"path": path, "check": check}})
        return _error(503, check)

    def _ready(self) -> None:
        if mended := {said for said in self._said if said[0] == "/readyz"}:
            self._said.difference_update(mended)
            _log.warning("ready again", extra={"fields": {"path": "/readyz"}})


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 16 or int(text) > _MAX_SIZE:
        raise InputError("status.request", "this is no number of entries")
    return int(text)


def _error(status: int, check: str) -> Answer:
    """Which check failed and no more: the rest may name places on the owner's machine, and is in her own log."""
    return Answer(status, json.dumps({"error": {"check": check}}).encode() + b"\n")
