"""The methods that take examples: Classify, Regress and MultiInference."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

from ensconce.serving.answers import Prediction
from ensconce.serving.answers_examples import (
    predict_all,
    read_classify,
    read_multi_inference,
    read_regress,
    write_classify,
    write_multi_inference,
    write_regress,
)
from ensconce.serving.batching.scheduler import Scheduler
from ensconce.serving.grpc.call import Message, Note, Unary
from ensconce.serving.grpc.messages import parse, serialize
from ensconce.serving.limits import Limits
from ensconce.serving.manager import ModelManager
from ensconce.serving.observing import Method
from ensconce.tfserving.messages import UnreadExamplesRequest, UnreadMultiInferenceRequest

__all__ = ["example_methods"]

Outputs = Sequence[dict[str, Any]]


def example_methods(
    manager: ModelManager,
    scheduler: Scheduler,
    limits: Limits,
    threads: Executor,
    small_bytes: int,
    *,
    check_method_names: bool,
) -> dict[str, Unary]:
    """The methods by name.

    Args:
        manager: knows the models.
        scheduler: computes predictions.
        limits: of tensors.
        threads: where requests are read and answers written, when either has more than ``small_bytes``.
        small_bytes: see ``threads``.
        check_method_names: whether signatures must say what they are for (``--enable_signature_method_name_check``).
    """

    def unary(
        name: Method,
        request_class: Any,
        read: Callable[..., Any],
        predictions: Callable[[Any], Sequence[Prediction]],
        write: Callable[[Any, Outputs], Any],
    ) -> Unary:
        def begin(data: Message, note: Note) -> Any:
            request = parse(request_class, data)
            note.model = _model_of(request)
            asked = read(manager, request, tensor_bytes=limits.message_bytes, check_method_name=check_method_names)
            for each in predictions(asked)[:1]:
                note.loaded, note.signature = each.loaded, each.signature.name
            return asked

        def end(asked: Any, outputs: Outputs) -> bytes:
            return serialize(write(asked, outputs))

        async def handle(data: Message, note: Note) -> bytes:
            loop = asyncio.get_running_loop()
            small = len(data) <= small_bytes
            asked = begin(data, note) if small else await loop.run_in_executor(threads, begin, data, note)
            outputs = await predict_all(scheduler, predictions(asked))
            if small and sum(array.nbytes for each in outputs for array in each.values()) <= small_bytes:
                return end(asked, outputs)
            return await loop.run_in_executor(threads, end, asked, outputs)

        return Unary(handle, name)

    def alone(asked: Prediction) -> Sequence[Prediction]:
        return (asked,)

    return {
        "Classify": unary(
            "Classify", UnreadExamplesRequest, read_classify, alone, lambda asked, out: write_classify(asked, out[0])
        ),
        "Regress": unary(
            "Regress", UnreadExamplesRequest, read_regress, alone, lambda asked, out: write_regress(asked, out[0])
        ),
        "MultiInference": unary(
            "MultiInference",
            UnreadMultiInferenceRequest,
            read_multi_inference,
            lambda tasks: [task.prediction for task in tasks],
            write_multi_inference,
        ),
    }


def _model_of(request: Any) -> str:
    """The model that is asked for; of several tasks, the first one's, which must be everyone's."""
    tasks = getattr(request, "tasks", None)
    name: str = request.model_spec.name if tasks is None else tasks[0].model_spec.name if tasks else ""
    return name
