"""Asking a web server for a few small documents, within bounds: of time, of length, of tries, of trust.

What it says is judged elsewhere; here it is only kept from costing more than it may. Redirects are not followed, a
proxy that the environment names is not asked, and nothing is unpacked.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import httpx

from ensconce.errors import EnsconceError, InputError, UnreachableError

__all__ = ["Answer", "Asker", "Pace", "StatusError", "tls_context"]

_MAX_BODY = 1024 * 1024
_MAX_RETRY_AFTER_S = 20.0
# What another try may change: too many requests, a fault within, a gateway whose other side is away.
_TRANSIENT = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long and how often a server is asked.

    Attributes:
        total_s: for everything that is asked together, tries and pauses included.
        tries: of each question.
        pause_s: before the second try, at most; before each further one, twice as long.
        jitter: which part of each pause is waited, from 0 to 1, so that servers that failed together do not come back
            together.
        sleep: waits, in seconds.
    """

    total_s: float = 60.0
    tries: int = 3
    pause_s: float = 1.0
    jitter: Callable[[], float] = random.random
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with status 200.

    Attributes:
        url: what was asked, for errors.
        headers: by name, in any case.
        body: at most 1 MiB.
    """

    url: str
    headers: httpx.Headers
    body: bytes


class StatusError(UnreachableError):
    """The server answered with another status than 200.

    Attributes:
        status: of the last try.
    """

    status = 0


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Checks certificates and names: against the system's authorities, or against those in a PEM file alone.

    Raises:
        InputError: ``pccs.ca_file``: the file cannot be read, or has no certificate.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise InputError(
            "pccs.ca_file",
            f"cannot use {ca_file}: {error.strerror or error}",
            rule="PEM certificates of the authorities to expect the server's TLS certificate from",
            remedy="export the certificate that the PCCS presents, or its authority's",
        ) from error


class Asker:
    """Asks for documents, one after the other. For one event loop; use it as an asynchronous context manager.

    Args:
        context: how TLS certificates are checked.
        pace: how often, with which pauses; its total time is the caller's to keep.
        statuses: what a status means for this kind of server.
    """

    def __init__(self, context: ssl.SSLContext, pace: Pace, statuses: Mapping[int, str]) -> None:
        self._pace = pace
        self._statuses = statuses
        # Without trust_env: a proxy that the environment names is nobody that the owner chose.
        self._client = httpx.AsyncClient(
            verify=context,
            timeout=pace.total_s,
            trust_env=False,
            follow_redirects=False,
            headers={"Accept-Encoding": "identity", "User-Agent": "ensconce"},
        )

    async def __aenter__(self) -> Asker:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def get(self, url: str, parameters: Mapping[str, str] | None = None) -> Answer:
        """Ask once, and again when the failure is one that may pass.

        Raises:
            StatusError: ``pccs.status``.
            UnreachableError: ``pccs.connect``, ``pccs.tls``, ``pccs.size``, ``pccs.encoding``.
            InputError: ``pccs.url``.
        """
        pause = self._pace.pause_s
        for left in reversed(range(self._pace.tries)):
            try:
                return await self._once(url, parameters)
            except _TransientError as failure:
                if not left:
                    raise failure.error from failure.__cause__
                await self._pace.sleep(max(pause * self._pace.jitter(), failure.retry_after))
                pause *= 2
        raise AssertionError("a pace has at least one try")

    async def _once(self, url: str, parameters: Mapping[str, str] | None) -> Answer:
        try:
            async with self._client.stream("GET", url, params=parameters) as response:
                if response.status_code != 200:
                    self._refuse(url, response)
                if response.headers.get("Content-Encoding", "identity") != "identity":
                    raise _unreachable("pccs.encoding", url, "its answer is packed, which it was not asked for")
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > _MAX_BODY:
                        raise _unreachable("pccs.size", url, "its answer is too long", f"over {_MAX_BODY} bytes")
                return Answer(url, response.headers, bytes(body))
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise InputError(
                "pccs.url",
                "this is no URL of a server that has collateral",
                found=url[:200],
                rule="http or https, a host, and a port if need be",
                remedy="for example https://localhost:8081",
            ) from error
        except httpx.HTTPError as error:
            found = str(error)[:200] or type(error).__name__
            if _is_tls(error):
                failure = _unreachable("pccs.tls", url, "its TLS certificate is not one to accept", found)
                raise failure.altered(
                    remedy="name the certificate of its authority (a CA file; a PCCS often signs its own), "
                    "and the server as the certificate does"
                ) from error
            raise _TransientError(_unreachable("pccs.connect", url, "it cannot be reached", found)) from error

    def _refuse(self, url: str, response: httpx.Response) -> NoReturn:
        status = response.status_code
        problem = "it redirects, which is not followed" if response.is_redirect else "it refuses"
        error = _unreachable(
            "pccs.status", url, self._statuses.get(status, problem), f"HTTP status {status}", kind=StatusError
        )
        assert isinstance(error, StatusError)
        error.status = status
        if status in _TRANSIENT:
            raise _TransientError(error, _seconds(response.headers.get("Retry-After", "")))
        raise error


class _TransientError(Exception):
    def __init__(self, error: EnsconceError, retry_after: float = 0.0) -> None:
        super().__init__(error)
        self.error = error
        self.retry_after = retry_after


def _seconds(text: str) -> float:
    """Retry-After in seconds, as RFC 9110 section 10.2.3 has it; a date, or anything else, says nothing here."""
    digits = text.isascii() and text.isdecimal() and len(text) <= 6
    return min(float(text), _MAX_RETRY_AFTER_S) if digits else 0.0


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _unreachable(
    check: str, url: str, problem: str, found: str | None = None, kind: type[UnreachableError] = UnreachableError
) -> UnreachableError:
    return kind(
        check,
        f"{url} gave no collateral: {problem}",
        found=found,
        rule="Intel PCS API version 4",
        remedy="check the URL and that the server runs, knows this FMSPC, and can reach the vendor's service",
    )
