"""Collateral as a hostile PCCS or host gives it: strictly read, the same after a round trip, and unable to flatter.

Everything in collateral is signed. So however it is bent, it either is refused or says what the vendor said in one of
the seeds, alone (vetting, before it is kept) and of a sound quote.
"""

from __future__ import annotations

import functools
import json

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.verdict import Verdict
from ensconce.appraisal.vetting import Vetted, vet
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
    "good-revoked-level": CollateralRecipe(tcb_status="Revoked"),
    "good-revoked-machine": CollateralRecipe(pck_crl=CrlRecipe(revoked=[world.VENDOR.pck().serial])),
    "good-expired": CollateralRecipe(tcb_info=DocumentRecipe(issued=-7200, next_update=-3600)),
}


def check(data: bytes) -> bool:
    """Read collateral and verify a sound quote with it; see the module."""
    collateral = attempt(lambda: Collateral.from_json(data), InputError)
    if isinstance(collateral, Refused):
        return False
    holds(Collateral.from_json(collateral.to_json().encode()) == collateral, "a round trip changes it")
    vetted = attempt(lambda: vet(collateral, [world.ROOT.name]), EvidenceError)
    if not isinstance(vetted, Refused):
        genuine = [(each.papers.tcb_info, each.papers.qe_identity, each.lists) for each in _genuine()]
        for at, said in enumerate((vetted.papers.tcb_info, vetted.papers.qe_identity, vetted.lists)):
            holds(said in [each[at] for each in genuine], "vetted, and the vendor never said so")
    verdict = attempt(lambda: _verify(collateral), EvidenceError)
    if isinstance(verdict, Refused):
        return not isinstance(vetted, Refused)
    holds(not isinstance(vetted, Refused), "a verdict by collateral that is not genuine")
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
def _genuine() -> list[Vetted]:
    """All that the vendor said."""
    said = [world.VENDOR.collateral(world.NOW, recipe) for recipe in _SIGNED.values()]
    return [vet(each, [world.ROOT.name]) for each in said]


@functools.cache
def _rightful() -> list[Verdict]:
    """What the vendor's statements say of the quote, where they do not refuse it."""
    said = [world.VENDOR.collateral(world.NOW, recipe) for recipe in _SIGNED.values()]
    verdicts = [attempt(lambda: _verify(each), EvidenceError) for each in said]  # noqa: B023  # called at once
    return [verdict for verdict in verdicts if not isinstance(verdict, Refused)]


def seeds() -> dict[str, bytes]:
    """The vendor's statements in several conditions."""
    return {
        name: json.dumps(json.loads(world.VENDOR.collateral(world.NOW, recipe).to_json())).encode()
        for name, recipe in _SIGNED.items()
    }


TARGET = Target(
    "collateral", check, seeds, by_tree(json.loads, lambda tree: json.dumps(tree).encode()), max_size=32 * 1024
)
