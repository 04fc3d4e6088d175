"""Judges a request: is this, now, on this very channel, an enclave that the policy accepts, and is the key its own?

Nothing here reads the network, opens the keystore or writes the log. The order of checks is that of
``docs/reference/wire-v2.md``, section "What the server checks".
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ensconce.appraisal.policy import Acceptance
from ensconce.errors import EvidenceError
from ensconce.provisioning.messages import Request
from ensconce.ratls.binding import channel_binding
from ensconce.ratls.verify import SignedRequest, check_binding, read_signed_request

__all__ = ["Channel", "Judged", "judge"]


@dataclass(frozen=True, kw_only=True)
class Channel:
    """What the server knows about one connection by itself.

    Attributes:
        nonce: what it sent as challenge on this connection, 32 bytes.
        exporter: the connection's ``tls-exporter``, 32 bytes.
        server_spki: its own leaf key, DER SubjectPublicKeyInfo.
        client_spki: the client's leaf key, whose possession the handshake has proven.
    """

    nonce: bytes
    exporter: bytes
    server_spki: bytes
    client_spki: bytes


@dataclass(frozen=True)
class Judged:
    """A request that may be answered with keys.

    Attributes:
        acceptance: the enclave at the other end of the channel.
        request: its certificate request, whose evidence is of the same enclave.
        in_request: the acceptance of that evidence.
    """

    acceptance: Acceptance
    request: SignedRequest
    in_request: Acceptance


async def judge(
    request: Request, channel: Channel, *, domain: str, appraise: Callable[[bytes], Awaitable[Acceptance]]
) -> Judged:
    """Judge a request that came over a channel.

    Args:
        request: as it was read.
        channel: where it came from.
        domain: the only name that certificates are issued for.
        appraise: appraises a quote; both, one after the other, so that whoever replays an old one costs one appraisal.

    Raises:
        EvidenceError: ``provisioning.channel_binding`` evidence of another time, channel or key;
            ``provisioning.key`` the certificate would be for another key than the channel's;
            ``provisioning.domain``; ``provisioning.same_enclave`` the two quotes are of different enclaves; or
            whatever reading and verifying evidence says.
        RefusedError: the policy refuses the enclave.
        UnreachableError: collateral is not to be had.
    """
    wanted = read_signed_request(request.certificate_request)
    if not hmac.compare_digest(wanted.spki_der, channel.client_spki):
        raise EvidenceError(
            "provisioning.key",
            "the certificate is asked for another key than the one that this connection is made with",
            rule="the key in the certificate request is the TLS client's",
            remedy="this is how another replica's request looks; ask with one's own",
        )
    if wanted.domain != domain:
        raise EvidenceError(
            "provisioning.domain",
            "the certificate is asked for another name than the service's",
            found=wanted.domain,
            rule=domain,
            remedy="the replica's measured configuration and the deployment file must agree on service.domain",
        )
    acceptance = await appraise(request.quote)
    expected = channel_binding(
        nonce=channel.nonce,
        exporter=channel.exporter,
        server_spki=channel.server_spki,
        client_spki=channel.client_spki,
        certificate_request=request.certificate_request,
    )
    if not hmac.compare_digest(acceptance.report.report_data, expected):
        raise EvidenceError(
            "provisioning.channel_binding",
            "the quote was made for another connection, another moment, another key or another request",
            found=f"report data {acceptance.report.report_data.hex()}",
            rule=f"report data {expected.hex()}",
            remedy="this is how replayed or relayed evidence looks; every connection needs a new quote",
        )
    in_request = await appraise(wanted.evidence.quote)
    check_binding(wanted.evidence, in_request.report.report_data)
    _check_same_enclave(acceptance, in_request)
    return Judged(acceptance, wanted, in_request)


def _check_same_enclave(one: Acceptance, other: Acceptance) -> None:
    """The certificate must not carry evidence of another enclave than the one that receives the keys."""
    mine, others = one.report.measurements(), other.report.measurements()
    for field in sorted({*mine, *others}):
        if mine.get(field) != others.get(field):
            raise EvidenceError(
                "provisioning.same_enclave",
                "the evidence in the certificate request is of another enclave than the fresh quote",
                found=f"{field} differs",
                rule="both quotes are of one enclave",
                remedy="make both quotes in the enclave that the key was born in",
            )
    if one.identity != other.identity or one.verdict.root != other.verdict.root:
        raise EvidenceError("provisioning.same_enclave", "the two quotes were accepted as different identities")
