"""Windows of time: when certificates, revocation lists and documents are good."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import NamedTuple

from cryptography import x509

from ensconce.appraisal.chains import common_name
from ensconce.errors import EvidenceError

__all__ = ["Window", "certificate_windows", "check_windows", "seconds"]


class Window(NamedTuple):
    """When something is valid, in seconds since 1970.

    Half open: what ends at second n is no longer good in that second.
    """

    begin: int
    end: int
    check: str
    what: str


def certificate_windows(chain: tuple[x509.Certificate, ...], check: str) -> tuple[Window, ...]:
    """When the certificates of a chain are valid; ``check`` names the chain."""
    return tuple(
        Window(
            seconds(certificate.not_valid_before_utc),
            seconds(certificate.not_valid_after_utc),
            check,
            f"certificate {common_name(certificate)!r}",
        )
        for certificate in chain
    )


def check_windows(windows: Iterable[Window], at: int) -> int:
    """Check that everything is valid at that time, seconds since 1970; the earliest end of all.

    Raises:
        EvidenceError: ``.not_yet_valid`` or ``.expired`` of the first that is not.
    """
    earliest: int | None = None
    for begin, end, check, what in windows:
        if at < begin:
            raise EvidenceError(
                f"{check}.not_yet_valid",
                f"the {what} is from the future",
                found=f"valid from {begin}",
                rule=f"valid at {at}",
                remedy="check this machine's clock, or the time that was given",
            )
        if at >= end:
            raise EvidenceError(
                f"{check}.expired",
                f"the {what} has expired",
                found=f"valid until {end}",
                rule=f"valid at {at}",
                remedy="fetch newer collateral; if that is as old, check this machine's clock and the PCCS",
            )
        earliest = end if earliest is None or end < earliest else earliest
    assert earliest is not None  # what is checked always has windows
    return earliest


def seconds(when: datetime.datetime | None) -> int:
    """A moment in seconds since 1970."""
    assert when is not None  # revocation lists without an end were refused when they were read
    return int(when.timestamp())
