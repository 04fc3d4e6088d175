"""Running the original and the converted model, as it was written, on the same samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ensconce.errors import InputError, RefusedError
from ensconce.models.importing.agreement import Distance
from ensconce.models.importing.original import Run
from ensconce.models.importing.parts import Part
from ensconce.models.importing.ports import OpenVinoRun
from ensconce.models.importing.record import Agreement, OutputAgreement
from ensconce.models.importing.samples import Samples
from ensconce.tfserving.tensor import Array

__all__ = ["compare", "judge"]


def compare(
    openvino: Any,
    folder: Path,
    precision: str,
    parts: Sequence[Part],
    samples: Mapping[str, Samples],
    original: Run,
    done: Callable[[], None],
) -> dict[tuple[str, str], Distance]:
    """How far each output of each signature is from the original's.

    Args:
        openvino: the module.
        folder: the version's folder.
        precision: of the engine's arithmetic.
        parts: the signatures.
        samples: for each of them, by name.
        original: computes the original.
        done: is told of each run.
    """
    runs = {name: OpenVinoRun(openvino, folder / f"{name}.xml", precision) for name in {p.graph.name for p in parts}}
    distances = dict[tuple[str, str], Distance]()
    for part in parts:
        for feeds in samples[part.name].runs:
            with _naming(part, "the original"):
                right = original(part, feeds)
            with _naming(part, "the converted model"):
                ours = _run(runs[part.graph.name], part, feeds)
            for name, array in ours.items():
                distances.setdefault((part.name, name), Distance()).add(right[name], array)
            done()
    return distances


@contextmanager
def _naming(part: Part, who: str) -> Iterator[None]:
    """Say who could not compute with the samples: every runtime has errors of its own kinds."""
    try:
        yield
    except Exception as error:
        raise InputError(
            "import.samples",
            f"{who} cannot compute signature {part.name} with the samples",
            found=ascii(" ".join(str(error).split()))[:300],
            rule="samples that the model can be asked; without --samples, random ones",
            remedy="give other --samples",
        ) from error


def _run(graph: OpenVinoRun, part: Part, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """A signature's outputs, as an engine that reads ``signatures.json`` gives them."""
    named = {spec.tensor: feeds[name] for name, spec in part.feeds.items()}
    computed = {name: each for name, each in part.outputs.items() if each.constant is None}
    answers = dict(zip(computed, graph(named, [each.tensor for each in computed.values()]), strict=True))
    for name, each in part.outputs.items():
        if each.constant is not None:
            rows = len(next(iter(feeds.values())))
            answers[name] = np.broadcast_to(np.array(each.constant, object), (rows, len(each.constant)))
        elif each.labels is not None:
            answers[name] = _texts(each.labels, answers[name])
    return answers


def _texts(labels: tuple[bytes, ...], index: Array) -> Array:
    """What integers stand for; others than the labels' are unknown, as in TensorFlow's tables."""
    known = (index >= 0) & (index < len(labels))
    texts: Array = np.array([*labels, b"UNK"], object)[np.where(known, index, len(labels))]
    return texts


def judge(
    distances: Mapping[tuple[str, str], Distance],
    samples: Mapping[str, Samples],
    original: str,
    tolerance: float,
) -> tuple[Agreement, tuple[OutputAgreement, ...]]:
    """Sum up the distances.

    Raises:
        RefusedError: ``import.tolerance``: an output is too far away.
    """
    for (signature, output), distance in distances.items():
        if not distance.max_rel <= tolerance:
            top1 = "" if distance.top1 is None else f", top-1 agreement {distance.top1:.4f}"
            raise RefusedError(
                "import.tolerance",
                f"the converted model is too far from its original: output {output} of signature {signature}",
                found=f"relative difference {distance.max_rel:.3g}, absolute {distance.max_abs:.3g}{top1}",
                rule=f"a relative difference of at most {tolerance:g}, on {samples[signature].count} samples",
                remedy="another --precision, --samples like what the model will be asked, or another --tolerance",
            )
    outputs = tuple(
        OutputAgreement(signature=signature, output=output, max_abs=d.max_abs, max_rel=d.max_rel, top1=d.top1)
        for (signature, output), d in distances.items()
    )
    shares = [each.top1 for each in outputs if each.top1 is not None]
    agreement = Agreement(
        original=original,
        samples=min(each.count for each in samples.values()),
        random=any(each.random for each in samples.values()),
        max_abs=max(each.max_abs for each in outputs),
        max_rel=max(each.max_rel for each in outputs),
        top1=min(shares, default=None),
        tolerance=tolerance,
    )
    return agreement, outputs
