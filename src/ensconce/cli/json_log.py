"""Logs for programs: one JSON object for each line, in ASCII, so that nothing in it can fake another line."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Mapping

__all__ = ["JsonLines"]


class JsonLines(logging.Formatter):
    """Formats a record as ``{"time", "level", "logger", "event", ...}`` with the fields that it was logged with.

    An exception is told by its kind alone: its message might hold anything.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line, without its end."""
        time = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, Mapping):
            line |= {name: value for name, value in fields.items() if name not in line}
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
        return json.dumps(line, ensure_ascii=True, default=lambda value: type(value).__name__)
