"""Gets something from a server that may send as much, and take as long, as it likes."""

from __future__ import annotations

import time

import httpx

from ensconce.errors import UnreachableError

__all__ = ["fetch"]


def fetch(client: httpx.Client, path: str, limit: int, seconds: float = 5.0) -> bytes:
    """The body of a GET request's answer with status 200, as it was sent.

    Raises:
        UnreachableError: ``dashboard.source``: no answer, another status, or more than ``limit`` bytes or ``seconds``.
    """
    deadline = time.monotonic() + seconds
    body = bytearray()
    try:
        # Nothing is decompressed: a short answer would become a long one.
        with client.stream("GET", path, headers={"accept-encoding": "identity"}) as response:
            if response.status_code != 200:
                raise _no(path, f"HTTP status {response.status_code}")
            for part in response.iter_raw():
                body += part
                if len(body) > limit:
                    raise _no(path, f"more than {limit} bytes")
                if time.monotonic() > deadline:
                    raise _no(path, f"more than {seconds:g} s")
    except httpx.HTTPError as error:
        raise _no(path, f"{type(error).__name__}: {str(error)[:200]}") from error
    return bytes(body)


def _no(path: str, found: str) -> UnreachableError:
    return UnreachableError("dashboard.source", f"no answer for {path}", found=found)
