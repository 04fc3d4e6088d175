"""What a replica says, all of it for the host's eyes: events and last words, never keys, payloads, or text of others.

One JSON object a line: events on standard output and, when it fails, ``{"error": ...}`` on standard error.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from ensconce.errors import EnsconceError, place_of

__all__ = ["UNANSWERED", "Telling", "kind", "tell", "tell_error", "tell_unexpected"]

UNANSWERED = "unanswered"
"""The event of a replica that asked for its keys, heard nothing, and will ask again."""


class Telling(logging.Handler):
    """Warnings of the serving stack are events, too. No log of ours holds a payload; traces may, so none is told.

    Nor is any text of others: asyncio's quotes what callbacks were called with, and the errors that they raised.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Tell a record."""
        # What becomes of versions is told by whoever loads them.
        if record.name == "ensconce.serving.lifecycle":
            return
        error = record.exc_info[1] if record.exc_info else None
        if record.name.startswith("ensconce."):
            text = record.getMessage()
        else:
            text = kind(error) if error is not None else f"{record.module}:{record.lineno}"
        tell("log", level=record.levelname, logger=record.name, text=text)


def kind(error: BaseException) -> str:
    """All that is told of an error whose text may quote a request or a model."""
    return f"{type(error).__name__} at {place_of(error)}"


def tell_unexpected(what: Any) -> None:
    """Tell an error that nobody catches, in a thread or where nobody could: in the place of the interpreter's own
    hooks, which write its text."""
    text = kind(what.exc_value) if what.exc_value is not None else what.exc_type.__name__
    tell("log", level="ERROR", logger="python", text=text)


def tell(event: str, **fields: Any) -> None:
    """Tell an event."""
    # One write, because threads tell things, too.
    print(json.dumps({"time": round(time.time(), 3), "event": event, **fields}) + "\n", end="", flush=True)  # noqa: T201


def tell_error(error: EnsconceError) -> int:
    """Say why the replica ends; its exit status."""
    print(json.dumps({"error": error.fields()}), file=sys.stderr, flush=True)  # noqa: T201 - its last words
    return error.exit_status
