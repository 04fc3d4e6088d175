"""Collateral as a hostile PCCS or host gives it: strictly read, the same after a round trip, and unable to flatter.

Everything in collateral is signed. So however it is bent, a sound quote either is refused or gets a verdict that the
vendor's own statements, those in the seeds, give it.
"""

from __future__ import annotations

import functools
import json

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.verdict import Verdict
from ensconce.errors import EvidenceError, InputError
from ensconce.platform.simulated.collateral import CollateralRecipe, CrlRecipe, DocumentRecipe
from fuzz import world
from fuzz.mutation import by_tree
from fuzz.target import Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]

_SAID = ("tee", "root", "report", "fmspc", "ppid")
_SIGNED = {
    "good": CollateralRecipe(),
    "good-hardening": CollateralRecipe(tcb_status="SWHardeningNeeded", advisory_ids=["SIMULATED-SA-00001"]),
    "good-old-qe": CollateralRecipe(qe_status="OutOfDate"),
    "revoked-level": CollateralRecipe(tcb_status="Revoked"),
    "revoked-machine": CollateralRecipe(pck_crl=CrlRecipe(revoked=[world.VENDOR.pck().serial])),
    "expired": CollateralRecipe(tcb_info=DocumentRecipe(issued=-7200, next_update=-3600)),
}


def check(data: bytes) -> bool:
    """Read collateral and verify a sound quote with it; see the module."""
    collateral = attempt(lambda: Collateral.from_json(data), InputError)
    if isinstance(collateral, Refused):
        return False
    holds(Collateral.from_json(collateral.to_json().encode()) == collateral, "a round trip changes it")
    verdict = attempt(lambda: _verify(collateral), EvidenceError)
    if isinstance(verdict, Refused):
        return False
    rightful = _rightful()
    holds(
        (verdict.status, verdict.advisory_ids) in [(v.status, v.advisory_ids) for v in rightful], "nobody signed that"
    )
    holds(all(getattr(verdict, name) == getattr(rightful[0], name) for name in _SAID), "another machine or enclave")
    holds(world.NOW < verdict.valid_until <= rightful[0].valid_until, "valid for longer than the vendor said")
    return True


def _verify(collateral: Collateral) -> Verdict:
    return verify_quote(_quote(), collateral, at=world.NOW, root=world.ROOT)


@functools.cache
def _quote() -> bytes:
    return world.quote()


@functools.cache
def _rightful() -> list[Verdict]:
    """What the seeds that are accepted say of the quote."""
    recipes = [recipe for name, recipe in _SIGNED.items() if name.startswith("good")]
    return [_verify(world.VENDOR.collateral(world.NOW, recipe)) for recipe in recipes]


def seeds() -> dict[str, bytes]:
    """The vendor's statements in several conditions."""
    return {
        name: json.dumps(json.loads(world.VENDOR.collateral(world.NOW, recipe).to_json())).encode()
        for name, recipe in _SIGNED.items()
    }


TARGET = Target(
    "collateral", check, seeds, by_tree(json.loads, lambda tree: json.dumps(tree).encode()), max_size=32 * 1024
)
