"""Gets something from a server that may send as much, and take as long, as it likes."""

from __future__ import annotations

import time

import httpx

from ensconce.errors import UnreachableError

__all__ = ["fetch"]


def fetch(client: httpx.Client, path: str, limit: int, deadline: float) -> bytes:
    """The body of a GET request's answer with status 200, as it was sent.

    Args:
        client: over what.
        path: what.
        limit: longest answer, in bytes.
        deadline: until when it has to be there, by ``time.monotonic()``.

    Raises:
        UnreachableError: ``dashboard.source``: no answer in time, another status, or a longer one.
    """
    body = bytearray()
    try:
        # Nothing is decompressed: a short answer would become a long one.
        left = max(0.05, deadline - time.monotonic())
        with client.stream("GET", path, headers={"accept-encoding": "identity"}, timeout=left) as response:
            if response.status_code != 200:
                raise _no(path, f"HTTP status {response.status_code}")
            for part in response.iter_raw():
                body += part
                if len(body) > limit:
                    raise _no(path, f"more than {limit} bytes")
                if time.monotonic() > deadline:
                    raise _no(path, "too slow")
    except httpx.HTTPError as error:
        raise _no(path, f"{type(error).__name__}: {str(error)[:200]}") from error
    return bytes(body)


def _no(path: str, found: str) -> UnreachableError:
    return UnreachableError("dashboard.source", f"no answer for {path}", found=found)
