"""A log of requests as JSON lines: what was asked of which model, and how it ended; never what was in it.

A model's ``LoggingConfig`` says which share of its requests is logged (config/logging_config.proto,
core/request_logger.cc); without one, none is. The original writes the requests themselves; this log does not, and the
rest of that configuration (where to, in which format) means nothing here.
"""

from __future__ import annotations

import json
import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

from ensconce.serving.observing import Answered

__all__ = ["LogWriter", "RequestLog", "rates_of", "sampling_rates"]

_log = logging.getLogger(__name__)
_MOST_WAITING: Final = 10_000


def sampling_rates(config: Any) -> dict[str, float]:
    """The share of requests to be logged, from 0 to 1, by model, of a ``ModelServerConfig``."""
    rates = {}
    for model in config.model_config_list.config:
        rate = model.logging_config.sampling_config.sampling_rate
        if rate > 0:
            rates[model.name] = min(rate, 1.0)
    return rates


def rates_of(config: Callable[[], Any]) -> Callable[[], Mapping[str, float]]:
    """The rates that the ``ModelServerConfig`` in force has, worked out once for each."""
    known: tuple[Any, dict[str, float]] = (None, {})

    def rates() -> Mapping[str, float]:
        nonlocal known
        now = config()
        if now is not known[0]:
            known = now, sampling_rates(now)
        return known[1]

    return rates


class RequestLog:
    """An observer of the fronts that writes a line for some requests."""

    def __init__(
        self,
        write: Callable[[bytes], bool],
        rates: Callable[[], Mapping[str, float]],
        *,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        logged: Callable[[str, str], None] | None = None,
    ) -> None:
        """Log to ``write``, which must not block.

        Args:
            write: takes a line with its end, and says whether it will be written.
            rates: the rates in force, by model.
            clock: seconds since 1970.
            chance: a number from 0 to 1, 1 excluded, for each request.
            logged: told the model and the code of each line; what is dropped is ``RESOURCE_EXHAUSTED``.
        """
        self._write, self._rates, self._clock, self._chance, self._logged = write, rates, clock, chance, logged

    def answered(self, answered: Answered) -> None:
        """Log a request, or not."""
        rate = self._rates().get(answered.model, 0.0)
        if rate <= 0 or self._chance() >= rate:
            return
        entry = {
            "time": datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds"),
            "peer": answered.peer,
            "entrypoint": answered.entrypoint,
            "method": answered.method,
            "model": answered.model,
            "version": answered.version,
            "signature": answered.signature,
            "code": answered.code.name,
            "status": answered.status,
            "seconds": round(answered.seconds, 6),
            "received": answered.received,
            "sent": answered.sent,
        }
        written = self._write(json.dumps(entry).encode() + b"\n")
        if self._logged is not None:
            self._logged(answered.model, "OK" if written else "RESOURCE_EXHAUSTED")


class LogWriter:
    """Writes lines to a file in a thread of its own: who reads a pipe slowly must not slow requests down."""

    def __init__(self, file: BinaryIO) -> None:
        """Begin. Lines that find too many others waiting are dropped, and so are those that the file does not take."""
        self._file = file
        self._lines: queue.Queue[bytes | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name="request_log", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> bool:
        """Have a line written; whether it will be, as far as is known."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            return False
        return True

    def close(self, timeout: float = 5) -> None:
        """Write what waits, for ``timeout`` seconds at most."""
        try:
            self._lines.put(None, timeout=timeout)
        except queue.Full:
            return
        self._thread.join(timeout)

    def _work(self) -> None:
        lost = 0
        while (line := self._lines.get()) is not None:
            try:
                self._file.write(line)
                self._file.flush()
            except (OSError, ValueError) as error:
                if not lost:
                    _log.error("the request log cannot be written, and goes on when it can: %s", error)
                lost += 1
            else:
                if lost:
                    _log.warning("the request log goes on; up to %d lines were lost", lost)
                lost = 0
