"""When the cache asks its origin again, and what serves meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensconce.appraisal.cache import CollateralCache
from ensconce.appraisal.collateral import PlatformKind
from ensconce.errors import UnreachableError
from ensconce.platform.simulated.collateral import CollateralRecipe, CrlRecipe, DocumentRecipe
from ensconce.platform.simulated.pki import SimulatedVendor

START = 1_790_000_000
HOUR, DAY = 3600, 86_400
FMSPC = SimulatedVendor.FMSPC.hex().upper()
KIND = PlatformKind("sgx", FMSPC, "platform")
Fetched = Callable[[CollateralCache, int], None]
Open = Callable[[], CollateralCache]


def test_once_is_enough_for_a_day_and_nobody_waits_for_the_next(
    shelf: Any, cache: CollateralCache, open_cache: Open, fetched: Fetched
) -> None:
    first = cache.get(KIND)
    shelf.now += DAY - 1
    assert cache.get(PlatformKind("sgx", FMSPC.lower(), "platform")) == first
    assert open_cache().get(KIND) == first
    assert len(shelf.asked) == 1
    shelf.now += 1
    shelf.hold = threading.Event()
    for _ in range(3):
        assert cache.get(KIND) == first
    shelf.hold.set()
    fetched(cache, 2)
    assert cache.get(KIND) != first
    assert len(shelf.asked) == 2


@pytest.mark.parametrize("part", ["tcb_info", "qe_identity", "root_crl", "pck_crl"])
def test_the_last_fifth_of_life_is_for_fetching(
    shelf: Any, cache: CollateralCache, part: str, fetched: Fetched
) -> None:
    kind = CrlRecipe if part.endswith("crl") else DocumentRecipe
    shelf.recipe = CollateralRecipe(**{part: kind(issued=0, next_update=10 * HOUR)})  # type: ignore[arg-type]
    cache.get(KIND)
    shelf.now += 8 * HOUR - 1
    cache.get(KIND)
    assert len(shelf.asked) == 1
    shelf.now += 1
    cache.get(KIND)
    fetched(cache, 2)


def test_a_server_keeps_fresh_what_nobody_asks_for(shelf: Any, cache: CollateralCache, fetched: Fetched) -> None:
    first = cache.get(KIND)
    cache.refresh()
    assert len(shelf.asked) == 1
    shelf.now += DAY
    cache.refresh()
    fetched(cache, 2)
    shelf.down = True
    assert cache.get(KIND) != first


def test_collateral_that_did_not_hold_is_fetched_again_after_a_minute(
    shelf: Any, cache: CollateralCache, open_cache: Open, quote: Callable[..., bytes]
) -> None:
    """Whoever spoke for the PCCS once does not stop verification for a day, not even by way of the store."""
    first = cache.get_for(quote())
    cache.doubt(quote())
    assert cache.get_for(quote()) == first
    assert len(shelf.asked) == 1
    other = open_cache()
    assert other.get_for(quote()) == first
    other.doubt(quote())
    shelf.now += 60
    second = cache.get_for(quote())
    assert second != first
    assert other.get_for(quote()) == second
    shelf.now += 60
    assert cache.get_for(quote()) == second
    assert len(shelf.asked) == 2


def test_an_outage_is_bridged_until_expiry(
    shelf: Any, cache: CollateralCache, open_cache: Open, fetched: Fetched
) -> None:
    first = cache.get(KIND)
    shelf.down = True
    shelf.now = START + 30 * DAY - 1
    assert cache.get(KIND) == first
    fetched(cache, 2)
    assert cache.get(KIND) == first
    assert len(shelf.asked) == 2  # not for every appraisal
    other = open_cache()
    assert other.get(KIND) == first
    fetched(other, 3)
    shelf.now = START + 30 * DAY
    for one in (cache, open_cache()):
        with pytest.raises(UnreachableError) as caught:
            one.get(KIND)
        assert caught.value.check == "collateral.expired"
        assert caught.value.remedy
        assert shelf.name in str(caught.value)
    shelf.down = False
    shelf.now += 60
    assert cache.get(KIND) != first


def test_with_nothing_cached_the_origins_own_error_is_told(shelf: Any, cache: CollateralCache, folder: Path) -> None:
    shelf.down = True
    for _ in range(2):
        with pytest.raises(UnreachableError) as caught:
            cache.get(KIND)
        assert caught.value.check == "pccs.connect"
    assert len(shelf.asked) == 1
    assert not folder.exists()
    shelf.down = False
    shelf.now += 60
    cache.get(KIND)


def test_what_has_expired_already_is_not_kept(shelf: Any, cache: CollateralCache) -> None:
    shelf.recipe = CollateralRecipe(tcb_info=DocumentRecipe(issued=-9 * DAY, next_update=0))
    with pytest.raises(UnreachableError) as caught:
        cache.get(KIND)
    assert caught.value.check == "collateral.expired"


def test_a_clock_that_goes_back_fetches_anew(shelf: Any, cache: CollateralCache, fetched: Fetched) -> None:
    cache.get(KIND)
    shelf.now -= 10 * DAY
    cache.get(KIND)
    fetched(cache, 2)
