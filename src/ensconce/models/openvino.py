"""OpenVINO, which converts models and computes them: how it is imported, and what it calls element types."""

from __future__ import annotations

from importlib import import_module, util
from typing import Any, Final

from ensconce.errors import InputError

__all__ = ["TYPE_NAMES", "import_openvino"]

TYPE_NAMES: Final = {
    "DT_FLOAT": "f32",
    "DT_DOUBLE": "f64",
    "DT_HALF": "f16",
    "DT_BFLOAT16": "bf16",
    "DT_INT8": "i8",
    "DT_INT16": "i16",
    "DT_INT32": "i32",
    "DT_INT64": "i64",
    "DT_UINT8": "u8",
    "DT_UINT16": "u16",
    "DT_UINT32": "u32",
    "DT_UINT64": "u64",
    "DT_BOOL": "boolean",
}
"""OpenVINO's names of element types (``ov::element::Type::get_type_name``), by TensorFlow's."""


def import_openvino() -> Any:
    """OpenVINO, imported when it is first needed, and never where its telemetry is installed.

    ``openvino_telemetry``, which OpenVINO imports when it is there, reports usage over the network; without it OpenVINO
    falls back to a stub of its own that does nothing (``openvino/tools/ovc/telemetry_stub.py``).

    Raises:
        InputError: ``engine.telemetry``, ``engine.openvino``.
    """
    if util.find_spec("openvino_telemetry") is not None:
        raise InputError(
            "engine.telemetry",
            "openvino_telemetry is installed; it reports usage over the network as soon as OpenVINO is imported",
            rule="no environment that converts or serves models holds openvino_telemetry",
            remedy="pip uninstall openvino-telemetry; OpenVINO and NNCF work without it",
        )
    try:
        return import_module("openvino")
    except ImportError as error:
        raise InputError(
            "engine.openvino",
            "OpenVINO is not installed",
            remedy="pip install --no-deps openvino, in the version that requirements/runtime.txt names",
        ) from error
