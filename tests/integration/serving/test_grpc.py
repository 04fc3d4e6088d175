from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ensconce.tfserving import messages
from ensconce.tfserving.messages import MODEL_SERVICE, PREDICTION_SERVICE
from ensconce.tfserving.tensor import from_proto, to_proto

Held = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
Call = Callable[..., Any]


def secure_channel(target: str, root_pem: bytes, *options: tuple[str, Any]) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(
        target,
        grpc.ssl_channel_credentials(root_pem),
        options=[("grpc.ssl_target_name_override", "models.example"), *options],
    )


@pytest.fixture
async def channel(running: Any) -> AsyncIterator[grpc.aio.Channel]:
    async with secure_channel(f"127.0.0.1:{running.ports.grpc}", running.issuer.root_pem) as channel:
        yield channel


def method(channel: grpc.aio.Channel, service: str, name: str, answer: Any = None) -> Call:
    return channel.unary_unary(
        f"/{service}/{name}",
        request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
        response_deserializer=answer.FromString if answer else None,
    )


@pytest.fixture
def predict(channel: grpc.aio.Channel) -> Call:
    return method(channel, PREDICTION_SERVICE, "Predict", messages.PredictResponse)


def request(images: Any = None, *, name: str = "digits", signature: str = "", **inputs: Any) -> Any:
    message = messages.PredictRequest()
    message.model_spec.name = name
    message.model_spec.signature_name = signature
    if images is not None:
        inputs["images"] = images
    for key, array in inputs.items():
        message.inputs[key].CopyFrom(to_proto(array))
    return message


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_predictions_over_tls(predict: Call, held_out: Held) -> None:
    images, labels = held_out
    response = await predict(request(images))
    assert (from_proto(response.outputs["classes"]) == labels).mean() >= 0.98
    assert len(response.outputs["probabilities"].float_val) == 3600
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("digits", 3, "serving_default")


async def test_version_content_and_filter(predict: Call, held_out: Held) -> None:
    message = request()
    message.model_spec.version.value = 1
    tensor = message.inputs["images"]
    tensor.dtype, tensor.tensor_content = 1, held_out[0][:1].tobytes()
    for size in (1, 8, 8, 1):
        tensor.tensor_shape.dim.add(size=size)
    message.output_filter.append("classes")
    response = await predict(message)
    assert set(response.outputs) == {"classes"}
    assert response.model_spec.version.value == 1


IMAGE = np.zeros((1, 8, 8, 1), np.float32)


def with_version(version: int) -> Any:
    message = request(IMAGE)
    message.model_spec.version.value = version
    return message


def with_label() -> Any:
    message = request(IMAGE)
    message.model_spec.version_label = "stable"
    return message


def with_dimension(size: int) -> Any:
    message = request(IMAGE)
    message.inputs["images"].tensor_shape.dim[0].size = size
    return message


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        (messages.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (request(IMAGE, name=""), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (request(IMAGE, name="x"), "NOT_FOUND", "Servable not found for request: Latest(x)"),
        (with_version(7), "NOT_FOUND", "Servable not found for request: Specific(digits, 7)"),
        (with_label(), "INVALID_ARGUMENT", "Unrecognized servable version label: stable"),
        (request(IMAGE, signature="z"), "FAILED_PRECONDITION", 'Serving signature key "z" not found.'),
        (request(), "INVALID_ARGUMENT", "input size does not match signature: 0!=1 len({}) != len({images})."),
        (request(pixels=IMAGE), "INVALID_ARGUMENT", "Signature input alias: images(feed name: images) not found"),
        (request(IMAGE.astype("f8")), "INVALID_ARGUMENT", "Expects arg[0] to be float but double is provided"),
        (with_dimension(-1), "INVALID_ARGUMENT", "tensor parsing error: images: the shape [-1,8,8,1] has a negative"),
        (with_dimension(1 << 50), "INVALID_ARGUMENT", "tensor parsing error: images: the shape"),
        (request(IMAGE[:, :7]), "INVALID_ARGUMENT", "Expects arg[0] (images) to have shape [-1,8,8,1] but had shape"),
    ],
)
async def test_refusals_have_the_originals_codes_and_texts(predict: Call, message: Any, code: str, text: str) -> None:
    status, details = await refused(predict(message))
    assert status is grpc.StatusCode[code]
    assert details.startswith(text)


