"""Requests sealed to an accepted enclave, over connections that end before it: what channels and transports share.

Nothing here trusts the connection, or who answers on it: the key that is sealed to is vouched for by a certificate that
is judged as on any connection, and only what opens with a request's own secret is its answer.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from ensconce.client.freshness import judge_fresh
from ensconce.client.leaf import Accepted, judge_leaf
from ensconce.client.service import Service
from ensconce.errors import EvidenceError, InputError, RefusedError, UnreachableError
from ensconce.evidence.quote import MAX_QUOTE_SIZE
from ensconce.evidence.spki import spki_of
from ensconce.ratls.binding import NONCE_SIZE, sealing_binding
from ensconce.ratls.sealing import (
    KEY_HEADER,
    KEY_SIZE,
    MOST_NONCES,
    ROUTE_HEADER,
    Answering,
    Api,
    Statement,
    key_id,
    seal_request,
    signed_part,
)

__all__ = [
    "KEY_TIMEOUT_S",
    "MAX_CERTIFICATE",
    "AcceptedKey",
    "Sealed",
    "Sealer",
    "judge_statement",
    "not_sealing",
    "refused",
    "sealers",
]

KEY_TIMEOUT_S: Final = 10.0
"""For the answer to the question for a key, if the call has as much time."""
MAX_CERTIFICATE: Final = 1 << 16
"""Longest certificate with evidence, in bytes."""
_ATTEMPTS: Final = 3
_MOST_ROUTES: Final = 64
_IN_LOOP: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class AcceptedKey:
    """A sealing key of an accepted enclave.

    Attributes:
        key: X25519, 32 bytes.
        id: names it.
        accepted: why its certificate was accepted.
    """

    key: bytes
    id: str
    accepted: Accepted


def judge_statement(statement: Statement, service: Service, nonce: bytes = b"") -> AcceptedKey:
    """Accept a sealing key, or say why not.

    Args:
        statement: as it came.
        service: whom to believe; if it asks for fresh quotes, there has to be one.
        nonce: that was sent with the question.

    Raises:
        EvidenceError: ``sealed.key``: it is none; ``sealed.signature``: the certificate's key does not vouch for it; or
            the certificate is not acceptable, see :func:`ensconce.client.leaf.judge_leaf`; ``sealed.nonce``: the fresh
            quote was not made for this question; or it is not acceptable, see
            :func:`ensconce.client.freshness.judge_fresh`.
        RefusedError: the policy refuses the enclave.
        UnreachableError: collateral is not to be had.
    """
    if len(statement.key) != KEY_SIZE or not 0 < len(statement.certificate) <= MAX_CERTIFICATE:
        raise EvidenceError(
            "sealed.key",
            "this is no sealing key",
            found=f"{len(statement.key)} bytes, with a certificate of {len(statement.certificate)}",
            rule=f"{KEY_SIZE} bytes, with a certificate of at most {MAX_CERTIFICATE}",
        )
    accepted = judge_leaf(statement.certificate, service.server_name, service.appraiser, service.authority)
    certificate_key = accepted.certificate.public_key()
    try:
        if not isinstance(certificate_key, ec.EllipticCurvePublicKey):
            raise InvalidSignature
        certificate_key.verify(statement.signature, signed_part(statement.key), ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise EvidenceError(
            "sealed.signature",
            "the accepted enclave does not vouch for this sealing key",
            found=f"key {key_id(statement.key)}, certificate of replica {accepted.replica_id}",
            rule="signed by the certificate's key",
            remedy="somebody between this client and the replica put in a key; tell the owner",
        ) from None
    if service.freshness:
        _judge_quote(statement, service, accepted, nonce)
    return AcceptedKey(statement.key, key_id(statement.key), accepted)


def _judge_quote(statement: Statement, service: Service, accepted: Accepted, nonce: bytes) -> None:
    nonces, size = statement.nonces, len(statement.nonces)
    whole = len(nonce) == NONCE_SIZE and size % NONCE_SIZE == 0 and size <= MOST_NONCES * NONCE_SIZE
    if not whole or nonce not in (nonces[at : at + NONCE_SIZE] for at in range(0, size, NONCE_SIZE)):
        raise EvidenceError(
            "sealed.nonce",
            "the fresh quote over the sealing key was not made for this client's question",
            found=f"{size} bytes of nonces",
            rule=f"our nonce, among at most {MOST_NONCES}",
            remedy="ask again; if it happens again, somebody between plays back what is old: tell the owner",
        )
    spki = spki_of(accepted.certificate.public_key())
    report_data = sealing_binding(nonces=nonces, key=statement.key, server_spki=spki)
    if len(statement.quote) > MAX_QUOTE_SIZE:
        raise EvidenceError(
            "fresh.size",
            "the fresh quote is too long",
            found=f"{len(statement.quote)} bytes",
            rule=f"at most {MAX_QUOTE_SIZE} bytes",
        )
    judge_fresh(statement.quote, report_data, accepted.acceptance, service.appraiser)


def not_sealing(found: str) -> UnreachableError:
    """There is nobody to seal to; to be raised by the caller."""
    return UnreachableError(
        "sealed.none",
        "the service names no sealing key",
        found=found[:200],
        rule="an answer of a replica with serving: {sealed_bodies: accepted}",
        remedy="say so in ensconce.yaml and build the enclave again; have the balancer pass on /ensconce paths",
    )


def refused(found: str) -> UnreachableError:
    """What was sealed met an error in the clear, which says nothing of the enclave; to be raised by the caller."""
    return UnreachableError(
        "sealed.refused",
        "the request was refused before the enclave opened it, or it could not be opened",
        found=found[:300],
        remedy="whoever is between this client and the replica may have said so: ask the balancer's owner first",
    )


@dataclass(frozen=True, slots=True)
class Sealed:
    """A request as it is sent.

    Attributes:
        fields: of its header.
        body: sealed.
    """

    fields: dict[str, str]
    body: bytes
    _answering: Answering

    def open(self, answer: bytes) -> tuple[int, bytes]:
        """Status and body of an answer.

        Raises:
            EvidenceError: ``sealed.answer``: it is none to this request.
        """
        try:
            return self._answering.open(answer)
        except ValueError:
            raise EvidenceError(
                "sealed.answer",
                "what came back is not the enclave's answer to this request",
                found=f"{len(answer)} bytes",
                rule="sealed with the request's own secret",
                remedy="somebody between this client and the replica changed it; tell the owner",
            ) from None


class Sealer:
    """Seals requests to the key of the replica that one route leads to. Safe to share between threads.

    Attributes:
        route: the header field by which a balancer chooses the replica.
        accepted: why the latest key's certificate was accepted, once there was one.
    """

    def __init__(self, service: Service) -> None:
        """Prepare; nothing is asked yet.

        Args:
            service: whom to believe. Where it is reached is not used: the channel knows.
        """
        self._service = service
        self._key: AcceptedKey | None = None
        self.route = _any_route()
        self.accepted: Accepted | None = None

    @property
    def key(self) -> AcceptedKey | None:
        """The key that is sealed to now; None if one is to be asked for: there is none, or its certificate expired."""
        key = self._key
        return None if key is None or key.accepted.valid_until <= self._service.appraiser.now() else key

    def question(self) -> bytes:
        """The nonce to ask with; empty where no fresh quote is wanted."""
        return os.urandom(NONCE_SIZE) if self._service.freshness else b""

    def judge(self, statement: Statement, nonce: bytes) -> AcceptedKey:
        """Seal to this key from now on; may fetch collateral.

        Args:
            statement: as it came.
            nonce: that it was asked for with.

        Raises:
            EvidenceError, RefusedError, UnreachableError: see :func:`judge_statement`; there is no key then, and the
                next question takes another route: it may lead to a replica that is accepted.
        """
        self._key = None
        try:
            key = self._key = judge_statement(statement, self._service, nonce)
        except (EvidenceError, RefusedError):
            self.route = _any_route()
            raise
        self.accepted = key.accepted
        return key

    def ask(
        self,
        api: Api,
        path: str,
        body: bytes,
        ask_key: Callable[[bytes], Statement],
        send: Callable[[Sealed], bytes | None],
    ) -> tuple[int, bytes]:
        """Seal, send, open; anew where another replica answers, or the key was replaced.

        Args:
            api: how it is asked.
            path: what is asked.
            body: plain.
            ask_key: asks for the key over this route, with a nonce or an empty one.
            send: sends; gives the answer's body, or None where the answer is that the key is another's.

        Returns:
            The answer's status and body.

        Raises:
            EvidenceError: ``sealed.answer``: what came is no answer to this request.
            UnreachableError: ``sealed.route``: it reached no replica that has the key.
            EvidenceError, RefusedError, UnreachableError: as :meth:`judge`, and what the functions raise.
        """
        for _ in range(_ATTEMPTS):
            key = self.key
            if key is None:
                nonce = self.question()
                key = self.judge(ask_key(nonce), nonce)
            sealed = self._seal(key, api, path, body)
            answer = send(sealed)
            if answer is not None:
                return sealed.open(answer)
            self._lose(key)
        raise _astray()

    async def ask_async(
        self,
        api: Api,
        path: str,
        body: bytes,
        ask_key: Callable[[bytes], Awaitable[Statement]],
        send: Callable[[Sealed], Awaitable[bytes | None]],
    ) -> tuple[int, bytes]:
        """As :meth:`ask`, on an event loop; judging, and long bodies, in threads."""
        for _ in range(_ATTEMPTS):
            key = self.key
            if key is None:
                nonce = self.question()
                key = await asyncio.to_thread(self.judge, await ask_key(nonce), nonce)
            if len(body) <= _IN_LOOP:
                sealed = self._seal(key, api, path, body)
            else:
                sealed = await asyncio.to_thread(self._seal, key, api, path, body)
            answer = await send(sealed)
            if answer is not None:
                return sealed.open(answer) if len(answer) <= _IN_LOOP else await asyncio.to_thread(sealed.open, answer)
            self._lose(key)
        raise _astray()

    def _seal(self, key: AcceptedKey, api: Api, path: str, body: bytes) -> Sealed:
        sealed, answering = seal_request(key.key, api, path, body)
        return Sealed({**self.route, KEY_HEADER: key.id}, sealed, answering)

    def _lose(self, key: AcceptedKey) -> None:
        # Unless another call has asked for the next one meanwhile.
        if self._key is key:
            self._key = None


def sealers(service: Service, routes: int) -> list[Sealer]:
    """One for each of some routes.

    Raises:
        InputError: ``sealed.routes``: so many cannot be had.
    """
    if not 1 <= routes <= _MOST_ROUTES:
        raise InputError(
            "sealed.routes", "a client cannot have so many routes", found=str(routes), rule=f"1 to {_MOST_ROUTES}"
        )
    return [Sealer(service) for _ in range(routes)]


def _any_route() -> dict[str, str]:
    return {ROUTE_HEADER: secrets.token_hex(8)}


def _astray() -> UnreachableError:
    return UnreachableError(
        "sealed.route",
        "the request reached no replica that has the key it was sealed to",
        found=f"{_ATTEMPTS} attempts",
        remedy=f"have the balancer choose the replica by the header {ROUTE_HEADER}",
    )
