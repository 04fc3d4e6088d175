"""One small document from a web server, within bounds of length and time; what it says is judged elsewhere."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable

import httpx

from ensconce.errors import UnreachableError

__all__ = ["get", "get_over"]


def get(
    url: str,
    limit: int,
    error: Callable[[str, str], UnreachableError],
    *,
    timeout: float = 30.0,
    tls: ssl.SSLContext | None = None,
) -> bytes:
    """What a GET of ``url`` answers. Redirects are not followed, and nothing is unpacked.

    Args:
        url: http or https.
        limit: longest answer, in bytes.
        error: makes the error from what is wrong and what was found.
        timeout: for all of it, in seconds.
        tls: how certificates are checked; against the system's authorities when absent.

    Raises:
        UnreachableError: what ``error`` made.
    """
    # Without trust_env: a proxy that the environment names is nobody that the user chose.
    with httpx.Client(verify=tls or ssl.create_default_context(), trust_env=False, follow_redirects=False) as client:
        return get_over(client, url, limit, error, time.monotonic() + timeout)


def get_over(
    client: httpx.Client, url: str, limit: int, error: Callable[[str, str], UnreachableError], deadline: float
) -> bytes:
    """The same, over a client at hand.

    Args:
        client: follows no redirects.
        url: also a path below the client's own.
        limit: longest answer, in bytes.
        error: see :func:`get`.
        deadline: until when all of it has to be there, by ``time.monotonic()``.

    Raises:
        UnreachableError: what ``error`` made.
    """
    body = bytearray()
    left = max(0.05, deadline - time.monotonic())
    try:
        # Nothing is unpacked: a short answer would become a long one.
        with client.stream("GET", url, headers={"accept-encoding": "identity"}, timeout=left) as response:
            if response.status_code != 200:
                raise error("it refuses", f"HTTP status {response.status_code} for {url}")
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > limit:
                    raise error("its answer is too long", f"more than {limit} bytes for {url}")
                if time.monotonic() > deadline:
                    raise error("its answer takes too long", f"more than {left:.3g} s for {url}")
    except (httpx.HTTPError, httpx.InvalidURL) as failure:
        raise error("no answer", f"{type(failure).__name__}: {str(failure)[:200]}") from failure
    return bytes(body)
