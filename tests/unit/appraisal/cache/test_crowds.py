"""One cache and many threads, or several caches and one store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from ensconce.appraisal.cache import CollateralCache
from ensconce.appraisal.collateral import PlatformKind
from ensconce.errors import UnreachableError
from ensconce.platform.simulated.pki import SimulatedVendor

DAY = 86_400
FMSPC = SimulatedVendor.FMSPC.hex().upper()
KIND = PlatformKind("sgx", FMSPC, "platform")
Wait = Callable[[Callable[[], object], str], None]
Fetched = Callable[[CollateralCache, int], None]
Open = Callable[[], CollateralCache]


def test_another_process_may_have_been_faster(
    shelf: Any, cache: CollateralCache, open_cache: Open, wait_for: Wait, fetched: Fetched
) -> None:
    first = cache.get(KIND)
    shelf.now += DAY
    other = open_cache()
    assert other.get(KIND) == first
    fetched(other, 2)
    newer = other.get(KIND)
    assert newer != first
    cache.get(KIND)
    wait_for(lambda: cache.get(KIND) == newer, "what the other fetched")
    assert len(shelf.asked) == 2


def test_many_threads_fetch_once(shelf: Any, cache: CollateralCache) -> None:
    shelf.hold = threading.Event()
    threads = [threading.Thread(target=cache.get, args=(KIND,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    shelf.hold.set()
    for thread in threads:
        thread.join(30)
    assert len(shelf.asked) == 1


def test_one_slow_answer_does_not_hold_up_the_others(shelf: Any, cache: CollateralCache, wait_for: Wait) -> None:
    tdx = PlatformKind("tdx", FMSPC, "platform")
    hold = shelf.hold = threading.Event()
    slow = threading.Thread(target=cache.get, args=(tdx,))
    slow.start()
    try:
        wait_for(lambda: shelf.asked, "the first to be asked for")
        shelf.hold = None
        cache.get(KIND)
        assert slow.is_alive()
    finally:
        hold.set()
        slow.join(30)


def test_strangers_cannot_make_it_ask_without_end(shelf: Any, cache: CollateralCache, wait_for: Wait) -> None:
    shelf.hold = threading.Event()
    shelf.down = True
    kinds = [PlatformKind("sgx", f"{number:012X}", "platform") for number in range(16)]

    def ask(kind: PlatformKind) -> None:
        with pytest.raises(UnreachableError):
            cache.get(kind)

    threads = [threading.Thread(target=ask, args=(kind,)) for kind in kinds]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(shelf.asked) == 16, "all to be asked for")
        with pytest.raises(UnreachableError) as caught:
            cache.get(KIND)
        assert caught.value.check == "collateral.missing"
    finally:
        shelf.hold.set()
        for thread in threads:
            thread.join(30)
