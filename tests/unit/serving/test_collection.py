from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from ensconce.serving.collection import set_aside


@pytest.fixture
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


class Ring:
    def __init__(self) -> None:
        self.own = self


@pytest.mark.usefixtures("collector")
def test_what_is_here_is_left_alone_and_what_comes_is_collected() -> None:
    old = Ring()
    here = len(gc.get_objects())
    set_aside()
    assert len(gc.get_objects()) < here // 10
    assert gc.get_threshold()[0] == 20_000
    new = Ring()
    gone, stays = weakref.ref(new), weakref.ref(old)
    del new, old
    gc.collect()
    assert gone() is None
    assert stays() is not None
