"""gzip (RFC 1952) as a content coding, with bounds."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Final

from ensconce.serving.http1.messages import HttpError

__all__ = ["accepts_gzip", "gunzip", "gzipped"]

_STEP: Final = 256 * 1024
_GZIP: Final = 16 + zlib.MAX_WBITS
_QUALITY: Final = re.compile(r"q\s*=\s*0(?:\.0{0,3})?")


def gunzip(data: bytes, limit: int, take: Callable[[int], bool]) -> bytes:
    """Decompress a body of exactly one member.

    Args:
        data: compressed.
        limit: most bytes decompressed.
        take: called for each part with its bytes, before more is made; whether there is memory for it.

    Raises:
        HttpError: 400, this is not gzip or not all of it; 413, it is more than the limit; 503, there is no memory.
    """
    inflater = zlib.decompressobj(_GZIP)
    parts: list[bytes] = []
    size = 0
    try:
        while not inflater.eof:
            part = inflater.decompress(data, min(_STEP, limit - size + 1))
            data = inflater.unconsumed_tail
            if not part and not inflater.eof:
                raise HttpError(400, "The body is cut off: its gzip has no end")
            size += len(part)
            if size > limit:
                raise HttpError(413, f"The body of the request is longer than {limit} bytes once decompressed")
            if not take(len(part)):
                raise HttpError(503, "The server has no memory for the body at the moment")
            parts.append(part)
    except zlib.error:
        raise HttpError(400, "The body is not gzip") from None
    if inflater.unused_data:
        raise HttpError(400, "Something comes after the body's gzip")
    return b"".join(parts)


def accepts_gzip(field: str) -> bool:
    """Whether an ``Accept-Encoding`` names gzip (RFC 9110, section 12.5.3). ``*`` alone is no wish for it."""
    for entry in field.lower().split(",") if field else ():
        coding, _, parameters = entry.partition(";")
        if coding.strip() == "gzip":
            return not _QUALITY.fullmatch(parameters.strip())
    return False


def gzipped(data: bytes) -> bytes:
    """Compress a body, quickly rather than well."""
    deflater = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    return deflater.compress(data) + deflater.flush()
