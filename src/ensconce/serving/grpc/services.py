"""What is served: the methods of TensorFlow Serving's two services, by path."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from typing import Any

from ensconce.serving.answers import (
    Prediction,
    answer_metadata,
    answer_status,
    read_predict,
    write_predict,
)
from ensconce.serving.batching.scheduler import Scheduler
from ensconce.serving.batching.tasks import Outcome
from ensconce.serving.grpc.call import Message, Note, Streaming, Tell, Unary
from ensconce.serving.grpc.examples import example_methods
from ensconce.serving.grpc.messages import parse, serialize
from ensconce.serving.grpc.repeats import Repeats, Spec, spec_in
from ensconce.serving.limits import Limits
from ensconce.serving.manager import ModelManager
from ensconce.serving.observing import Method
from ensconce.tfserving.bulk import Bulk, cut_out
from ensconce.tfserving.messages import (
    MODEL_SERVICE,
    PREDICTION_SERVICE,
    GetModelMetadataRequest,
    GetModelStatusRequest,
    PredictRequest,
    ReloadConfigRequest,
)
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.tensor import Array

__all__ = ["Reload", "serving_methods"]

Reload = Callable[[Any], Awaitable[Any]]
"""Takes a ``ReloadConfigRequest``, gives a ``ReloadConfigResponse``, or raises RequestError."""
Answer = Callable[[Any], Awaitable[Any]]


def serving_methods(
    manager: ModelManager,
    scheduler: Scheduler,
    limits: Limits,
    threads: Executor,
    small_bytes: int,
    reload: Reload | None,
    *,
    check_method_names: bool = False,
    as_content: bool = False,
) -> dict[str, dict[str, Unary | Streaming]]:
    """The methods by service and name.

    Args:
        manager: knows the models.
        scheduler: computes predictions.
        limits: of tensors.
        threads: where messages are read and written that have more than ``small_bytes``.
        small_bytes: see ``threads``.
        reload: see :class:`GrpcServer`.
        check_method_names: see there.
        as_content: see there.
    """

    repeats = Repeats(manager, scheduler)

    async def metadata(request: Any) -> Any:
        return answer_metadata(manager, request)

    async def status(request: Any) -> Any:
        return answer_status(manager, request)

    async def reload_config(request: Any) -> Any:
        if reload is None:
            raise RequestError(Code.UNIMPLEMENTED, "HandleReloadConfigRequest is not enabled in this server")
        return await reload(request)

    def unary(request_class: Any, answer: Answer, name: Method = "") -> Unary:
        async def handle(data: Message, note: Note) -> bytes:
            if len(data) <= small_bytes:
                request = parse(request_class, data)
            else:
                request = await asyncio.get_running_loop().run_in_executor(threads, parse, request_class, data)
            if name:
                note.model = request.model_spec.name
            return serialize(await answer(request))

        return Unary(handle, name)

    def read(data: bytes, bulk: Mapping[str, Bulk], note: Note) -> tuple[Spec, Prediction]:
        request = parse(PredictRequest, data)
        note.model = request.model_spec.name
        asked = read_predict(manager, request, bulk, tensor_bytes=limits.message_bytes)
        note.loaded, note.signature = asked.loaded, asked.signature.name
        return spec_in(request), asked

    def write(prediction: Prediction, outputs: Mapping[str, Array]) -> bytes:
        return write_predict(prediction, outputs, as_content=as_content)

    def quick(data: Message, note: Note, tell: Tell) -> Callable[[], None] | None:
        if (found := repeats.find(data)) is None:
            return None
        prediction, plan = found
        note.loaded, note.model, note.signature = prediction.loaded, prediction.loaded.name, plan.signature

        def told(outcome: Outcome) -> None:
            try:
                if isinstance(outcome, RequestError):
                    raise outcome
                if sum([array.nbytes for array in outcome.values()]) > small_bytes:
                    later = asyncio.get_running_loop().run_in_executor(threads, write, prediction, outcome)
                    later.add_done_callback(lambda done: done.cancelled() or tell(done.exception() or done.result()))
                    return
                answer = write(prediction, outcome)
            except Exception as error:  # whoever is told next must not miss it for this one
                tell(error)
            else:
                tell(answer)

        request = scheduler.begin(prediction.loaded, plan, prediction.inputs, told)
        return lambda: scheduler.leave(request)

    async def predict(data: Message, note: Note) -> bytes:
        # However long the message, what is left of it is short, unless its tensors are of types that come as varints.
        short, bulk = cut_out(data)
        if len(short) <= small_bytes:
            spec, asked = read(short, bulk, note)
        else:
            spec, asked = await asyncio.get_running_loop().run_in_executor(threads, read, short, bulk, note)
        outputs = await scheduler.predict(asked.loaded, asked.signature.name, asked.inputs, asked.output_filter)
        repeats.learn(data, spec, asked)
        if sum([array.nbytes for array in outputs.values()]) <= small_bytes:
            return write(asked, outputs)
        return await asyncio.get_running_loop().run_in_executor(threads, write, asked, outputs)

    return {
        PREDICTION_SERVICE: {
            "Predict": Unary(predict, "Predict", quick),
            **example_methods(manager, scheduler, limits, threads, small_bytes, check_method_names=check_method_names),
            "GetModelMetadata": unary(GetModelMetadataRequest, metadata, "GetModelMetadata"),
        },
        MODEL_SERVICE: {
            "GetModelStatus": unary(GetModelStatusRequest, status, "GetModelStatus"),
            "HandleReloadConfigRequest": unary(ReloadConfigRequest, reload_config),
        },
    }
