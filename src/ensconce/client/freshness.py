"""Asks a replica for a quote over a nonce and this very channel, and judges it."""

from __future__ import annotations

import hmac
import os

from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.policy import Acceptance
from ensconce.errors import EvidenceError, UnreachableError
from ensconce.evidence.quote import MAX_QUOTE_SIZE
from ensconce.ratls.binding import NONCE_SIZE
from ensconce.ratls.freshness import LENGTH_SIZE, client_report_data
from ensconce.ratls.stream import TlsStream
from ensconce.trail import exhibit, held

__all__ = ["ask_fresh", "judge_fresh"]


def ask_fresh(stream: TlsStream, shown: Acceptance, appraiser: Appraiser) -> Acceptance:
    """One round trip on a connection that agreed on it (:mod:`ensconce.ratls.freshness`) and has said nothing yet.

    Args:
        stream: after the handshake; within its deadline.
        shown: what the certificate on this connection was accepted for.
        appraiser: judges the quote.

    Raises:
        UnreachableError: ``fresh.none``: the replica makes no quote now; or the connection is lost.
        EvidenceError, RefusedError: as :func:`judge_fresh`.
    """
    nonce = os.urandom(NONCE_SIZE)
    stream.write(nonce)
    size = int.from_bytes(stream.read(LENGTH_SIZE), "big")
    if size == 0:
        raise UnreachableError(
            "fresh.none",
            "the replica makes no fresh quote now",
            remedy="try again later: too many may be asking, or its platform has none",
        )
    if size > MAX_QUOTE_SIZE:
        raise EvidenceError(
            "fresh.size", "the fresh quote is too long", found=f"{size} bytes", rule=f"at most {MAX_QUOTE_SIZE} bytes"
        )
    quote = stream.read(size)
    exhibit("fresh_quote", quote)
    return judge_fresh(quote, client_report_data(stream.connection, nonce), shown, appraiser)


def judge_fresh(quote: bytes, report_data: bytes, shown: Acceptance, appraiser: Appraiser) -> Acceptance:
    """Accept a fresh quote, or say why not.

    Args:
        quote: as it came.
        report_data: what it must have been made over, 64 bytes.
        shown: what the certificate on the same connection was accepted for.
        appraiser: judges the quote.

    Raises:
        EvidenceError: it is malformed or not genuine; ``fresh.report_data``: it was made for another nonce, channel or
            key; ``fresh.identity``: it is of another enclave than the certificate's.
        RefusedError: the policy refuses it.
        UnreachableError: collateral is not to be had.
    """
    acceptance = appraiser.appraise(quote)
    report = acceptance.report
    if not hmac.compare_digest(report.report_data, report_data):
        raise EvidenceError(
            "fresh.report_data",
            "the fresh quote is not for this connection",
            found=report.report_data.hex(),
            rule=report_data.hex(),
            remedy="somebody stands between this client and the replica, and passes on what it says; tell the owner",
        )
    if acceptance.verdict.root != shown.verdict.root or report.measurements() != shown.report.measurements():
        raise EvidenceError(
            "fresh.identity",
            "the fresh quote is of another enclave than the certificate's",
            found=str(report.measurements()),
            rule=str(shown.report.measurements()),
            remedy="connect again; if it happens again, tell the owner",
        )
    found, rule = f"TCB status {acceptance.verdict.status}", "genuine, and accepted by the same policy"
    held("fresh.quote", "fresh quote", found=found, rule=rule, end=acceptance.valid_until)
    bound = f"SHA-512 over our nonce, this channel and the certificate's key: {report_data.hex()}"
    held("fresh.report_data", "what it was made for", found=report.report_data.hex(), rule=bound)
    found = ", ".join(f"{name} {value}" for name, value in report.measurements().items())
    held("fresh.identity", "root and measurements", found=found, rule="those of the certificate's evidence")
    return acceptance
