"""What a recorded verification says that it compared: all of it, for SGX and TDX, and without changing the verdict."""

from __future__ import annotations

from typing import Any

import pytest

from ensconce.errors import EvidenceError
from ensconce.trail import recorded


def test_every_step_and_end_of_a_sound_quote(world: Any) -> None:
    with recorded() as trail:
        verdict = world.verify()
    assert [(each.name, each.state) for each in trail.steps] == [
        (name, "passed") for name in ("root", "documents", "quote", "tcb")
    ]
    held = [each for step in trail.steps for each in step.held]
    assert min(each.end for each in held if each.end is not None) == verdict.valid_until
    # Two documents, two lists; of certificates leaf, authority, signer and root, each once.
    assert len([each for each in held if each.end is not None]) == 8
    found = {each.check: each for each in held}
    assert found["quote.qe_identity"].found.startswith("MRSIGNER ")
    assert found["pck_chain.root"].found == world.vendor.root_name.removeprefix("simulated:")
    assert found["tcb.status"].found == "UpToDate"


def test_recording_changes_nothing(world: Any) -> None:
    with recorded():
        verdict = world.verify()
    assert verdict == world.verify()


def test_nothing_is_said_of_signatures_that_did_not_hold(world: Any) -> None:
    quote = bytearray(world.quote())
    quote[48 + 40] ^= 1  # in the report's body, which the attestation key signed
    with recorded() as trail, pytest.raises(EvidenceError):
        world.verify(bytes(quote))
    names = {each.name: each for each in trail.steps}
    assert "tcb" not in names
    assert trail.steps[-1].state == "failed"
    assert names.get("quote") is None or names["quote"].held == []
