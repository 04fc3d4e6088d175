"""A log behind a provisioning server's status address: its head, and proofs, over HTTP or HTTPS.

Nothing is trusted for having come from there: the head is signed, and a proof either leads to its root or does not.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx

from ensconce.audit.head import MAX_HEAD
from ensconce.audit.proofs import ConsistencyProof, parse_consistency
from ensconce.errors import InputError, UnreachableError
from ensconce.web import get

__all__ = ["RemoteLog"]

_MAX_PROOF = 16 * 1024


class RemoteLog:
    """The log that a status address answers for; the protocol is :class:`~ensconce.audit.witness.LogSource`.

    Args:
        url: ``http://HOST:PORT`` or ``https://HOST:PORT``, below which ``/log/head`` and ``/log/consistency`` are.
        ca_file: PEM file of the authority to expect the server's TLS certificate from, instead of the system's.
        timeout: for each answer, in seconds.

    Raises:
        InputError: ``audit.url``; ``audit.ca_file``.
    """

    def __init__(self, url: str, ca_file: Path | None = None, timeout: float = 30.0) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            parsed = httpx.URL("")
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise InputError(
                "audit.url",
                "this is no URL of a status address",
                found=ascii(url)[:200],
                rule="http://HOST:PORT or https://HOST:PORT",
                remedy="ask the owner which address provisioning.status has",
            )
        try:
            self._tls = ssl.create_default_context(cafile=ca_file)
        except OSError as error:
            raise InputError(
                "audit.ca_file",
                f"cannot use {ca_file}: {error.strerror or error}",
                rule="PEM certificates of the authorities to expect the server's TLS certificate from",
                remedy="name such a file with --ca, or leave it out to trust the system's authorities",
            ) from error
        self._url = url.rstrip("/")
        self._timeout = timeout

    def head(self) -> bytes:
        """The head as it was sent.

        Raises:
            UnreachableError: ``audit.source``.
        """
        return self._get("/log/head", MAX_HEAD)

    def consistency(self, first: int, second: int) -> ConsistencyProof:
        """The proof between two sizes as it was sent.

        Raises:
            UnreachableError: ``audit.source``: also when the answer is no proof.
        """
        data = self._get(f"/log/consistency?first={first}&second={second}", _MAX_PROOF)
        try:
            return parse_consistency(data)
        except InputError as error:
            raise self._error("its answer is no proof", error.found) from error

    def _get(self, path: str, limit: int) -> bytes:
        return get(self._url + path, limit, self._error, timeout=self._timeout, tls=self._tls)

    def _error(self, problem: str, found: str | None) -> UnreachableError:
        return UnreachableError(
            "audit.source",
            f"cannot get the log from {self._url}: {problem}",
            found=found,
            remedy="check the address; a server that never answers this one question may have something to hide",
        )
