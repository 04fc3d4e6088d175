"""One batch through the model: merge, compute, split; and the first time, see whether that is right."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ensconce.serving.batching.pace import Pace, agree
from ensconce.serving.batching.padding import check_rows, merge_inputs, split_outputs
from ensconce.serving.batching.parameters import Parameters
from ensconce.serving.batching.tasks import Outcome, Part
from ensconce.serving.unforeseen import unforeseen
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.tensor import Array

__all__ = ["Computed", "compute"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Computed:
    """What became of a batch.

    Attributes:
        outcomes: outputs or a refusal for each part, in order; None when the merged computation failed, which says
            nothing about any one of them.
        rows: that were computed at once, padding among them.
        padding: how many of these nobody asked for.
        started: when, by the clock of the scheduler.
        seconds: what it took.
    """

    outcomes: Sequence[Outcome] | None
    rows: int
    padding: int
    started: float
    seconds: float


def compute(parts: Sequence[Part], parameters: Parameters | None, started: float) -> Computed:
    """Compute what is asked of one signature of one servable.

    Args:
        parts: at least one; more than one only where they may be merged.
        parameters: rule padding, if given; outputs must then have as many rows as the inputs. Without them the
            signature's pace learns, and merging is tried first.
        started: when this is.
    """
    start, worked = time.perf_counter(), time.thread_time()
    request = parts[0].request
    if request.plan.mates is None:
        outcome = _alone(parts[0])
        seconds = time.perf_counter() - start
        if request.plan.shape is not None:
            request.plan.pace.worked(request.plan.shape, request.plan.rows, time.thread_time() - worked, seconds)
        return Computed([outcome], request.plan.rows, 0, started, seconds)
    if parameters is None and not request.plan.pace.proved and len(parts) > 1:
        outcomes = _tried(parts, request.plan.pace)
        return Computed(outcomes, max(part.rows for part in parts), 0, started, time.perf_counter() - start)
    rows = sum(part.rows for part in parts)
    padded = parameters.padded(rows) if parameters is not None else rows
    try:
        outputs = _predict(parts, padded)
        if parameters is not None or len(parts) > 1:
            check_rows(outputs, padded)
    except RequestError as error:
        seconds = time.perf_counter() - start
        return Computed([error] if len(parts) == 1 else None, padded, padded - rows, started, seconds)
    seconds = time.perf_counter() - start
    if parameters is None:
        request.plan.pace.measured(rows, seconds)
        if request.plan.shape is not None:
            request.plan.pace.worked(request.plan.shape, rows, time.thread_time() - worked, seconds)
    whole = len(parts) == 1 and padded == rows
    split = [outputs] if whole else split_outputs(outputs, [part.rows for part in parts])
    return Computed(split, padded, padded - rows, started, seconds)


def _tried(parts: Sequence[Part], pace: Pace) -> list[Outcome]:
    """Each part's own result, and with them whether merging would have given the same.

    A signature that says -1 in front does not say that its rows know nothing of each other. A model whose do would tell
    one client of another's data; so its word is not taken for it. What is answered here was computed alone.
    """
    outcomes = [_alone(part) for part in parts]
    good = [part for part, outcome in zip(parts, outcomes, strict=True) if not isinstance(outcome, RequestError)]
    if len(good) < 2 or not pace.merges:
        return outcomes
    rows = sum(part.rows for part in good)
    try:
        outputs = _predict(good, rows)
        check_rows(outputs, rows)
    except RequestError:
        pace.tried(False)
        return outcomes
    merged = split_outputs(outputs, [part.rows for part in good])
    pace.tried(agree(merged, [each for each in outcomes if not isinstance(each, RequestError)]))
    if not pace.merges:
        request = parts[0].request
        _log.warning(
            "signature %s of model %s version %d gives other results when requests are merged; they no longer are",
            request.plan.signature,
            request.loaded.name,
            request.loaded.version,
        )
    return outcomes


def _alone(part: Part) -> Outcome:
    try:
        return _predict([part], part.rows)
    except RequestError as error:
        return error


def _predict(parts: Sequence[Part], rows: int) -> dict[str, Array]:
    """What the servable answers, or the refusal that it raises; nothing else comes out of here."""
    request = parts[0].request
    try:
        if len(parts) == 1 and rows == parts[0].rows:
            inputs = parts[0].inputs()
        else:
            inputs = merge_inputs([part.inputs() for part in parts], rows)
        outputs = request.loaded.servable.predict(request.plan.signature, inputs, request.plan.outputs)
        if not (isinstance(outputs, dict) and all(isinstance(each, np.ndarray) for each in outputs.values())):
            raise TypeError
        return outputs
    except RequestError:
        raise
    except BaseException as error:  # SystemExit as well: a thread that ended would be missed for ever
        raise RequestError(Code.INTERNAL, unforeseen(error)) from None
