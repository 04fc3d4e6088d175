"""What original and converted model are compared on: the caller's samples, or random ones from a fixed seed."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ensconce.errors import InputError
from ensconce.models.importing.parts import Part, Tensor
from ensconce.tfserving.dtypes import dtype_named
from ensconce.tfserving.tensor import Array

__all__ = ["OPEN_AXIS", "RANDOM_SAMPLES", "SEED", "Samples", "load_samples", "samples_for"]

RANDOM_SAMPLES: Final = 32
SEED: Final = 0
OPEN_AXIS: Final = 32
"""How long random samples make an axis that the signature leaves open, other than the first."""
_BATCH: Final = 8
_RULE: Final = "one array for each input, of its name; along the first axis one row for each sample"


@dataclass(frozen=True)
class Samples:
    """For one signature.

    Attributes:
        runs: what is fed, by name, in one run each.
        count: how many samples that is.
        random: whether they were made up.
    """

    runs: tuple[dict[str, Array], ...]
    count: int
    random: bool


def load_samples(path: Path) -> dict[str, Array]:
    """The arrays of a .npz file by their names, or the one of a .npy file under the empty name.

    Raises:
        InputError: ``import.samples``.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise _bad(f"cannot read {path}", str(error)[:200]) from error
    if not arrays:
        raise _bad(f"{path} holds no array", None)
    return arrays


def samples_for(part: Part, arrays: Mapping[str, Array]) -> Samples:
    """What to run one signature on.

    Args:
        part: the signature.
        arrays: as :func:`load_samples` gives them; empty for random samples.

    Raises:
        InputError: ``import.samples``: they do not fit, or are of some of the inputs alone.
    """
    feeds = part.feeds
    if "" in arrays and len(feeds) == 1:
        arrays = {next(iter(feeds)): arrays[""]}
    given = {name: arrays[name] for name in feeds if name in arrays}
    if not given:
        return _random(feeds)
    if len(given) < len(feeds):
        missing = ", ".join(sorted(set(feeds) - set(given)))
        raise _bad(f"there are samples for some inputs of signature {part.name} only", f"none for {missing}")
    runs, counts = dict[str, list[Array]](), set[int]()
    for name, spec in feeds.items():
        runs[name], count = _split(name, spec, _cast(name, spec, given[name]))
        counts.add(count)
    if len(counts) > 1 or len({len(each) for each in runs.values()}) > 1:
        raise _bad("the inputs have different numbers of samples", ", ".join(map(str, sorted(counts))))
    fed = tuple(dict(zip(runs, run, strict=True)) for run in zip(*runs.values(), strict=True))
    return Samples(fed, counts.pop(), False)


def _split(name: str, spec: Tensor, array: Array) -> tuple[list[Array], int]:
    """The runs that an array makes: its rows eight at a time, or as many as the model insists on."""
    shape = spec.shape
    if shape is not None and array.ndim == len(shape) + 1 and _fits(shape, array.shape[1:]):
        return list(array), len(array)
    if array.ndim and (shape is None or _fits((-1, *shape[1:]), array.shape)):
        step = _BATCH if shape is None or shape[0] == -1 else max(shape[0], 1)
        if len(array) and (step == _BATCH or len(array) % step == 0):
            return [array[at : at + step] for at in range(0, len(array), step)], len(array)
    raise _bad(f"the samples for {name} do not fit the model", f"shape {array.shape}, and the model's is {shape}")


def _fits(wanted: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(wanted) == len(shape) and all(want in (-1, size) for want, size in zip(wanted, shape, strict=True))


def _cast(name: str, spec: Tensor, array: Array) -> Array:
    wanted = fed_type(spec)
    if not np.can_cast(array.dtype, wanted, "same_kind"):
        raise _bad(f"the samples for {name} are of another type", f"{array.dtype}, and the model takes {wanted}")
    return np.asarray(array, wanted, order="C")


def fed_type(spec: Tensor) -> np.dtype[np.generic]:
    """The numpy type of samples for a tensor; bfloat16, which numpy has not, travels as float32."""
    return np.dtype(np.float32) if spec.dtype == "DT_BFLOAT16" else dtype_named(spec.dtype).numpy


def _random(feeds: Mapping[str, Tensor]) -> Samples:
    """Normal floats, integers and booleans of 0 and 1: an index of 1 is one that every table has."""
    generator = np.random.default_rng(SEED)
    by_rows = all(spec.shape is not None and spec.shape[:1] == (-1,) for spec in feeds.values())
    sizes = [_BATCH] * (RANDOM_SAMPLES // _BATCH) if by_rows else [1] * _BATCH
    runs = tuple({name: _made(generator, spec, size) for name, spec in feeds.items()} for size in sizes)
    return Samples(runs, sum(sizes), True)


def _made(generator: np.random.Generator, spec: Tensor, rows: int) -> Array:
    if spec.shape is None:
        raise InputError(
            "import.samples", "no random samples can be made for an input of any rank", remedy="give --samples FILE"
        )
    shape = [size if size != -1 else rows if axis == 0 else OPEN_AXIS for axis, size in enumerate(spec.shape)]
    wanted = fed_type(spec)
    if wanted.kind == "f":
        return generator.standard_normal(shape, np.float32).astype(wanted)
    return generator.integers(0, 2, shape).astype(wanted)


def _bad(problem: str, found: str | None) -> InputError:
    return InputError("import.samples", problem, found=found, rule=_RULE, remedy="correct --samples")
