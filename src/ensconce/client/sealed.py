"""Requests sealed to an accepted enclave, over connections that end before it: what channel and transport share.

Nothing here trusts the connection, or who answers on it: the key that is sealed to is vouched for by a certificate that
is judged as on any connection, and only what opens with a request's own secret is its answer.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from ensconce.client.leaf import Accepted, judge_leaf
from ensconce.client.service import Service
from ensconce.errors import EvidenceError, InputError, UnreachableError
from ensconce.ratls.sealing import KEY_HEADER, KEY_SIZE, ROUTE_HEADER, Api, Statement, key_id, seal_request, signed_part

__all__ = ["MAX_CERTIFICATE", "AcceptedKey", "Sealer", "judge_statement", "not_sealing"]

MAX_CERTIFICATE: Final = 1 << 16
"""Longest certificate with evidence, in bytes."""
_ATTEMPTS: Final = 3

T = TypeVar("T")


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


def judge_statement(statement: Statement, service: Service) -> AcceptedKey:
    """Accept a sealing key, or say why not.

    Raises:
        EvidenceError: ``sealed.key``: it is none; ``sealed.signature``: the certificate's key does not vouch for it; or
            the certificate is not acceptable, see :func:`ensconce.client.leaf.judge_leaf`.
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
    return AcceptedKey(statement.key, key_id(statement.key), accepted)


def not_sealing(found: str) -> UnreachableError:
    """There is nobody to seal to; to be raised by the caller."""
    return UnreachableError(
        "sealed.none",
        "the service names no sealing key",
        found=found[:200],
        rule="an answer of a replica with serving: {sealed_bodies: accepted}",
        remedy="say so in ensconce.yaml and build the enclave again; have the balancer pass on /ensconce paths",
    )


class Sealer:
    """Seals requests for one channel to the key of the replica that it leads to. Safe to share between threads."""

    def __init__(self, service: Service, fetch: Callable[[dict[str, str]], Statement]) -> None:
        """Prepare; nothing is asked yet.

        Args:
            service: whom to believe. Where it is reached is not used: the channel knows.
            fetch: asks for the key, with these header fields.

        Raises:
            InputError: ``sealed.freshness``: the service asks for fresh quotes, which need a connection of one's own.
        """
        if service.freshness:
            raise InputError(
                "sealed.freshness",
                "a fresh quote is bound to a connection, and behind a balancer there is none to the replica",
                rule="freshness=False",
                remedy="leave freshness out, or have the balancer pass TLS through",
            )
        self._service, self._fetch = service, fetch
        self._route = {ROUTE_HEADER: secrets.token_hex(8)}
        self._key: AcceptedKey | None = None

    @property
    def key(self) -> AcceptedKey:
        """The key that is sealed to now: asked for and judged if there is none, or its certificate has expired.

        Raises:
            EvidenceError, RefusedError, UnreachableError: see :func:`judge_statement`, and what ``fetch`` raises.
        """
        key = self._key
        if key is None or key.accepted.valid_until <= self._service.appraiser.now():
            key = self._key = judge_statement(self._fetch(self._route), self._service)
        return key

    def ask(
        self, api: Api, path: str, body: bytes, send: Callable[[dict[str, str], bytes], tuple[T, bytes] | None]
    ) -> tuple[T, int, bytes]:
        """Seal, send, open; anew where another replica answers, or the key was replaced.

        Args:
            api: how it is asked.
            path: what is asked.
            body: plain.
            send: sends these header fields and this body; gives something of the caller's and the answer's body, or
                None where the answer is that the key is another's.

        Returns:
            What ``send`` gave, and the answer's status and body.

        Raises:
            EvidenceError: ``sealed.answer``: what came is no answer to this request.
            UnreachableError: ``sealed.route``: it reached no replica that has the key.
            EvidenceError, RefusedError, UnreachableError: as :attr:`key`, and what ``send`` raises.
        """
        for _ in range(_ATTEMPTS):
            key = self.key
            sealed, answering = seal_request(key.key, api, path, body)
            sent = send({**self._route, KEY_HEADER: key.id}, sealed)
            if sent is None:
                self._key = None
                continue
            try:
                return sent[0], *answering.open(sent[1])
            except ValueError:
                raise EvidenceError(
                    "sealed.answer",
                    "what came back is not the enclave's answer to this request",
                    found=f"{len(sent[1])} bytes",
                    rule="sealed with the request's own secret",
                    remedy="somebody between this client and the replica changed it; tell the owner",
                ) from None
        raise UnreachableError(
            "sealed.route",
            "the request reached no replica that has the key it was sealed to",
            found=f"{_ATTEMPTS} attempts",
            remedy=f"have the balancer choose the replica by the header {ROUTE_HEADER}",
        )
