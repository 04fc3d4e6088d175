"""What is served: the methods of TensorFlow Serving's two services, by path."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any

from ensconce.serving.answers import (
    Scheduler,
    answer_metadata,
    answer_status,
    read_predict,
    write_predict,
)
from ensconce.serving.grpc.call import Streaming, Unary
from ensconce.serving.grpc.examples import example_methods
from ensconce.serving.grpc.messages import parse, serialize
from ensconce.serving.limits import Limits
from ensconce.serving.manager import ModelManager
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
    """

    async def metadata(request: Any) -> Any:
        return answer_metadata(manager, request)

    async def status(request: Any) -> Any:
        return answer_status(manager, request)

    async def reload_config(request: Any) -> Any:
        if reload is None:
            raise RequestError(Code.UNIMPLEMENTED, "HandleReloadConfigRequest is not enabled in this server")
        return await reload(request)

    def unary(request_class: Any, answer: Answer) -> Unary:
        async def handle(data: bytes) -> bytes:
            if len(data) <= small_bytes:
                return serialize(await answer(parse(request_class, data)))
            loop = asyncio.get_running_loop()
            response = await answer(await loop.run_in_executor(threads, parse, request_class, data))
            return await loop.run_in_executor(threads, serialize, response)

        return Unary(handle)

    def read(data: bytes) -> Any:
        return read_predict(manager, parse(PredictRequest, data), tensor_bytes=limits.message_bytes)

    def write(prediction: Any, outputs: dict[str, Array]) -> bytes:
        return serialize(write_predict(prediction, outputs))

    async def predict(data: bytes) -> bytes:
        """As ``unary`` would, but arrays are made and written where messages are."""
        if len(data) <= small_bytes:
            prediction = read(data)
        else:
            prediction = await asyncio.get_running_loop().run_in_executor(threads, read, data)
        outputs = await scheduler.predict(
            prediction.loaded, prediction.signature.name, prediction.inputs, prediction.output_filter
        )
        if sum(array.nbytes for array in outputs.values()) <= small_bytes:
            return write(prediction, outputs)
        return await asyncio.get_running_loop().run_in_executor(threads, write, prediction, outputs)

    return {
        PREDICTION_SERVICE: {
            "Predict": Unary(predict),
            **example_methods(manager, scheduler, limits, threads, small_bytes, check_method_names=check_method_names),
            "GetModelMetadata": unary(GetModelMetadataRequest, metadata),
        },
        MODEL_SERVICE: {
            "GetModelStatus": unary(GetModelStatusRequest, status),
            "HandleReloadConfigRequest": unary(ReloadConfigRequest, reload_config),
        },
    }
