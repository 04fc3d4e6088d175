"""Answers a recorded request with one version, in the thread that loads it: no manager, no scheduler, no event loop.

What servables/tensorflow/saved_model_warmup.cc does with each kind of record.
"""

from __future__ import annotations

from typing import Any, Final

from ensconce.serving.answers import Prediction, read_predict, write_predict
from ensconce.serving.answers_examples import (
    read_classify,
    read_multi_inference,
    read_regress,
    write_classify,
    write_multi_inference,
    write_regress,
)
from ensconce.serving.manager import LoadedServable, ModelManager
from ensconce.tfserving.tensor import Array

__all__ = ["replay"]

_TENSOR_BYTES: Final = 128 << 20


def replay(loaded: LoadedServable, log: Any) -> None:
    """Answer the request in a ``PredictionLog`` and forget the answer; a :data:`~ensconce.serving.warmup.Replay`.

    Raises:
        RequestError: the version cannot answer it.
    """
    kind = log.WhichOneof("log_type")
    request = type(getattr(log, kind).request)()
    request.CopyFrom(getattr(log, kind).request)
    specs = [task.model_spec for task in request.tasks] if kind == "multi_inference_log" else [request.model_spec]
    for spec in specs:
        # Whatever model and version were recorded, this one is to be warm.
        spec.name = loaded.name
        spec.ClearField("version_choice")
    alone = ModelManager()
    alone.add(loaded.name, loaded.version, loaded.servable)
    if kind == "predict_log":
        asked = read_predict(alone, request, tensor_bytes=_TENSOR_BYTES)
        write_predict(asked, _computed(asked))
    elif kind == "classify_log":
        asked = read_classify(alone, request, tensor_bytes=_TENSOR_BYTES)
        write_classify(asked, _computed(asked))
    elif kind == "regress_log":
        asked = read_regress(alone, request, tensor_bytes=_TENSOR_BYTES)
        write_regress(asked, _computed(asked))
    else:
        tasks = read_multi_inference(alone, request, tensor_bytes=_TENSOR_BYTES)
        write_multi_inference(tasks, [_computed(task.prediction) for task in tasks])


def _computed(asked: Prediction) -> dict[str, Array]:
    inputs = asked.signature.complete(asked.inputs)
    return asked.loaded.servable.predict(asked.signature.name, inputs, asked.output_filter)
