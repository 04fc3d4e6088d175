"""The whole verification of a quote, as a stranger meets it: nobody without the keys makes a new verdict.

Every byte of the quote is the stranger's, the collateral is sound. So whatever is accepted must say exactly what a
quote that was really signed says: its report, its platform, its status.
"""

from __future__ import annotations

import functools

from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.verdict import Verdict
from ensconce.errors import EvidenceError
from ensconce.platform.simulated.quoting import QuoteRecipe
from fuzz import world
from fuzz.mutation import by_parts
from fuzz.target import Refused, Target, attempt, holds
from fuzz.targets.quote import join, split

__all__ = ["TARGET", "check"]

_SAID = ("tee", "root", "status", "advisory_ids", "report", "fmspc", "pce_id", "ppid", "valid_until")


def check(data: bytes) -> bool:
    """Verify a quote; see the module."""
    verdict = attempt(lambda: _verify(data), EvidenceError)
    if isinstance(verdict, Refused):
        return False
    holds(_said(verdict) in _said_by_signed(), "a verdict that nobody signed")
    return True


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
    return {
        **_signed(),
        "good-crlf": join([*parts, chain.replace(b"\n", b"\r\n")]),
        "no-auth-data": world.quote(recipe=QuoteRecipe(qe_auth_data=b"")),
        "processor": world.quote(recipe=QuoteRecipe(ca="processor")),
        "short-chain": world.quote(recipe=QuoteRecipe(pck_chain=(world.VENDOR.pck(), world.VENDOR.root))),
        "unbound": world.quote(recipe=QuoteRecipe(qe_report_data=bytes(64))),
    }


TARGET = Target(
    "verdict",
    check,
    seeds,
    by_parts(split, join),
    words=(b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"),
)
