"""What is asked: arrays of the shapes and element types that a model takes, a batch at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from ensconce.client.codec import Array
from ensconce.client.signatures import InputSpec
from ensconce.errors import InputError
from ensconce.tfserving.dtypes import BFLOAT16

__all__ = ["MOST_BYTES", "batches", "dummies"]

_MOST_BATCHES: Final = 64
MOST_BYTES: Final = 256 * 1024 * 1024
"""Of what is sent in turn, in all."""
# That numpy and Python take for an element while it is made up, of any type.
_ELEMENT_BYTES: Final = 8


def dummies(
    specs: Mapping[str, InputSpec], batch: int, seed: int, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Array]:
    """One batch of random numbers, the same for the same seed.

    Fractions lie between 0 and 1, integers between 0 and 100; strings are 16 hexadecimal digits.

    Args:
        specs: what the model takes.
        batch: rows, where the model leaves their number open.
        seed: of the random numbers.
        shapes: of one row, by input, where the model leaves more open than that.

    Raises:
        InputError: ``bench.shape``: something is left open, or too large; ``bench.batch``: the model takes another
            number of rows; ``bench.input``: no such input, or of a type that nothing can be made up for.
    """
    unknown = shapes.keys() - specs.keys()
    if unknown or not specs:
        raise InputError(
            "bench.input",
            "the model has no such input" if specs else "the server does not say what the model takes",
            found=", ".join(sorted(unknown)) or None,
            rule=", ".join(specs)[:200] or None,
            remedy="give the arrays in a file (--input)" if not specs else None,
        )
    chance = np.random.default_rng(seed)
    return {
        name: _random(name, spec.dtype, _shape(name, spec.shape, batch, shapes.get(name)), chance)
        for name, spec in specs.items()
    }


def batches(arrays: Mapping[str, Array], batch: int) -> list[dict[str, Array]]:
    """Rows of a file as batches, in turn: as many as it has, at most 64 and 256 MiB; too few rows are repeated.

    Args:
        arrays: by input, each with the same number of rows.
        batch: rows in each.

    Raises:
        InputError: ``bench.input``: there are no rows, or not as many of each.
    """
    sizes = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(sizes) != 1 or not (rows := sizes.pop()):
        raise InputError(
            "bench.input",
            "the file does not have the same number of rows for each input, one at least",
            found=", ".join(f"{name or 'array'} {array.shape}" for name, array in arrays.items())[:200] or "nothing",
        )
    each = sum(array.nbytes for array in arrays.values()) * batch // rows
    count = max(min(-(-rows // batch), _MOST_BATCHES, MOST_BYTES // max(each, 1)), 1)
    picks = (np.arange(number * batch, (number + 1) * batch) % rows for number in range(count))
    return [{name: np.ascontiguousarray(array[pick]) for name, array in arrays.items()} for pick in picks]


def _shape(name: str, told: tuple[int, ...], batch: int, row: tuple[int, ...] | None) -> tuple[int, ...]:
    if row is not None:
        return (batch, *row)
    if told and told[0] >= 0 and batch not in (1, told[0]):
        raise InputError(
            "bench.batch", f"input {name} takes another number of rows", found=str(batch), rule=str(told[0])
        )
    shape = (batch, *told[1:]) if told and told[0] < 0 else told
    if any(size < 0 for size in shape):
        raise InputError(
            "bench.shape",
            f"the model leaves open how large a row of {name} is",
            found="x".join("?" if size < 0 else str(size) for size in shape),
            remedy=f"say it, for example --shape {name}=224x224x3, or give the arrays in a file (--input)",
        )
    if math.prod(shape) * _ELEMENT_BYTES > MOST_BYTES:
        raise InputError(
            "bench.shape",
            f"input {name} is too large to be made up",
            found="x".join(map(str, shape))[:100],
            rule=f"at most {MOST_BYTES // _ELEMENT_BYTES} elements",
            remedy="give the arrays in a file (--input)",
        )
    return shape


def _random(name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...], chance: np.random.Generator) -> Array:
    match dtype.kind:
        case "f":
            return chance.random(shape, np.float32).astype(dtype)
        case "c":
            return (chance.random(shape) + 1j * chance.random(shape)).astype(dtype)
        case "i" | "u":
            return chance.integers(0, 100, shape, endpoint=True).astype(dtype)
        case "b":
            return chance.integers(0, 1, shape, endpoint=True).astype(dtype)
        case "O":
            made = np.empty(shape, dtype=object)
            made[...] = np.reshape([chance.bytes(8).hex().encode() for _ in range(made.size)], shape)
            return made
    if dtype == BFLOAT16:
        # The upper half of a float32.
        return (chance.random(shape, np.float32).view(np.uint32) >> 16).astype(np.uint16).view(BFLOAT16)
    raise InputError("bench.input", f"nothing can be made up for input {name}", found=str(dtype), remedy="--input")
