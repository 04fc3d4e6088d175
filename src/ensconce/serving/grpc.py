"""The gRPC front: TensorFlow Serving's two services, as far as they are served, and the standard health service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from ensconce.serving.answers import answer_metadata, answer_predict, answer_status
from ensconce.serving.limits import Limits
from ensconce.serving.manager import ModelManager
from ensconce.serving.workers import Workers
from ensconce.tfserving.messages import (
    MODEL_SERVICE,
    PREDICTION_SERVICE,
    GetModelMetadataRequest,
    GetModelStatusRequest,
    PredictRequest,
)
from ensconce.tfserving.refusal import Code, RequestError

__all__ = ["GrpcServer"]

# model_servers/grpc_status_util.cc
_LONGEST_TEXT: Final = 1024
_CODES: Final[dict[int, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}
_HOLD_SECONDS: Final = 0.1


class GrpcServer:
    """Serves ``PredictionService``, ``ModelService`` and ``grpc.health.v1.Health`` until it is stopped.

    Methods of the two services that are missing here answer UNIMPLEMENTED.
    """

    def __init__(self, manager: ModelManager, workers: Workers, limits: Limits) -> None:
        """Prepare, within the event loop that is to serve; nothing is served yet.

        Args:
            manager: knows the models.
            workers: where predictions are computed.
            limits: what a client may ask for.
        """
        self._manager, self._workers = manager, workers
        self._tensor_bytes = limits.message_bytes
        self._may_answer = asyncio.Event()
        self._may_answer.set()
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs lack the asyncio variant
        self._server = grpc.aio.server(options=_options(limits))
        self._server.add_generic_rpc_handlers(self._handlers())
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def start(self, address: str, credentials: grpc.ServerCredentials) -> int:
        """Listen on ``host:port`` and serve; returns the port.

        Raises:
            RuntimeError: gRPC cannot listen there; it does not say why.
        """
        port = self._server.add_secure_port(address, credentials)
        for service in ("", PREDICTION_SERVICE, MODEL_SERVICE):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()
        return port

    async def stop(self, grace: float) -> None:
        """Answer what has been asked, for ``grace`` seconds at most; then close every connection.

        gRPC cancels requests that reach it after it began to stop, and clients that have just got an answer send the
        next one at once. So answers are held back for a moment, until every waiting client's request is here, then
        clients are told to go elsewhere (GOAWAY), and then they get their answers.
        """
        await self._health.enter_graceful_shutdown()
        self._may_answer.clear()
        await asyncio.sleep(min(_HOLD_SECONDS, grace))
        stopping = asyncio.create_task(self._server.stop(grace))
        await asyncio.sleep(min(_HOLD_SECONDS, grace))
        self._may_answer.set()
        await stopping

    def _handlers(self) -> tuple[grpc.GenericRpcHandler[Any, Any], ...]:
        def predict(request: Any) -> Any:
            return answer_predict(self._manager, request, tensor_bytes=self._tensor_bytes)

        def metadata(request: Any) -> Any:
            return answer_metadata(self._manager, request)

        def status(request: Any) -> Any:
            return answer_status(self._manager, request)

        prediction = {
            "Predict": self._unary(PredictRequest, predict),
            "GetModelMetadata": self._unary(GetModelMetadataRequest, metadata),
        }
        model = {"GetModelStatus": self._unary(GetModelStatusRequest, status)}
        return (
            grpc.method_handlers_generic_handler(PREDICTION_SERVICE, prediction),
            grpc.method_handlers_generic_handler(MODEL_SERVICE, model),
        )

    def _unary(self, request_class: Any, answer: Callable[[Any], Any]) -> Any:
        """A handler from bytes to bytes: messages are read and written in a worker's thread, not the event loop."""

        def job(data: bytes) -> bytes:
            try:
                request = request_class.FromString(data)
            except DecodeError:
                raise RequestError(Code.INTERNAL, "Unable to parse the request") from None
            serialized: bytes = answer(request).SerializeToString()
            return serialized

        async def handler(data: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                response = await self._workers.run(lambda: job(data))
            except RequestError as error:
                text = error.problem
                if len(text) > _LONGEST_TEXT:
                    text = text[:_LONGEST_TEXT] + "...TRUNCATED"
                return await context.abort(_CODES[error.code], text)
            await self._may_answer.wait()
            return response

        return grpc.unary_unary_rpc_method_handler(handler)


def _options(limits: Limits) -> list[tuple[str, int]]:
    return [
        # Two servers on one port would share its clients unnoticed.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", limits.message_bytes),
        ("grpc.max_connection_age_ms", int(limits.connection_age * 1000)),
        ("grpc.max_connection_age_grace_ms", int(limits.connection_grace * 1000)),
        ("grpc.max_concurrent_streams", limits.requests),
    ]
