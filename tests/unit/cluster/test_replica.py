"""What a replica has told last, as whoever watches it reads it."""

from __future__ import annotations

import json

import pytest

from ensconce.cluster.replica import unanswered_in

UNANSWERED = {"time": 1.5, "event": "unanswered", "check": "provisioning.unreachable", "problem": "no", "again_in": 0.7}
STARTED = {"time": 1.0, "event": "started"}


def told(*events: object) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def test_silence_that_was_told_last_is_why_it_does_not_serve() -> None:
    # Gramine's console is not ours alone, and the end of a log may begin within a line, or within a character.
    found = unanswered_in(b"\x80w\n" + told(STARTED, UNANSWERED) + b"[P1:T1] debug\n" + told({"error": {}}, ["event"]))
    assert found is not None
    assert (found.check, found.problem, found.exit_status) == ("provisioning.unreachable", "no", 5)


@pytest.mark.parametrize("tail", [b"", b"\n", told(STARTED), told(UNANSWERED, STARTED), told(UNANSWERED)[:-20], b"7\n"])
def test_anything_else_is_not(tail: bytes) -> None:
    assert unanswered_in(tail) is None
