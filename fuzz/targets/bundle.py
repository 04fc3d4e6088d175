"""Bundles of collateral: strictly read, each entry for a kind of platform of its own, the same after a round trip."""

from __future__ import annotations

import json

from ensconce.appraisal.bundle import CollateralBundle
from ensconce.appraisal.collateral import Collateral
from ensconce.errors import InputError, UnreachableError
from fuzz import world
from fuzz.mutation import by_tree
from fuzz.target import Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]


def check(data: bytes) -> bool:
    """Read a bundle and ask it for collateral."""
    bundle = attempt(lambda: CollateralBundle.from_json(data), InputError)
    if isinstance(bundle, Refused):
        return False
    value = json.loads(data)
    count = len(value["collateral"]) if "collateral" in value else 1
    holds(len(bundle.entries) == count, "another number of entries to another reader")
    platforms = attempt(lambda: bundle.platforms, InputError)
    if isinstance(platforms, Refused):
        holds(count == 1, "a bundle of several whose entries are for nothing")
        return True
    holds(CollateralBundle.from_json(bundle.to_json().encode()) == bundle, "a round trip changes it")
    holds(len(set(platforms)) == len(platforms), "two entries for one kind of platform")
    for platform, entry in zip(platforms, bundle.entries, strict=True):
        holds(bundle.get(platform) == entry, "another entry than the one that is for this platform")
        holds(json.loads(entry.tcb_info)["fmspc"].upper() == platform.fmspc, "for another platform")
    attempt(lambda: bundle.get_for(world.quote()), UnreachableError, InputError)
    return True


def seeds() -> dict[str, bytes]:
    """A bundle of two, and a lone entry; only their chains are more than hints of what they would be."""
    chain = world.VENDOR.pck_ca("platform").pem

    def entry(fmspc: str) -> Collateral:
        info = json.dumps({"id": "SGX", "fmspc": fmspc})
        return Collateral(chain, b"\x30\x00", b"\x30\x00", "", info, b"\x01", "", "{}", b"\x02")

    both = CollateralBundle((entry("00906ED50000"), entry("b0c06f000000")))
    return {
        "good-two": json.dumps(json.loads(both.to_json())).encode(),
        "good-lone": json.dumps(both.entries[0].to_object()).encode(),
        "none": b'{"version": 1, "collateral": []}',
    }


TARGET = Target("bundle", check, seeds, by_tree(json.loads, lambda tree: json.dumps(tree).encode()), max_size=8192)
