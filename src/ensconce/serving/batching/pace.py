"""What the scheduler learns of a signature while it serves: whether rows may be merged, and how many at once pay."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from statistics import median
from typing import Any, Final

import numpy as np

from ensconce.serving.batching.mates import batches
from ensconce.serving.engines import Servable
from ensconce.tfserving.dtypes import STRING
from ensconce.tfserving.signatures import Signature
from ensconce.tfserving.tensor import Array

__all__ = ["MOST_ROWS", "Pace", "Paces", "agree"]

MOST_ROWS: Final = 32
"""Most rows that are merged unless parameters say otherwise: beyond, latency grows and throughput does not."""

_TOLERANCE: Final = 0.02
_TRIES: Final = 3
# A size must cost so much less per row than a smaller one to be worth the wait.
_GAIN: Final = 0.9
_JUDGED_EVERY: Final = 8
_FORGET_AFTER: Final = 512
# Of a size the median of the last measurements counts, once there are enough.
_KEPT: Final = 5
_ENOUGH: Final = 3
# Waking a thread, and the loop again, costs 50 to 100 us where cores fall asleep in between.
_QUICK_S: Final = 0.0003
_STALL_S: Final = 0.02
_MOST_SHAPES: Final = 128

_Times = dict[tuple[Hashable, int], tuple[float, ...]]


class Pace:
    """What is known of one signature of one servable. Any thread may tell it; at worst a measurement is lost.

    Sizes are judged in classes, the powers of two up to :data:`MOST_ROWS`. The smallest class that none beats clearly
    is the limit; there is none while that is the largest one measured. After a while all but the best are forgotten,
    so that they are tried again.
    """

    def __init__(self, batches: bool, *, timed: bool = True) -> None:
        """Begin with what the signature says.

        Args:
            batches: whether it has a row for each example.
            timed: whether shapes alone say how long it takes, as they do where there are no strings.
        """
        self.batches = batches
        self.timed = timed
        self._worked: _Times = {}
        self._occupied: _Times = {}
        self._stalls = 0
        self._runs = 0
        self._seconds_per_row: dict[int, deque[float]] = {}
        self._seen: set[int] = set()
        self._count = 0
        self._failures = 0
        self.proved = False
        self.limit = MOST_ROWS

    @property
    def merges(self) -> bool:
        """Whether the signature says that rows may be merged, and that has not been found wrong."""
        return self.batches and self._failures < _TRIES

    def tried(self, agreed: bool) -> None:
        """Rows were computed together and one by one: did they agree?"""
        if agreed:
            self.proved = True
        else:
            self._failures += 1

    def measured(self, rows: int, seconds: float) -> None:
        """A batch of ``rows`` took this long. The first one of each size does not count: engines prepare for it."""
        if not 0 < rows <= MOST_ROWS:
            return
        if rows not in self._seen:
            self._seen.add(rows)
            return
        size = 1 << (rows - 1).bit_length()
        self._seconds_per_row.setdefault(size, deque(maxlen=_KEPT)).append(seconds / rows)
        self._count += 1
        if self._count % _JUDGED_EVERY == 0:
            self._judge()

    def worked(self, shape: Hashable, rows: int, processor: float, seconds: float) -> None:
        """A batch of ``rows`` (0: it has none) of this shape took so long, of that so much processor time.

        A long time counts whole: there are engines that compute in threads of their own.
        """
        if (shape, rows) in self._worked:
            _keep(self._worked, (shape, rows), processor if seconds <= _STALL_S else seconds)
        else:
            # The first one does not count: engines prepare for each shape.
            _keep(self._worked, (shape, rows))
        self._runs += 1
        if self._runs % _FORGET_AFTER == 0:
            # What was too slow for the event loop, on a machine that had other work to do, is tried there again.
            self._occupied.clear()
            self._stalls = max(0, self._stalls - 1)

    def occupied(self, shape: Hashable, rows: int, seconds: float) -> None:
        """A batch took the event loop so long. Who stalls it has no right to it for long: time may depend on values."""
        _keep(self._occupied, (shape, rows), seconds)
        if seconds > _STALL_S:
            self._stalls += 1

    def is_quick(self, shape: Hashable, rows: int, requests: int) -> bool:
        """Whether a batch like this is over before a thread would be awake, so that the event loop may compute it.

        Processor time says whether to try that: a thread also waits for the interpreter. Then it is seen.
        """
        if self._stalls >= _TRIES or not (requests == 1 or self.proved):
            return False
        times = self._occupied.get((shape, rows), ())
        if len(times) < _ENOUGH:
            times = self._worked.get((shape, rows), ())
        return len(times) >= _ENOUGH and min(times) <= _QUICK_S

    def _judge(self) -> None:
        known = {
            size: median(list(times)) for size, times in list(self._seconds_per_row.items()) if len(times) >= _ENOUGH
        }
        if not known:
            return
        least = min(known.values())
        best = min(size for size, each in known.items() if each * _GAIN <= least)
        self.limit = best if best < max(known) else MOST_ROWS
        if self._count % _FORGET_AFTER == 0:
            self._seconds_per_row = {best: self._seconds_per_row[best]}
            self.limit = MOST_ROWS


class Paces:
    """The pace of every signature in use; forgotten with its servable."""

    def __init__(self, *, trusting: bool) -> None:
        """Begin empty; ``trusting`` as in :func:`ensconce.serving.batching.mates.batches`."""
        self._trusting = trusting
        self._of: dict[int, tuple[weakref.ref[Servable], dict[str, Pace]]] = {}

    def of(self, servable: Servable, signature: Signature) -> Pace:
        """What is known of this signature, from now on."""
        number = id(servable)
        entry = self._of.get(number)
        if entry is None or entry[0]() is not servable:
            entry = self._of[number] = (weakref.ref(servable, lambda gone: self._forget(number, gone)), {})
        pace = entry[1].get(signature.name)
        if pace is None:
            pace = entry[1].setdefault(
                signature.name,
                Pace(
                    batches(signature, trusting=self._trusting),
                    timed=all(spec.dtype.numpy != STRING for spec in signature.inputs.values()),
                ),
            )
        return pace

    def _forget(self, number: int, gone: weakref.ref[Servable]) -> None:
        if (entry := self._of.get(number)) is not None and entry[0] is gone:
            del self._of[number]

    def __len__(self) -> int:
        return len(self._of)


def _keep(times: _Times, key: tuple[Hashable, int], *seconds: float) -> None:
    if key not in times and len(times) >= _MOST_SHAPES:
        times.pop(next(iter(times)), None)
    times[key] = (*times.get(key, ())[1 - _KEPT :], *seconds)


def agree(merged: Sequence[Mapping[str, Array]], alone: Sequence[Mapping[str, Array]]) -> bool:
    """Whether results are the same but for the rounding of sums in another order.

    Floating-point values may differ by 2 % of the largest one; all others not at all.
    """
    return all(
        one.keys() == other.keys() and all(_close(one[name], other[name]) for name in one)
        for one, other in zip(merged, alone, strict=True)
    )


def _close(one: Array, other: Array) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.names == ("bfloat16",):
        one, other = _from_bfloat16(one), _from_bfloat16(other)
    if one.dtype.kind not in "fc":
        return bool(np.array_equal(one, other))
    if not one.size:
        return True
    wide: np.dtype[Any] = np.dtype(np.complex128 if one.dtype.kind == "c" else np.float64)
    one, other = one.astype(wide), other.astype(wide)
    finite = np.isfinite(other)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True) or not np.isfinite(one[finite]).all():
        return False
    if not finite.any():
        return True
    return bool(np.abs(one[finite] - other[finite]).max() <= _TOLERANCE * np.abs(other[finite]).max())


def _from_bfloat16(array: Array) -> Array:
    widened: Array = (array["bfloat16"].astype(np.uint32) << 16).view(np.float32)
    return widened