async def test_long_texts_are_cut_as_in_the_original(predict: Call) -> None:
    _, details = await refused(predict(request(IMAGE, name="x" * 3000)))
    assert len(details) == 1024 + len("...TRUNCATED")
    assert details.endswith("...TRUNCATED")


async def test_bytes_that_are_no_message_and_messages_that_are_too_long_leave_the_server_up(
    predict: Call, held_out: Held
) -> None:
    status, _ = await refused(predict(b"\xff\xff\xff"))
    assert status is grpc.StatusCode.INTERNAL
    status, _ = await refused(predict(b"\x0a" * (129 << 20)))
    assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await predict(request(held_out[0][:1]))).outputs


async def test_metadata(channel: grpc.aio.Channel) -> None:
    call = method(channel, PREDICTION_SERVICE, "GetModelMetadata", messages.GetModelMetadataResponse)
    message = messages.GetModelMetadataRequest(metadata_field=["signature_def"])
    message.model_spec.name = "digits"
    response = await call(message)
    signatures = messages.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert response.model_spec.version.value == 3
    assert set(signatures.signature_def["serving_default"].outputs) == {"classes", "probabilities"}

    message.metadata_field[:] = ["other"]
    assert await refused(call(message)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Metadata field other is not supported",
    )
    message.metadata_field[:] = []
    assert await refused(call(message)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "GetModelMetadataRequest must specify at least one metadata_field",
    )


async def test_status(channel: grpc.aio.Channel) -> None:
    call = method(channel, MODEL_SERVICE, "GetModelStatus", messages.GetModelStatusResponse)
    message = messages.GetModelStatusRequest()
    assert await refused(call(message)) == (grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
    message.model_spec.name = "digits"
    statuses = (await call(message)).model_version_status
    assert [(s.version, s.state, s.status.error_code) for s in statuses] == [(3, 30, 0), (1, 30, 0)]
    message.model_spec.version.value = 2
    assert await refused(call(message)) == (
        grpc.StatusCode.NOT_FOUND,
        "Could not find version 2 of model digits",
    )


@pytest.mark.parametrize(
    ("service", "name"),
    [
        (PREDICTION_SERVICE, "PredictStreamed"),
        (MODEL_SERVICE, "HandleReloadConfigRequest"),
    ],
)
async def test_what_is_not_served_is_unimplemented(channel: grpc.aio.Channel, service: str, name: str) -> None:
    status, _ = await refused(method(channel, service, name)(b""))
    assert status is grpc.StatusCode.UNIMPLEMENTED


async def test_health(channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", PREDICTION_SERVICE, MODEL_SERVICE):
        response = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert response.status == health_pb2.HealthCheckResponse.SERVING


async def test_many_at_once_get_their_own_answers(predict: Call, held_out: Held) -> None:
    images, _ = held_out
    whole = from_proto((await predict(request(images))).outputs["probabilities"])
    answers = await asyncio.gather(*(predict(request(images[i : i + 1])) for i in range(120)))
    for index, answer in enumerate(answers):
        np.testing.assert_allclose(from_proto(answer.outputs["probabilities"])[0], whole[index], atol=1e-5)


async def test_no_channel_without_the_right_root(running: Any) -> None:
    other = type(running.issuer)().root_pem
    async with secure_channel(f"127.0.0.1:{running.ports.grpc}", other) as channel:
        status, _ = await refused(method(channel, PREDICTION_SERVICE, "Predict")(b""))
    assert status is grpc.StatusCode.UNAVAILABLE


async def test_examples(channel: grpc.aio.Channel) -> None:
    classify = method(channel, PREDICTION_SERVICE, "Classify", messages.ClassificationResponse)
    message = messages.ClassificationRequest()
    assert await refused(classify(message)) == (grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
    message.model_spec.name = "digits"
    status, text = await refused(classify(message))
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert text.startswith("No classification inputs found in SignatureDef: ")
    status, text = await refused(method(channel, PREDICTION_SERVICE, "Regress")(message))
    assert (status, text) == (grpc.StatusCode.INVALID_ARGUMENT, "Expected one output Tensor.")
    status, text = await refused(method(channel, PREDICTION_SERVICE, "MultiInference")(b""))
    assert (status, text) == (grpc.StatusCode.INVALID_ARGUMENT, "ModelSpec has no name specified.")
    status, _ = await refused(classify(b"\xff"))
    assert status is grpc.StatusCode.INTERNAL
