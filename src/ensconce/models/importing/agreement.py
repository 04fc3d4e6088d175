"""How far two answers are apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ensconce.tfserving.tensor import Array

__all__ = ["Distance"]


@dataclass
class Distance:
    """Of one output, over as many answers as :meth:`add` was told of."""

    max_abs: float = 0.0
    magnitude: float = 0.0
    _equal: int = field(default=0, repr=False)
    _rows: int = field(default=0, repr=False)

    @property
    def max_rel(self) -> float:
        """The largest difference relative to the original's largest finite magnitude; without one, the difference."""
        return self.max_abs / self.magnitude if self.magnitude else self.max_abs

    @property
    def top1(self) -> float | None:
        """Which share of rows has the same largest entry (of what is no score: which share of values is equal)."""
        return self._equal / self._rows if self._rows else None

    def add(self, original: Array, converted: Array) -> None:
        """Compare one answer; another shape is as far away as can be, and so is a value that only one of them has.

        Args:
            original: numbers, booleans, or ``bytes`` in an array of objects.
            converted: the same.
        """
        if original.shape != converted.shape:
            self.max_abs = float("inf")
        elif original.dtype.kind == "O":
            equal = original == converted
            self._count(np.asarray(equal))
            if not np.all(equal):
                self.max_abs, self.magnitude = max(self.max_abs, 1.0), max(self.magnitude, 1.0)
        elif original.size:
            self._add_numbers(original, converted)

    def _add_numbers(self, original: Array, converted: Array) -> None:
        wide: Any = np.complex128 if original.dtype.kind == "c" else np.float64
        left, right = original.astype(wide), converted.astype(wide)
        finite = np.isfinite(left)
        same = (left == right) | (np.isnan(left) & np.isnan(right))
        with np.errstate(invalid="ignore"):
            apart = np.where(same, 0.0, np.abs(left - right))
        apart = np.where(np.isfinite(apart), apart, np.inf)
        self.max_abs = max(self.max_abs, float(apart.max()))
        self.magnitude = max(self.magnitude, float(np.abs(left[finite]).max(initial=0.0)))
        if original.dtype.kind in "iub":
            self._count(same)
        elif original.dtype.kind == "f" and original.ndim > 1 and original.shape[-1] > 1:
            self._count(np.argmax(original, -1) == np.argmax(converted, -1))

    def _count(self, equal: Array) -> None:
        self._equal += int(np.count_nonzero(equal))
        self._rows += equal.size
