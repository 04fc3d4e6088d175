"""Everything that is measured, round by round, and what a simulation needs of it."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.scaling import gateway, replicas, sessions, steps

__all__ = ["Amounts", "facts", "measure", "together"]


@dataclass(frozen=True)
class Amounts:
    """How much is measured in a round.

    Attributes:
        sessions: one by one.
        at_once: levels of concurrent clients.
        seconds: of each level.
        steps: calls of each step, and of each batch of the log.
        inferences: of each number of rows.
        starts: of a replica.
        predictions: through the gateway.
        entries: of a log that is opened.
    """

    sessions: int = 150
    at_once: tuple[int, ...] = (1, 2, 4, 8, 16)
    seconds: float = 3.0
    steps: int = 40
    inferences: int = 10
    starts: int = 3
    predictions: int = 60
    entries: int = 6400


def facts(network: str) -> dict[str, Any]:
    """On what machine, and when."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {
        "processor": next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?"),
        "processors": len(os.sched_getaffinity(0)),
        "nice": os.nice(0),
        "network": network,
        "when": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "versions": {
            "Python": sys.version.split()[0],
            **{name: importlib.metadata.version(name) for name in ("ensconce", "openvino")},
        },
    }


def measure(work: Path, model: Path, amounts: Amounts, tell: Callable[[str], None]) -> dict[str, Any]:
    """One round of everything, in ``work``, which is empty; ``model`` is made if need be. What is found is JSON."""
    if not model.exists():
        steps.make_model(model)
    found: dict[str, Any] = {"load": os.getloadavg()[0]}

    def part(name: str, value: Callable[[], Any]) -> None:
        began = time.monotonic()
        found[name] = value()
        tell(f"{name}: {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}")

    part("sessions", lambda: sessions.one_by_one(amounts.sessions))
    part("at_once", lambda: sessions.at_once(list(amounts.at_once), amounts.seconds))
    part("steps", lambda: steps.release_steps(work, amounts.steps))
    part("log", lambda: steps.log_by_batch(work, amounts.steps))
    part("log_opened", lambda: steps.log_opened(work, amounts.entries))
    part("gateway", lambda: gateway.measure(work, 3))
    part("inference", lambda: steps.inferences(model, amounts.inferences))
    part("replica", lambda: replicas.measure(work / "deployment", model, amounts.starts, amounts.predictions))
    return found


def together(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All rounds' values as if they were of one: lists joined, of single values the list."""

    def join(values: Sequence[Any]) -> Any:
        first = values[0]
        if isinstance(first, Mapping):
            return {name: join([each[name] for each in values]) for name in first}
        if isinstance(first, list):
            return [item for each in values for item in each]
        return list(values)

    joined: dict[str, Any] = join(rounds)
    return joined
