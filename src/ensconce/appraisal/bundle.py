"""A bundle: the collateral for several kinds of platform in one file, to be carried to where there is no network."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from ensconce import strict_json
from ensconce.appraisal.chains import certificates_in
from ensconce.appraisal.collateral import Collateral, PlatformKind
from ensconce.appraisal.pck import pck_ca
from ensconce.appraisal.vetting import tee_of
from ensconce.errors import EvidenceError, InputError, UnreachableError
from ensconce.evidence.quote import parse_quote

__all__ = ["MAX_BUNDLE_SIZE", "CollateralBundle"]

MAX_BUNDLE_SIZE = 16 * 1024 * 1024
"""Longest bundle file that is read, in bytes."""

_MAX_ENTRIES = 256


@dataclass(frozen=True, slots=True)
class CollateralBundle:
    """Collateral by kind of platform; nothing in it is verified.

    Attributes:
        entries: each is for the kind of platform that its own documents name.
    """

    entries: tuple[Collateral, ...]

    @classmethod
    def of(cls, collateral: Iterable[Collateral]) -> CollateralBundle:
        """A bundle; of two for the same kind of platform, the last.

        Raises:
            InputError: ``collateral.entry``: the documents of one do not say what it is for.
        """
        return cls(tuple({_platform_of(each): each for each in collateral}.values()))

    @classmethod
    def from_json(cls, data: bytes) -> CollateralBundle:
        """Read a bundle, or the collateral for one kind of platform as dcap-qvl writes it.

        Raises:
            InputError: it is neither; an entry is there twice; or too long.
        """
        if len(data) > MAX_BUNDLE_SIZE:
            raise _malformed("it is too long", f"{len(data)} bytes")
        try:
            value = strict_json.loads(data)
        except ValueError as error:
            raise _malformed("it is not JSON", str(error)[:200]) from error
        if not isinstance(value, dict) or "collateral" not in value:
            return cls((Collateral.from_object(value),))
        if set(value) != {"version", "collateral"} or type(value["version"]) is not int or value["version"] != 1:
            raise _malformed("its members are others, or its version is", ", ".join(sorted(value))[:200])
        entries = value["collateral"]
        if not isinstance(entries, list) or not 0 < len(entries) <= _MAX_ENTRIES:
            raise _malformed("it has no entries, or too many", type(entries).__name__)
        collateral = tuple(Collateral.from_object(each) for each in entries)
        if len({_platform_of(each) for each in collateral}) != len(collateral):
            raise _malformed("two of its entries are for the same kind of platform", f"{len(collateral)} entries")
        return cls(collateral)

    def to_json(self) -> str:
        """The inverse of :meth:`from_json`."""
        return json.dumps({"version": 1, "collateral": [each.to_object() for each in self.entries]}, indent=2) + "\n"

    @property
    def platforms(self) -> tuple[PlatformKind, ...]:
        """What the entries say that they are for, in their order."""
        return tuple(map(_platform_of, self.entries))

    def get(self, platform: PlatformKind) -> Collateral:
        """The entry for one kind of platform.

        Raises:
            UnreachableError: ``collateral.missing``: there is none.
        """
        for each, found in zip(self.entries, self.platforms, strict=True):
            if found == platform:
                return each
        raise UnreachableError(
            "collateral.missing",
            "the bundle has no collateral for this kind of platform",
            found=", ".join(map(str, self.platforms))[:300],
            rule=str(platform),
            remedy="make a bundle with a quote of this machine: `ensconce collateral bundle QUOTE... -o FILE`",
        )

    def get_for(self, quote: bytes) -> Collateral:
        """The entry for the platform that a quote says it is of; a lone one serves for every quote.

        A lone one that does not fit is refused by verification, which says better what does not fit.

        Raises:
            EvidenceError: the quote does not say.
            UnreachableError: as :meth:`get`.
        """
        return self.entries[0] if len(self.entries) == 1 else self.get(PlatformKind.of(parse_quote(quote)))


def _platform_of(collateral: Collateral) -> PlatformKind:
    """What collateral says it is for."""
    try:
        authority = certificates_in(collateral.pck_crl_issuer_chain.encode(errors="replace"), "pck_crl.chain")[0]
        document = strict_json.loads(collateral.tcb_info.encode())
        fmspc = document.get("fmspc") if isinstance(document, dict) else None
        if not isinstance(fmspc, str):
            raise ValueError("TCB info without FMSPC")
        return PlatformKind(tee_of(collateral.tcb_info), fmspc, pck_ca(authority))
    except (EvidenceError, InputError, ValueError) as error:
        raise InputError(
            "collateral.entry",
            "an entry does not say which kind of platform it is for",
            found=str(error)[:200],
            rule="TCB info with id and fmspc, and an issuer chain of its PCK revocation list",
            remedy="make the bundle anew",
        ) from error


def _malformed(problem: str, found: str) -> InputError:
    return InputError(
        "collateral.format",
        f"the bundle cannot be read: {problem}",
        found=found,
        rule='{"version": 1, "collateral": [...]}, with one entry for each kind of platform, or one such entry alone',
        remedy="make it anew with `ensconce collateral bundle`",
    )
