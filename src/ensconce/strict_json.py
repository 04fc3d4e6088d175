"""JSON that says one thing only: where parsers differ in what a text means, it is refused.

Light on purpose: the enclave's side imports it, and so it belongs to the trusted code base.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

__all__ = ["loads"]


def loads(data: bytes) -> object:
    """Read one JSON text, RFC 8259, in UTF-8 without a byte order mark.

    Refused beside what the standard forbids: an object with the same member twice, of which some parsers take the first
    and some the last (section 4); Python's own NaN and Infinity; and a number beyond what a double holds, which some
    parsers take for infinity and some refuse (section 6).

    Raises:
        ValueError: it is not such JSON, or too deep to read.
    """
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a member is there twice")
    return value


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
