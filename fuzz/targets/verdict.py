"""The whole verification of a quote, as a stranger meets it: nobody without the keys makes a new verdict.

The first byte says what the rest is. A quote: every byte is the stranger's and the collateral is sound, so whatever is
accepted must say exactly what a quote that was really signed says. Or a quote whose signatures are made here, as a
genuine platform in an odd condition would: whatever is accepted must say what its body says.
"""

from __future__ import annotations

import functools
import hashlib
import random

from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.verdict import Verdict
from ensconce.errors import EvidenceError
from ensconce.evidence.quote import parse_quote
from ensconce.platform.simulated.certificates import point, sign_raw
from ensconce.platform.simulated.quoting import QuoteRecipe
from fuzz import world
from fuzz.mutation import by_parts
from fuzz.target import Havoc, Refused, Target, attempt, holds
from fuzz.targets.quote import join, split

__all__ = ["TARGET", "check"]

_GIVEN = 0
_SAID = ("tee", "root", "status", "advisory_ids", "report", "fmspc", "pce_id", "ppid", "valid_until")


def check(data: bytes) -> bool:
    """Verify a quote; see the module."""
    quote = data[1:] if not data or data[0] == _GIVEN else _signed_here(data[1:])
    if quote is None:
        return False
    verdict = attempt(lambda: _verify(quote), EvidenceError)
    if isinstance(verdict, Refused):
        return False
    if data[0] == _GIVEN:
        holds(_said(verdict) in _said_by_signed(), "a verdict that nobody signed")
    else:
        holds(verdict.report == parse_quote(quote).body, "the verdict is about another report")
        holds(not verdict.report.debug, "a debug enclave")
        holds(_said(verdict)[5:] in [said[5:] for said in _said_by_signed()], "another machine")
    return True


def _signed_here(data: bytes) -> bytes | None:
    """The quote with the signatures that its platform would give it; None for what is no quote."""
    parts = split(data)
    if parts is None:
        return None
    header, body, _, _, qe_report, _, auth, kind, chain = parts
    key = point(world.VENDOR.attestation_key)
    qe_report = qe_report[:320] + hashlib.sha256(key + auth).digest() + bytes(32)
    qe_signature = sign_raw(world.VENDOR.pck().key, qe_report)
    unsigned = join([header, body, bytes(64), key, qe_report, qe_signature, auth, kind, chain])
    try:
        signature = sign_raw(world.VENDOR.attestation_key, parse_quote(unsigned).signed)
    except EvidenceError:
        return None
    return join([header, body, signature, key, qe_report, qe_signature, auth, kind, chain])


def _verify(quote: bytes) -> Verdict:
    # As a server chooses it: by what the quote says of itself.
    papers = world.collateral("tdx" if quote[4:8] == b"\x81\0\0\0" else "sgx")
    return verify_quote(quote, papers, at=world.NOW, root=world.ROOT)


def _said(verdict: Verdict) -> tuple[object, ...]:
    return tuple(getattr(verdict, name) for name in _SAID)


@functools.cache
def _signed() -> dict[str, bytes]:
    return {
        "good": world.quote(),
        "good-other-data": world.quote(b"\xff" * 64),
        "good-tdx-4": world.td_quote(584),
        "good-tdx-5": world.td_quote(648),
    }


@functools.cache
def _said_by_signed() -> list[tuple[object, ...]]:
    return [_said(_verify(quote)) for quote in _signed().values()]


def seeds() -> dict[str, bytes]:
    """Sound quotes, some that are sound in a way of their own, and some that are signed and unsound."""
    *parts, chain = split(world.quote()) or []
    given = {
        "good-crlf": join([*parts, chain.replace(b"\n", b"\r\n")]),
        "no-auth-data": world.quote(recipe=QuoteRecipe(qe_auth_data=b"")),
        "short-chain": world.quote(recipe=QuoteRecipe(pck_chain=(world.VENDOR.pck(), world.VENDOR.root))),
        "unbound": world.quote(recipe=QuoteRecipe(qe_report_data=bytes(64))),
    }
    made = {name: b"\x00" + quote for name, quote in (_signed() | given).items()}
    return made | {
        "good-here": b"\x01" + world.quote(),
        "good-here-tdx": b"\x01" + world.td_quote(648),
        "here-debug": b"\x01" + join([parts[0], world.report(flags=7).to_bytes(), *parts[2:], chain]),
    }


def _mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    return data[:1] + _by_parts(data[1:], rng, havoc)


_by_parts = by_parts(split, join)


TARGET = Target(
    "verdict",
    check,
    seeds,
    _mutate,
    words=(b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"),
)
