"""The enclave's side of wire v2: a fresh key, a certificate for it, and the keys of the models.

Everything that comes from the network is the host's to choose, so everything is checked: the server's certificate
under the measured authority and for the measured name, the answer against the question, and the certificate against
the key that never leaves this process.
"""

from __future__ import annotations

import datetime as dt
import random
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import VerificationError
from pydantic import TypeAdapter, ValidationError

from ensconce.addresses import Address
from ensconce.errors import EnsconceError, EvidenceError, InputError, UnreachableError
from ensconce.evidence.certificate import OID_TCG
from ensconce.evidence.spki import spki_of
from ensconce.provisioning.frames import read_frame, write_frame
from ensconce.provisioning.messages import (
    MAX_KEYS,
    Grant,
    ModelVersion,
    Request,
    SecretId,
    encode,
    parse_answer,
    parse_challenge,
)
from ensconce.ratls.binding import channel_binding
from ensconce.ratls.context import (
    check_channel,
    check_server,
    client_context,
    exporter,
    impostor,
    peer_spki,
    refused_certificate,
)
from ensconce.ratls.request import make_certificate_request, make_key_container
from ensconce.ratls.stream import TlsStream
from ensconce.ratls.trust import load_authority, verify_server

__all__ = ["TIMEOUT", "Provisioned", "provision"]

TIMEOUT = 30.0
"""Seconds for one server, from connecting to its answer."""

_CHANCE = random.SystemRandom()


@dataclass(frozen=True)
class Provisioned:
    """What an enclave has once the owner trusts it.

    Attributes:
        secrets: keys that were granted, by key id: ``model/<name>/<version>``, ``secret/<name>``.
        certificate_chain: for the service's domain, PEM, leaf first.
        private_key: the leaf's key; born here, known to nobody else.
        refused: why the other keys that were asked for were not granted, by key id.
    """

    secrets: Mapping[str, bytes] = field(repr=False)
    certificate_chain: bytes
    private_key: ec.EllipticCurvePrivateKey = field(repr=False)
    refused: Mapping[str, EnsconceError]


def provision(
    servers: Sequence[str],
    server_name: str,
    ca_pem: bytes,
    quote: Callable[[bytes], bytes],
    domain: str,
    models: Sequence[tuple[str, int]],
    *,
    secrets: Sequence[str] = (),
    timeout: float = TIMEOUT,
    chance: random.Random = _CHANCE,
) -> Provisioned:
    """Prove to the owner what runs here, and receive what it may have.

    Args:
        servers: ``HOST:PORT``, tried in any order until one is there, so that all of them share the load. Whatever
            that one says stands: a refusal, or a server that is not the owner's, is not made good by asking another.
        server_name: the name in the server's certificate.
        ca_pem: the owner's authority, the only one that is believed.
        quote: makes a quote for 64 bytes of report data.
        domain: the service's name, which the certificate will be for.
        models: name and version of each model whose key is wanted.
        secrets: other keys that are wanted, each ``secret/<name>``; without any key a certificate alone is asked for.
        timeout: seconds for each server.
        chance: chooses the order.

    Raises:
        UnreachableError: no server is there, or it does not speak the protocol, or cannot decide now.
        EvidenceError: ``provisioning.server_certificate`` it is not the owner's server; ``provisioning.grant`` its
            answer does not fit the question; or it does not believe this enclave's evidence.
        RefusedError: the owner's policy refuses this enclave, or all the keys that were asked for.
        InputError: an argument is wrong.
    """
    wanted = _wanted(models, secrets)
    authority = load_authority(ca_pem)
    key = ec.generate_private_key(ec.SECP256R1())
    request = make_certificate_request(key, domain, quote)
    with _connect(chance.sample(servers, len(servers)), server_name, authority, key, timeout) as stream:
        grant = _converse(stream, authority, server_name, key, request, quote, wanted)
    _check_keys(grant, wanted)
    chain = grant.certificate_chain.encode("ascii", "replace")
    _check_certificate(chain, authority, domain, key, request)
    return Provisioned(
        secrets=dict(grant.secrets),
        certificate_chain=chain,
        private_key=key,
        refused={refused.key_id: refused.error.error("policy") for refused in grant.refused},
    )


