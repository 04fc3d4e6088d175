"""Logs for people: one line for each record, with the fields that it was logged with."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

__all__ = ["TextLines"]


class TextLines(logging.Formatter):
    """Formats a record as ``LEVEL logger: message name=value ...``.

    A value that is not plain text is in JSON and in ASCII: what a stranger said fakes no field and steers no terminal.
    """

    def __init__(self) -> None:
        """Nothing to choose."""
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """The line, before any traceback."""
        line = super().formatMessage(record)
        fields = getattr(record, "fields", None)
        if not isinstance(fields, Mapping):
            return line
        return " ".join((line, *(f"{name}={_text(value)}" for name, value in fields.items())))


def _text(value: object) -> str:
    plain = isinstance(value, str) and value.isascii() and value.isprintable() and not set(value) & set(' "=')
    return str(value) if plain and value else json.dumps(value, default=lambda other: type(other).__name__)
