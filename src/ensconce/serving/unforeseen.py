"""Errors that nobody foresaw: what is logged of them, and what is answered."""

from __future__ import annotations

import logging

from ensconce.errors import place_of

__all__ = ["unforeseen"]

_log = logging.getLogger(__name__)


def unforeseen(error: BaseException) -> str:
    """Log an error, and give the text to answer with.

    Neither its own text nor its values go anywhere: both can hold a client's data, or a model.
    """
    _log.error("internal error: %s at %s", type(error).__name__, place_of(error))
    return f"Internal error: {type(error).__name__}"
