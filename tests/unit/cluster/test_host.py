"""How long the host's commands wait for replicas, and what ends their patience."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ensconce.cluster import host
from ensconce.errors import EnsconceError, RefusedError, UnreachableError

Says = Callable[[float], dict[str, Any]]


def replica(state: str, check: str = "", exit_status: int | None = None) -> dict[str, Any]:
    error = {"check": check, "problem": "it says no"} if check else None
    return {"name": "replica-1", "state": state, "error": error, "exit_status": exit_status, "restarts": 0}


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> Callable[[Says], float]:
    """Waits for one replica, which is at each second as told; gives the second at which the wait ended."""

    def wait(says: Says) -> float:
        now = 0.0

        def sleep(seconds: float) -> None:
            nonlocal now
            now += seconds

        def ask(_: Path, __: object) -> dict[str, Any]:
            return {"wanted": 1, "rolling": False, "replicas": [says(now)]}

        monkeypatch.setattr(host, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
        monkeypatch.setattr(host.control, "ask", ask)
        try:
            host.scale(Path("host"), 1, lambda _: None)
        except EnsconceError as error:
            error.add_note(f"{now:.1f}")
            raise
        return now

    return wait


UNANSWERED = replica("starting", "provisioning.unreachable", 5)


def test_an_owner_that_comes_soon_is_waited_for(scale: Callable[[Says], float]) -> None:
    assert 3 <= scale(lambda now: UNANSWERED if now < 3 else replica("ready")) < 3.2


@pytest.mark.parametrize("state", ["starting", "failed"])
def test_an_owner_that_is_away_is_named(scale: Callable[[Says], float], state: str) -> None:
    with pytest.raises(UnreachableError, match=r"replica-1: it says no.*provisioning\.unreachable") as caught:
        scale(lambda now: {**UNANSWERED, "state": state} if now > 10 else replica("starting"))
    assert 15 <= float(caught.value.__notes__[0]) < 15.5


def test_any_other_reason_is_the_same_the_next_time(scale: Callable[[Says], float]) -> None:
    with pytest.raises(RefusedError) as caught:
        scale(lambda _: replica("failed", "policy.mr_enclave", 4))
    assert caught.value.__notes__ == ["0.0"]
