"""The sealing key of a server: born with each certificate, and each request is taken once.

No clock is asked, since an enclave's is its host's: what a key took is remembered for as long as the key is there, and
a key that took as much as is remembered is replaced, so that nothing that was sealed to it can be opened any more.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from ensconce.errors import InputError
from ensconce.ratls.sealing import Answering, Api, Statement, key_id, open_request, signed_part
from ensconce.tfserving.refusal import Code, RequestError

__all__ = ["Sealing"]

Body = bytes | bytearray | memoryview

_MOST_REQUESTS: Final = 1 << 17
"""Of one key; 16 MB of memory."""
_IN_LOOP: Final = 256 * 1024
"""Bytes up to which bodies are opened and sealed in the event loop, in 0.3 ms."""


class _Key:
    """One key, and what it has taken."""

    def __init__(self, certificate_key: ec.EllipticCurvePrivateKey, certificate: bytes) -> None:
        self.private = X25519PrivateKey.generate()
        public = self.private.public_key().public_bytes_raw()
        self.id = key_id(public)
        signature = certificate_key.sign(signed_part(public), ec.ECDSA(SHA256()))
        self.statement = Statement(certificate, public, signature)
        self.taken: set[bytes] = set()


class Sealing:
    """Opens requests and seals answers. Requests may be opened in any thread."""

    def __init__(self, *, required: bool = False, most_requests: int = _MOST_REQUESTS) -> None:
        """Prepare; :meth:`present` comes before the first request.

        Args:
            required: whether predictions that are not sealed are refused.
            most_requests: after how many requests a key is replaced.
        """
        self.required = required
        self._most = most_requests
        self._lock = threading.Lock()
        self._make: Callable[[], _Key] | None = None
        self._key: _Key | None = None

    def present(self, private_key_pem: bytes, certificate_chain_pem: bytes) -> None:
        """Have a new key from now on, vouched for by this certificate's; the old one opens nothing any more.

        Args:
            private_key_pem: of the certificate, an elliptic curve's, not encrypted.
            certificate_chain_pem: leaf first; both as :class:`ensconce.serving.tls.ServingCertificate` took them.

        Raises:
            InputError: ``serving.sealing``: the key is of another kind.
        """
        certificate_key = load_pem_private_key(private_key_pem, password=None)
        if not isinstance(certificate_key, ec.EllipticCurvePrivateKey):
            raise InputError(
                "serving.sealing",
                "the certificate's key cannot vouch for a sealing key",
                found=type(certificate_key).__name__,
                rule="a key on an elliptic curve",
            )
        leaf = x509.load_pem_x509_certificates(certificate_chain_pem)[0].public_bytes(Encoding.DER)
        with self._lock:
            self._make = lambda: _Key(certificate_key, leaf)
            self._key = self._make()

    @property
    def statement(self) -> Statement:
        """What clients judge before they seal."""
        key = self._key
        assert key is not None
        return key.statement

    async def answer(
        self,
        key: str,
        api: Api,
        path: str,
        sealed: Body,
        handle: Callable[[memoryview], Awaitable[tuple[int, bytes]]],
    ) -> bytes:
        """Open a request, have it answered, and seal the answer.

        Args:
            key: the id of the key that it is sealed to, as the client names it.
            api: how it was asked.
            path: what was asked, as it came.
            sealed: the body as it came.
            handle: takes the plain body, gives status and body of the answer; raises nothing that tells of it.

        Raises:
            RequestError: FAILED_PRECONDITION: it is sealed to another key; INVALID_ARGUMENT: it cannot be opened;
                ALREADY_EXISTS: it was taken before.
        """
        if len(sealed) <= _IN_LOOP:
            body, answering = self.open(key, api, path, sealed)
        else:
            body, answering = await asyncio.to_thread(self.open, key, api, path, sealed)
        status, answer = await handle(body)
        if len(answer) <= _IN_LOOP:
            return answering.seal(status, answer)
        return await asyncio.to_thread(answering.seal, status, answer)

    def open(self, key: str, api: Api, path: str, sealed: Body) -> tuple[memoryview, Answering]:
        """The first half of :meth:`answer`."""
        ours = self._key
        if ours is None or key != ours.id:
            raise RequestError(Code.FAILED_PRECONDITION, "The request is sealed to another key; ask for this server's")
        try:
            body, answering = open_request(ours.private, api, path, sealed)
        except ValueError:
            raise RequestError(Code.INVALID_ARGUMENT, "The request cannot be opened: it was changed") from None
        with self._lock:
            if answering.encapsulated in ours.taken:
                raise RequestError(Code.ALREADY_EXISTS, "The request was taken before")
            ours.taken.add(answering.encapsulated)
            if len(ours.taken) >= self._most and ours is self._key and self._make is not None:
                self._key = self._make()
        return body, answering
