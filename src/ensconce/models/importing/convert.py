"""OpenVINO's own conversion of one file, and what it says when it cannot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from ensconce.errors import EnsconceError, InputError

__all__ = ["convert"]

_UNKNOWN: Final = re.compile(r"No (?:translator|conversion rule) found for[^\n]{0,200}", re.I)


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
    try:
        if source.suffix == ".pb":
            return _convert_graph(source, inputs, outputs)
        return openvino.Core().read_model(str(source))
    except EnsconceError:
        raise
    except Exception as error:  # OpenVINO raises kinds of its own, and plain ones
        text = str(error)
        found = " ".join(_UNKNOWN.findall(text)) or text.strip().rpartition("\n")[2]
        raise InputError(
            "import.convert",
            "OpenVINO cannot convert the model",
            found=ascii(" ".join(found.split()))[:300],
            remedy="check --inputs and --outputs; a SavedModel can be imported with --engine tensorflow",
        ) from error


def _convert_graph(source: Path, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """Read a frozen graph with its ends chosen, which ``convert_model`` cannot do for tensors within it."""
    frontend = import_module("openvino.frontend").FrontEndManager().load_by_framework("tf")
    graph = frontend.load(str(source))
    places = [[(name, graph.get_place_by_tensor_name(_tensor(name))) for name in names] for names in (inputs, outputs)]
    if missing := [name for ends in places for name, place in ends if place is None]:
        raise InputError(
            "import.convert",
            "the graph has no such tensor",
            found=ascii(missing[0])[:100],
            remedy="check --inputs and --outputs: names of nodes, or of tensors such as name:0",
        )
    fed, fetched = ([place for _, place in ends] for ends in places)
    if fed and fetched:
        graph.extract_subgraph(fed, fetched)
    elif fed:
        graph.override_all_inputs(fed)
    elif fetched:
        graph.override_all_outputs(fetched)
    return frontend.convert(graph)


def _tensor(name: str) -> str:
    return name if ":" in name else f"{name}:0"
