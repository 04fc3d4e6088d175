"""A lifecycle without threads, with a clock of its own, so that nothing is waited for; and one with threads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensconce.serving.lifecycle import Lifecycle
from ensconce.serving.loading import LoadOptions
from ensconce.serving.manager import ModelManager, State


class World:
    """A manager and a lifecycle without a thread."""

    def __init__(self, loading: Any, options: LoadOptions | None = None) -> None:
        self.now = 1000.0
        self.loading = loading
        self.manager = ModelManager()
        self.lifecycle = Lifecycle(self.manager, loading, options, clock=lambda: self.now)

    def want(self, name: str, *versions: int) -> None:
        self.lifecycle.want(name, {version: Path("/models", name, str(version)) for version in versions})
        self.lifecycle.settle()

    def states(self, name: str = "m") -> dict[int, State]:
        return {status.version: status.state for status in self.manager.status(name)}

    def failures(self, *names: str) -> list[tuple[str, int, str]] | None:
        found = self.lifecycle.failures(names)
        return None if found is None else [(name, status.version, status.text) for name, status in found]


@pytest.fixture(scope="session")
def make_world() -> type[World]:
    return World


@pytest.fixture
def world(loading: Any) -> World:
    return World(loading)


@pytest.fixture
def running(loading: Any, wait_for: Callable[[Callable[[], object], str], None]) -> Any:
    made: list[Lifecycle] = []

    def make(options: LoadOptions, **more: Any) -> tuple[ModelManager, Lifecycle]:
        manager = ModelManager()
        lifecycle = Lifecycle(manager, loading, options, **more)
        lifecycle.start()
        made.append(lifecycle)
        return manager, lifecycle

    yield make
    for held in loading.held.values():
        held.set()
    for lifecycle in made:
        lifecycle.close()
