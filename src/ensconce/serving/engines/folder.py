"""A plain folder of one version, outside any enclave, as a servable: which engine computes it follows from its files.

===================================  ============================================
``signatures.json``                  OpenVINO: a model that Ensconce converted
``saved_model.pb`` or ``.pbtxt``     TensorFlow
``model.tflite``                     TFLite, when asked to prefer it
===================================  ============================================

The folder is the operator's own: links in it are followed, and what engines say of it is passed on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from ensconce.errors import InputError
from ensconce.files import read_bounded
from ensconce.serving.engines import LoadError, Servable
from ensconce.serving.engines.openvino import OpenVinoServable
from ensconce.serving.engines.saved_model import SAVED_MODEL, SAVED_MODEL_TEXT, SessionOptions
from ensconce.serving.engines.tensorflow import TensorFlowServable
from ensconce.serving.engines.tflite import TfliteServable
from ensconce.tfserving.refusal import Code
from ensconce.tfserving.signatures import parse_bindings

__all__ = ["FolderOptions", "load_folder"]

_SIGNATURES: Final = "signatures.json"
_TFLITE: Final = "model.tflite"
_MOST_SIGNATURES: Final = 2**20
_MOST_XML: Final = 2**30
_MOST_WEIGHTS: Final = 2**37
_MOST_TFLITE: Final = 2**31 - 1


@dataclass(frozen=True)
class FolderOptions:
    """What the operator chose for all engines.

    Attributes:
        session: for TensorFlow.
        prefer_tflite_model: serve ``model.tflite`` where there is one, rather than the SavedModel.
        num_tflite_pools: TFLite interpreters of a model, as many as may compute at once; as many as cores when 0.
        threads: most threads of one inference in OpenVINO and TFLite; the engine's choice when None.
        precision: of OpenVINO's arithmetic; what the converted model says when None.
    """

    session: SessionOptions = field(default_factory=SessionOptions)
    prefer_tflite_model: bool = False
    num_tflite_pools: int = 0
    threads: int | None = None
    precision: Literal["f32", "bf16"] | None = None


def load_folder(folder: Path, options: FolderOptions | None = None) -> Servable:
    """Load the version that lies in ``folder``.

    Args:
        folder: the version's folder, e.g. ``models/resnet/1``.
        options: the operator's choice; defaults when None.

    Raises:
        LoadError: the folder holds no model, or its engine cannot load it; ``code`` is for the version's status.
        InputError: the engine is not installed, or a file of a converted model is missing, too large or wrong.
    """
    options = options or FolderOptions()
    if options.prefer_tflite_model and (folder / _TFLITE).is_file():
        return TfliteServable(
            read_bounded(folder / _TFLITE, _MOST_TFLITE),
            interpreters=options.num_tflite_pools or os.cpu_count() or 1,
            threads=options.threads,
        )
    if (folder / _SIGNATURES).is_file():
        return _openvino(folder, options)
    if (folder / SAVED_MODEL).is_file() or (folder / SAVED_MODEL_TEXT).is_file():
        return TensorFlowServable(folder, options.session)
    raise LoadError(
        "engine.folder",
        f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {folder}. "
        "Check that the directory exists and that you have the right permissions for accessing it.",
        found=_listing(folder),
        rule=f"{SAVED_MODEL}, {SAVED_MODEL_TEXT}, or {_SIGNATURES} with the graphs that it names",
        remedy="pass --prefer_tflite_model" if (folder / _TFLITE).is_file() else "name the folder of models' versions",
    ).with_code(Code.NOT_FOUND)


def _openvino(folder: Path, options: FolderOptions) -> Servable:
    files: dict[str, bytes | bytearray] = {_SIGNATURES: read_bounded(folder / _SIGNATURES, _MOST_SIGNATURES)}
    for graph in {binding.graph for binding in parse_bindings(bytes(files[_SIGNATURES])).values()}:
        files[f"{graph}.xml"] = read_bounded(folder / f"{graph}.xml", _MOST_XML)
        files[f"{graph}.bin"] = _weights(folder / f"{graph}.bin")
    return OpenVinoServable(files, threads=options.threads, precision=options.precision)


def _weights(path: Path) -> bytearray:
    """The file in memory that OpenVINO may use in place, which it does with memory that can be written alone."""
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > _MOST_WEIGHTS:
                raise InputError(
                    "engine.files", f"{path} is too large", found=f"{size} bytes", rule=f"at most {_MOST_WEIGHTS} bytes"
                )
            content = bytearray(size)
            view, at = memoryview(content), 0
            while at < size and (count := file.readinto(view[at:])):
                at += count
    except (OSError, MemoryError) as error:
        raise InputError(
            "engine.files", f"cannot read {path}: {error.strerror if isinstance(error, OSError) else 'no memory'}"
        ) from error
    if at < size:
        raise InputError("engine.files", f"{path} became shorter while it was read", remedy="load the version again")
    return content


def _listing(folder: Path) -> str:
    try:
        return ", ".join(sorted(each.name for each in folder.iterdir())[:10]) or "an empty folder"
    except OSError as error:
        return error.strerror or "nothing"
