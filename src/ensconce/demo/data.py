"""The digits model and its held-out images, from the wheel or from a checkout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ensconce.errors import InputError

__all__ = ["digits_folder", "held_out"]


def digits_folder() -> Path:
    """The folder with ``openvino/`` (the model) and ``heldout.npz``.

    Raises:
        InputError: neither the wheel's copy nor a checkout's ``examples/digits`` is there.
    """
    packaged = Path(__file__).with_name("digits")
    checkout = Path(__file__).parents[3] / "examples" / "digits"
    for folder in (packaged, checkout):
        if (folder / "heldout.npz").is_file():
            return folder
    raise InputError("demo.data", "the digits example is not installed", remedy="run the demo from a checkout")


def held_out(folder: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Images ``[360, 8, 8]`` with values 0 to 16, and labels ``[360]``, none of which the model was trained on."""
    with np.load(folder / "heldout.npz", allow_pickle=False) as file:
        return file["images"], file["labels"]
