"""OpenVINO's own conversion of one file, and what it says when it cannot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ensconce.errors import InputError

__all__ = ["convert"]

_UNKNOWN: Final = re.compile(
    r"(?:No translator found for|Unsupported operations?|not supported operations?)[^\n]{0,200}", re.I
)


def convert(openvino: Any, source: Path, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> Any:
    """Read a frozen graph, TFLite or ONNX.

    Args:
        openvino: the module.
        source: the file.
        inputs: what to feed, in place of what the graph leaves open: tensors, or nodes for their first.
        outputs: what to compute, likewise.

    Returns:
        ``openvino.Model``.

    Raises:
        InputError: ``import.convert``.
    """
    chosen: dict[str, Any] = {}
    if inputs:
        chosen["input"] = [_tensor(name) for name in inputs]
    if outputs:
        chosen["output"] = [_tensor(name) for name in outputs]
    try:
        return openvino.convert_model(str(source), **chosen)
    except Exception as error:  # OpenVINO raises kinds of its own, and plain ones
        text = str(error)
        found = " ".join(_UNKNOWN.findall(text)) or text.strip().rpartition("\n")[2]
        raise InputError(
            "import.convert",
            "OpenVINO cannot convert the model",
            found=ascii(" ".join(found.split()))[:300],
            remedy="check --inputs and --outputs; a SavedModel can be imported with --engine tensorflow",
        ) from error


def _tensor(name: str) -> str:
    return name if ":" in name else f"{name}:0"
