"""A cache over the simulated vendor's documents; origin and time are the tests', stores are folders."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ensconce.appraisal.cache import CollateralCache
from ensconce.appraisal.collateral import Collateral, PlatformKind
from ensconce.errors import UnreachableError
from ensconce.platform.simulated.collateral import CollateralRecipe
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.state.folder import FolderStore

START = 1_790_000_000
DAY = 86_400
Wait = Callable[[Callable[[], object], str], None]


@dataclass
class Shelf:
    """An origin whose collateral, clock and health a test decides."""

    vendor: SimulatedVendor
    now: int = START
    down: bool = False
    recipe: CollateralRecipe = field(default_factory=CollateralRecipe)
    change: Callable[[Collateral], Collateral] = lambda collateral: collateral
    asked: list[PlatformKind] = field(default_factory=list)
    hold: threading.Event | None = None
    name: str = "https://pccs.test"
    refresh_s: int = DAY

    def clock(self) -> int:
        return self.now

    def fetch(self, platform: PlatformKind) -> Collateral:
        hold = self.hold  # as it is now: whoever sees that this was asked may let the next ones pass
        self.asked.append(platform)
        if hold:
            assert hold.wait(30)
        if self.down:
            raise UnreachableError("pccs.connect", "nobody there")
        return self.change(self.vendor.collateral(self.now, self.recipe.of_tee(platform.tee).of_ca(platform.ca)))


@pytest.fixture
def shelf(vendor: SimulatedVendor) -> Shelf:
    return Shelf(vendor)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def open_cache(shelf: Shelf, folder: Path) -> Callable[[], CollateralCache]:
    """What a new process, or another server of the deployment, has."""
    return lambda: CollateralCache(FolderStore(folder), shelf, shelf.clock, roots=(shelf.vendor.root_name,))


@pytest.fixture
def cache(open_cache: Callable[[], CollateralCache]) -> CollateralCache:
    return open_cache()


@pytest.fixture
def fetched(shelf: Shelf, wait_for: Wait) -> Callable[[CollateralCache, int], None]:
    """Waits until the origin was asked so often, and what it said has been dealt with."""

    def wait(cache: CollateralCache, times: int) -> None:
        wait_for(lambda: len(shelf.asked) == times and not cache._fetches, f"fetch {times}")

    return wait
