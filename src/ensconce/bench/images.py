"""Images of files: as they are, for models that take them as strings, or as the pixels that a model takes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from ensconce.bench.inputs import MOST_BYTES
from ensconce.client.codec import Array
from ensconce.client.signatures import InputSpec
from ensconce.errors import InputError
from ensconce.files import read_bounded

__all__ = ["is_for_pixels", "pixels", "read_images"]

_MAX_IMAGE: Final = 64 * 1024 * 1024
_MOST: Final = 10_000
_MODES: Final = {1: "L", 3: "RGB"}


def read_images(paths: Iterable[Path]) -> list[bytes]:
    """The bytes of files; a folder stands for the files in it, by name, hidden ones left out.

    Raises:
        InputError: ``file.read``, ``file.size``: a file of more than 64 MiB; ``bench.input``: a folder has no files, or
            there are more than 10,000.
    """
    files: list[Path] = []
    for path in paths:
        found = [path]
        if path.is_dir():
            found = sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
            if not found:
                raise InputError("bench.input", f"no files are in {path}")
        files += found
    if len(files) > _MOST:
        raise InputError("bench.input", "too many images", found=str(len(files)), rule=f"at most {_MOST}")
    return [read_bounded(each, _MAX_IMAGE) for each in files]


def is_for_pixels(spec: InputSpec) -> bool:
    """Whether a model's input looks like images: numbers, of rank 4."""
    return spec.dtype.kind in "fiu" and len(spec.shape) == 4


def pixels(images: Sequence[bytes], name: str, spec: InputSpec, shapes: Mapping[str, tuple[int, ...]]) -> Array:
    """Images as an input takes them: decoded, scaled to its height and width, values from 0 to 255.

    Channels are the last axis or the one after the rows, whichever has size 3 (red, green, blue) or 1.

    Args:
        images: files, in any format that Pillow reads.
        name: of the input.
        spec: its element type and shape.
        shapes: of one row, by input, where the model leaves it open.

    Returns:
        as many of them, from the first on, as 256 MiB hold.

    Raises:
        InputError: ``bench.shape``: these are no sizes of images; ``bench.input``: one of them cannot be read;
            ``bench.pillow``: it takes Pillow, and that is not there.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError(
            "bench.pillow",
            f"input {name} takes pixels, and what decodes images is not installed",
            remedy="pip install 'ensconce[images]', or give arrays in a file (.npy, .npz)",
        ) from error
    row = shapes.get(name, spec.shape[1:])
    channels = next((each for each in (row[-1], row[0]) if each in _MODES), None)
    is_last = bool(row) and row[-1] == channels
    height, width = (row[:2] if is_last else row[1:]) if len(row) == 3 else (-1, -1)
    if channels is None or min(height, width) < 1:
        raise InputError(
            "bench.shape",
            f"input {name} takes no images, or leaves their size open",
            found="x".join("?" if size < 0 else str(size) for size in row),
            remedy=f"say it, for example --shape {name}=224x224x3",
        )
    fitting = MOST_BYTES // (height * width * channels * spec.dtype.itemsize)
    if not fitting:
        raise InputError("bench.shape", f"an image for input {name} is too large", found="x".join(map(str, row)))
    found = []
    for number, each in enumerate(images[:fitting], 1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                picture = Image.open(io.BytesIO(each)).convert(_MODES[channels]).resize((width, height))
        except (
            OSError,
            ValueError,
            SyntaxError,
            Image.DecompressionBombError,
            Image.DecompressionBombWarning,
        ) as error:
            raise InputError("bench.input", f"image {number} cannot be read", found=str(error)[:200]) from error
        found.append(np.asarray(picture).reshape(height, width, channels))
    made = np.stack(found)
    return (made if is_last else made.transpose(0, 3, 1, 2)).astype(spec.dtype)
