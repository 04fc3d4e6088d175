"""What is asked for, and what kind of source it is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from ensconce.errors import InputError
from ensconce.models.importing.record import Kind, Precision
from ensconce.models.layout import Engine, scan
from ensconce.strict import StrictModel

__all__ = ["TOLERANCES", "Order", "kind_of", "source_sha256"]

TOLERANCES: Final[dict[Precision, float]] = {"f32": 0.001, "bf16": 0.05, "int8": 0.2}
"""Largest difference that is accepted by default, relative to the output's largest magnitude."""

_CHUNK: Final = 1 << 20
# StringStringEntryProto{key: "location"}, as TensorProto.external_data holds it (onnx.proto, field 1).
_ONNX_EXTERNAL: Final = b"\x0a\x08location\x12"


class Order(StrictModel):
    """One import.

    Attributes:
        source: absolute path.
        kind: what it is.
        engine: what it is made for.
        precision: of the arithmetic.
        samples: absolute path of a .npz or .npy file; None for random samples.
        inputs: of a frozen graph, the tensors or nodes to feed; empty for what the graph leaves open.
        outputs: of a frozen graph, likewise.
        tolerance: largest relative difference that is accepted.
        target: the version's new folder, which exists and is empty.
        work: a folder for what is needed meanwhile.
    """

    source: str
    kind: Kind
    engine: Engine
    precision: Precision
    samples: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    target: str
    work: str


def kind_of(source: Path) -> Kind:
    """What a source is, by its name and first bytes.

    Raises:
        InputError: ``import.source``: it is nothing that can be imported.
    """
    rule = "a SavedModel's folder, a frozen graph (.pb), TensorFlow Lite (.tflite) or ONNX (.onnx)"
    if source.is_dir():
        if (source / "saved_model.pb").is_file():
            return "saved-model"
        if len(list(source.glob("*.onnx"))) == 1:
            return "onnx"
        raise InputError(
            "import.source",
            f"{source} holds no saved_model.pb",
            found=", ".join(sorted(ascii(path.name) for path in source.iterdir())[:5]) or "an empty folder",
            rule=rule,
            remedy="name the folder of one version itself",
        )
    if not source.is_file():
        raise InputError("import.source", f"there is no {source}", rule=rule, remedy="check the path")
    with source.open("rb") as file:
        start = file.read(8)
    match source.suffix.lower():
        case ".tflite" if start[4:8] == b"TFL3":
            return "tflite"
        case ".pb" if source.name != "saved_model.pb":
            return "frozen-graph"
        case ".onnx":
            _check_single(source)
            return "onnx"
    remedies = {
        ".pb": "name the folder that holds saved_model.pb",
        ".keras": "export it with Keras: model.export(FOLDER)",
        ".h5": "export it with Keras: model.export(FOLDER)",
    }
    raise InputError(
        "import.source",
        f"{source} is nothing that can be imported",
        found=f"a file that begins with {start.hex()}",
        rule=rule,
        remedy=remedies.get(source.suffix.lower(), "export the model in one of these forms"),
    )


def _check_single(source: Path) -> None:
    """Refuse an ONNX file whose weights lie in other files: its hash would say nothing of them."""
    before = b""
    with source.open("rb") as file:
        while chunk := file.read(_CHUNK):
            if _ONNX_EXTERNAL in before + chunk:
                raise InputError(
                    "import.source",
                    f"{source} has weights in files of their own",
                    rule="all of a model is imported, and its hash is of all of it",
                    remedy="name the folder that holds the .onnx file and its weights, and nothing else",
                )
            before = chunk[-len(_ONNX_EXTERNAL) :]


def source_sha256(source: Path) -> str:
    """SHA-256 of a file; of a folder, of one line ``<sha256>  <path>`` for each file, sorted by path.

    Raises:
        InputError: it cannot be read, or the folder holds links or names that are not taken.
    """
    try:
        if source.is_file():
            return _sha256(source)
        lines = (f"{_sha256(source / file.path)}  {file.path}\n" for file in scan(source, InputError))
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    except OSError as error:
        raise InputError(
            "import.source", f"cannot read {error.filename}: {error.strerror}", remedy="check its permissions"
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
