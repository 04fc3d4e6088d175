"""The models, made once: ResNet-50 (f32, bf16, int8) and the tiny one of ``examples/digits``."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from benchmarks.serving.make_resnet50 import enlarged
from benchmarks.serving.processes import environment

__all__ = ["Models", "prepare"]

HERE = Path(__file__).parent
DIGITS = HERE.parents[1] / "examples" / "digits"
CALIBRATION = 128


@dataclass(frozen=True)
class Models:
    """What there is: folders by name, and every image that there is for each, with its class."""

    converted: Mapping[str, Path]
    saved: Mapping[str, Path]
    inputs: Mapping[str, str]
    images: Mapping[str, np.ndarray]


def prepare(folder: Path, tensorflow: Path) -> Models:
    """Make what is missing in ``folder``, by ``ensconce model import`` in TensorFlow's environment.

    Raises:
        RuntimeError: something could not be made.
    """
    made = folder / "resnet50"
    if not (made / "images.npz").is_file():
        print("making ResNet-50 (about a minute)", flush=True)
        _run(tensorflow, str(HERE / "make_resnet50.py"), str(made))
    with np.load(made / "images.npz") as file:
        small = file["images"]
    large = enlarged(small)
    for precision in ("f32", "bf16", "int8"):
        target = folder / f"resnet50-{precision}"
        if (target / "signatures.json").is_file():
            continue
        samples = folder / "samples.npz"
        np.savez(samples, images=large[:CALIBRATION])
        print(f"importing ResNet-50 in {precision}", flush=True)
        _run(
            tensorflow,
            *("-m", "ensconce", "model", "import", str(made / "saved_model"), "--name", "resnet50", "--version", "1"),
            *("--precision", precision, "--samples", str(samples), "--output", str(target)),
        )
    converted = {
        "tiny": DIGITS / "openvino",
        "resnet50": folder / "resnet50-bf16",
        "resnet50-int8": folder / "resnet50-int8",
        "resnet50-f32": folder / "resnet50-f32",
    }
    saved = {"tiny": DIGITS / "saved_model", "resnet50": made / "saved_model"}
    tiny = small.astype(np.float32)[..., None]
    images = {"tiny": tiny} | {name: large for name in converted if name != "tiny"}
    return Models(converted, saved, dict.fromkeys(converted, "images"), images)


def _run(python: Path, *arguments: str) -> None:
    done = subprocess.run(
        [str(python), *arguments], env=environment(), capture_output=True, text=True, check=False
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{arguments[0:3]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