@dataclass(frozen=True)
class _Wanted:
    """The keys to ask for; each is known to be a key's name."""

    models: tuple[ModelVersion, ...]
    secrets: tuple[str, ...]

    @property
    def key_ids(self) -> list[str]:
        return sorted((*(model.key_id for model in self.models), *self.secrets))


def _wanted(models: Sequence[tuple[str, int]], secrets: Sequence[str]) -> _Wanted:
    try:
        wanted = _Wanted(
            tuple(ModelVersion(name=name, version=version) for name, version in models),
            tuple(TypeAdapter(SecretId).validate_python(secret) for secret in secrets),
        )
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]["msg"]
        raise InputError(
            "provisioning.models", "this is no model version, or no name of a secret", rule=problem
        ) from None
    if len(wanted.key_ids) > MAX_KEYS or len(set(wanted.key_ids)) != len(wanted.key_ids):
        raise InputError(
            "provisioning.models",
            "too many keys, or one of them twice",
            found=f"{len(wanted.key_ids)} keys",
            rule=f"at most {MAX_KEYS}, each once",
            remedy="take old versions out of the models folder",
        )
    return wanted


def _connect(
    servers: Sequence[str],
    server_name: str,
    authority: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    timeout: float,
) -> TlsStream:
    context = client_context(key, make_key_container(key), authority)
    failures = []
    for server in servers:
        deadline = time.monotonic() + timeout
        try:
            sock = socket.create_connection(Address.parse(server), timeout)
        except OSError as error:
            failures.append(f"{server}: {error.strerror or error}")
            continue
        return TlsStream(context, sock, deadline=deadline, server_name=server_name)
    raise UnreachableError(
        "provisioning.unreachable",
        "no provisioning server is there",
        found="; ".join(failures)[:300] or "no server was named",
        rule=f"one of {', '.join(servers)}"[:300],
        remedy="start it with `ensconce provision serve` on the owner's machine, and check the network between",
    )


def _converse(
    stream: TlsStream,
    authority: x509.Certificate,
    server_name: str,
    key: ec.EllipticCurvePrivateKey,
    request: bytes,
    quote: Callable[[bytes], bytes],
    wanted: _Wanted,
) -> Grant:
    connection = stream.connection
    try:
        stream.handshake()
    except UnreachableError:
        if (found := refused_certificate(connection)) is not None:
            raise impostor(found, server_name) from None
        raise
    check_server(connection, authority, server_name, dt.datetime.now(dt.UTC))
    check_channel(connection)
    challenge = parse_challenge(read_frame(stream))
    binding = channel_binding(
        nonce=challenge.nonce,
        exporter=exporter(connection),
        server_spki=peer_spki(connection),
        client_spki=spki_of(key.public_key()),
        certificate_request=request,
    )
    asked = Request(quote=quote(binding), certificate_request=request, models=wanted.models, secrets=wanted.secrets)
    write_frame(stream, encode(asked))
    return parse_answer(read_frame(stream))


def _check_keys(grant: Grant, wanted: _Wanted) -> None:
    """Each key that was asked for is granted or refused, and no other."""
    answered = [*grant.secrets, *(refused.key_id for refused in grant.refused)]
    if sorted(answered) != wanted.key_ids:
        raise _misfit("the keys that it answers for are not those that were asked for")


def _check_certificate(
    chain: bytes, authority: x509.Certificate, domain: str, key: ec.EllipticCurvePrivateKey, request: bytes
) -> None:
    """The certificate is for this key and name, under the owner's authority, and carries this enclave's evidence."""
    try:
        leaf, *others = x509.load_pem_x509_certificates(chain)
        evidence = leaf.extensions.get_extension_for_oid(OID_TCG).value
        wanted = x509.load_der_x509_csr(request).extensions.get_extension_for_oid(OID_TCG).value
        verify_server(leaf, others, authority=authority, name=domain, now=dt.datetime.now(dt.UTC))
    except (ValueError, x509.ExtensionNotFound, VerificationError) as error:
        raise _misfit(f"its certificate does not hold: {str(error)[:200]}") from None
    if leaf.public_key() != key.public_key():
        raise _misfit("its certificate is for another key")
    if evidence != wanted:
        raise _misfit("its certificate carries other evidence")


def _misfit(found: str) -> EvidenceError:
    return EvidenceError(
        "provisioning.grant",
        "the provisioning server's answer does not fit the question",
        found=found,
        rule="docs/reference/wire-v2.md, grant",
        remedy="check the server's clock and version",
    )
