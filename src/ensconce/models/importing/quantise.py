"""int8: NNCF's post-training quantisation, with the samples as its calibration set.

NNCF's metadata asks for ``openvino-telemetry``; without it NNCF uses a stub of its own (``nncf/telemetry/wrapper.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

from ensconce.errors import InputError
from ensconce.models.importing.parts import Graph, Part
from ensconce.models.importing.samples import Samples

__all__ = ["MOST_RUNS", "import_nncf", "quantise"]

MOST_RUNS: Final = 300
"""How many runs calibrate at most."""


def import_nncf() -> Any:
    """The module ``nncf``.

    Raises:
        InputError: ``import.nncf``.
    """
    try:
        return import_module("nncf")
    except ImportError as error:
        raise InputError(
            "import.nncf",
            "NNCF, which makes int8 models, is not installed",
            found=str(error)[:200],
            remedy="an environment for importing, as docs/how-to/import-a-model.md has it; or --precision bf16",
        ) from error


def quantise(nncf: Any, graph: Graph, parts: Sequence[Part], samples: dict[str, Samples]) -> None:
    """Replace a graph by one whose weights and activations are of eight bits where NNCF finds that harmless.

    Raises:
        InputError: ``import.samples``: a signature that the graph computes has none of the caller's;
            ``import.convert``: NNCF fails.
    """
    runs = []
    for part in parts:
        if part.graph is graph:
            if samples[part.name].random:
                raise InputError(
                    "import.samples",
                    f"int8 needs samples for signature {part.name}",
                    rule="activations are scaled to what the samples make of them, and random ones scale them wrongly",
                    remedy=f"give --samples FILE with {', '.join(part.feeds)}",
                )
            tensors = {name: spec.tensor for name, spec in part.feeds.items()}
            runs += [{tensors[name]: array for name, array in run.items()} for run in samples[part.name].runs]
    runs = runs[:MOST_RUNS]
    try:
        quantised = nncf.quantize(
            graph.model,
            nncf.Dataset(runs),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(runs),
        )
    except Exception as error:  # NNCF raises kinds of its own, and OpenVINO's
        raise InputError(
            "import.convert",
            "NNCF cannot quantise the model",
            found=ascii(str(error).strip().partition("\n")[0])[:300],
            remedy="import it with --precision bf16",
        ) from error
    for old, new in [*zip(graph.model.inputs, quantised.inputs, strict=True)]:
        new.get_tensor().set_names(old.get_names())
    for old, new in [*zip(graph.model.outputs, quantised.outputs, strict=True)]:
        new.get_tensor().set_names(old.get_names())
    graph.model = quantised
