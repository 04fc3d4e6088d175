"""The gRPC front as a grpcio client, a raw one and h2load see it; the models behind it are the tests' own."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import socket
import subprocess
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hpack import Decoder

from ensconce.serving.batching.pace import Pace
from ensconce.serving.batching.plans import Plan
from ensconce.serving.grpc import GrpcServer
from ensconce.serving.grpc.call import Front, Unary, UnaryCall
from ensconce.serving.grpc.messages import parse
from ensconce.serving.http2 import frames
from ensconce.serving.http2.frames import PREFACE, Type
from ensconce.serving.http2.headers import Request as HeadRequest
from ensconce.serving.http2.headers import encode_block
from ensconce.serving.limits import Limits
from ensconce.serving.manager import LoadedServable, ModelManager
from ensconce.serving.observing import Answered
from ensconce.tfserving import messages
from ensconce.tfserving.dtypes import dtype_named
from ensconce.tfserving.messages import MODEL_SERVICE, POOL, PREDICTION_SERVICE
from ensconce.tfserving.signatures import Signature, TensorSpec
from ensconce.tfserving.tensor import from_proto, to_proto

MIB = 1 << 20
FLOAT = TensorSpec("x", dtype_named("DT_FLOAT"), None)
PREDICT = f"/{PREDICTION_SERVICE}/Predict"


class Echo:
    signatures: Mapping[str, Signature] = {
        "serving_default": Signature("serving_default", "tensorflow/serving/predict", {"x": FLOAT}, {"y": FLOAT})
    }

    def predict(self, signature_name: str, inputs: Mapping[str, Any], output_filter: Sequence[str] = ()) -> Any:
        return {"y": inputs["x"]}


@dataclass
class Slow:
    """A scheduler that computes when it is told to, and knows who gave up."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    cancelled: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def predict(
        self, loaded: LoadedServable, signature_name: str, inputs: Any, output_filter: Sequence[str] = ()
    ) -> Any:
        self.entered.release()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.release()
            raise
        return loaded.servable.predict(signature_name, inputs, output_filter)

    def plan(
        self, loaded: LoadedServable, signature: Signature, inputs: Any, output_filter: Sequence[str] = ()
    ) -> Plan:
        return Plan(signature.name, signature.choose_outputs(output_filter), Pace(False), 0, None, None, 0)

    def begin(self, loaded: LoadedServable, plan: Plan, inputs: Any, tell: Callable[[Any], object]) -> Any:
        task = asyncio.create_task(self.predict(loaded, plan.signature, inputs, plan.outputs))
        task.add_done_callback(lambda done: done.cancelled() or tell(done.result()))
        return task

    def leave(self, request: asyncio.Task[Any]) -> None:
        request.cancel()


@dataclass
class Served:
    server: GrpcServer
    scheduler: Slow
    port: int
    path: Path
    channel: grpc.aio.Channel
    predict: Any
    told: list[Answered]


OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    manager, scheduler = ModelManager(), Slow()
    manager.add("echo", 1, Echo())
    told: list[Answered] = []
    server = GrpcServer(manager, scheduler, Limits(), observe=told.append)
    listener = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "socket"))
    unix.listen()
    for each in (listener, unix):
        each.setblocking(False)
        await server.listen(each, None)
    port = listener.getsockname()[1]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
        call = channel.unary_unary(PREDICT, lambda m: m.SerializeToString(), messages.PredictResponse.FromString)
        yield Served(server, scheduler, port, tmp_path / "socket", channel, call, told)
    await server.stop(0)


def ask(*values: float, size: int = 0) -> Any:
    message = messages.PredictRequest()
    message.model_spec.name = "echo"
    array = np.arange(size, dtype=np.float32) if size else np.array(values, np.float32)
    message.inputs["x"].CopyFrom(to_proto(array))
    return message


async def refused(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, caught.value.details() or ""


async def test_a_call_waits_no_longer_than_its_deadline(served: Served) -> None:
    assert (await refused(served.predict(ask(1), timeout=0.2)))[0] == "DEADLINE_EXCEEDED"
    await asyncio.wait_for(served.scheduler.cancelled.acquire(), 10)


async def test_a_cancelled_call_is_given_up(served: Served) -> None:
    call = served.predict(ask(1))
    waiting = asyncio.ensure_future(call)
    await asyncio.wait_for(served.scheduler.entered.acquire(), 10)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(served.scheduler.cancelled.acquire(), 10)


async def test_a_lost_connection_gives_up_its_calls(served: Served) -> None:
    other = grpc.aio.insecure_channel(f"127.0.0.1:{served.port}")
    call = asyncio.ensure_future(other.unary_unary(PREDICT)(ask(1).SerializeToString()))
    await asyncio.wait_for(served.scheduler.entered.acquire(), 10)
    await other.close()
    await asyncio.wait_for(served.scheduler.cancelled.acquire(), 10)
    with pytest.raises(BaseException):  # noqa: B017  # cancelled by the channel, in one way or another
        await call


async def test_calls_are_told_to_whoever_counts(served: Served) -> None:
    served.scheduler.open.set()
    await served.predict(ask(1))
    wrong = ask(1)
    wrong.model_spec.signature_name = "none"
    await refused(served.predict(wrong))
    wrong.model_spec.name = "a name of a client's own"
    await refused(served.predict(wrong))
    await refused(served.channel.unary_unary("/nothing")(b""))
    served.scheduler.open.clear()
    await refused(served.predict(ask(1), timeout=0.1))
    await asyncio.wait_for(served.scheduler.cancelled.acquire(), 10)
    told = [(each.method, each.model, each.version, each.signature, each.code.name) for each in served.told]
    assert told[:3] == [
        ("Predict", "echo", 1, "serving_default", "OK"),
        ("Predict", "echo", None, "", "FAILED_PRECONDITION"),
        ("Predict", "", None, "", "NOT_FOUND"),
    ]
    assert told[3][:4] == ("Predict", "echo", 1, "serving_default")
    assert told[3][4] in ("DEADLINE_EXCEEDED", "CANCELLED")
    first = served.told[0]
    assert (first.entrypoint, first.status, first.received) == ("GRPC", 0, 5 + len(MESSAGE))
    assert first.sent > 0
    assert first.peer.startswith("127.0.0.1:")
    assert served.server.connections == 1
    assert served.server.held_bytes == 0


async def test_over_a_unix_socket(served: Served) -> None:
    served.scheduler.open.set()
    async with grpc.aio.insecure_channel(f"unix:{served.path}") as channel:
        data = await channel.unary_unary(PREDICT)(ask(1, 2).SerializeToString())
    assert list(from_proto(messages.PredictResponse.FromString(data).outputs["y"])) == [1, 2]


async def test_values_in_either_form_are_answered_in_the_form_that_the_server_has(served: Served) -> None:
    served.scheduler.open.set()
    manager = ModelManager()
    manager.add("echo", 1, Echo())
    server = GrpcServer(manager, served.scheduler, Limits(), as_content=True)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    await server.listen(listener, None)
    values = np.arange(100_000, dtype=np.float32)
    content = ask(size=len(values))
    content.inputs["x"].ClearField("float_val")
    content.inputs["x"].tensor_content = values.tobytes()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{listener.getsockname()[1]}") as channel:
        call = channel.unary_unary(PREDICT, lambda m: m.SerializeToString(), messages.PredictResponse.FromString)
        for request in (content, ask(size=len(values))):
            one, other = await served.predict(request), await call(request)
            assert one.outputs["y"].float_val == values.tolist()
            assert not one.outputs["y"].tensor_content
            assert other.outputs["y"].tensor_content == values.tobytes()
            assert not other.outputs["y"].float_val
            one.outputs["y"].Clear()
            other.outputs["y"].Clear()
            assert one == other
    await server.stop(0)


async def test_messages_of_a_hundred_megabytes_both_ways(served: Served) -> None:
    served.scheduler.open.set()
    size = 25 * MIB
    response = await served.predict(ask(size=size))
    array = from_proto(response.outputs["y"])
    assert array.shape == (size,)
    assert array[-1] == np.float32(size - 1)


async def test_a_message_that_is_too_long_is_refused_before_it_comes(served: Served) -> None:
    code, text = await refused(served.channel.unary_unary(PREDICT)(bytes(128 * MIB + 1)))
    assert (code, text) == (
        "RESOURCE_EXHAUSTED",
        f"SERVER: Received message larger than max ({128 * MIB + 1} vs. {128 * MIB})",
    )


async def test_many_streams_and_metadata(served: Served) -> None:
    served.scheduler.open.set()
    metadata = [("x-key", "value"), ("x-bin", b"\0\1\2"), *((f"x-{n}", "v" * n) for n in range(50))]
    answers = await asyncio.gather(*(served.predict(ask(n), metadata=metadata, timeout=60) for n in range(600)))
    assert [from_proto(answer.outputs["y"])[0] for answer in answers] == list(range(600))


async def test_gzip(served: Served) -> None:
    served.scheduler.open.set()
    # Of the larger one two megabytes are sent: twice the window of a stream.
    for size in (1, 2_000_000):
        response = await served.predict(ask(size=size), compression=grpc.Compression.Gzip)
        assert from_proto(response.outputs["y"]).shape == (size,)
    code, _text = await refused(served.predict(ask(size=1000), compression=grpc.Compression.Deflate))
    assert code == "UNIMPLEMENTED"


class Raw:
    """A client that frames messages itself."""

    def __init__(self, served: Served) -> None:
        self._served = served

    async def call(
        self, body: bytes, *fields: tuple[bytes, bytes], path: str = PREDICT, method: bytes = b"POST"
    ) -> Any:
        """The answer's header fields, those of its trailers, and its body."""
        given = {b"content-type": b"application/grpc", b"te": b"trailers", **dict(fields)}
        pseudo = [(b":method", method), (b":scheme", b"http"), (b":path", PREDICT.encode())]
        block = encode_block([*pseudo, *given.items()])
        reader, writer = await asyncio.open_connection("127.0.0.1", self._served.port)
        writer.write(PREFACE + frames.settings({}) + frames.headers(1, block))
        writer.write(frames.data_header(1, len(body), frames.END_STREAM) + body)
        decoder, blocks, answer = Decoder(), [], b""
        while True:
            header = await asyncio.wait_for(reader.readexactly(9), 10)
            payload = await reader.readexactly(int.from_bytes(header[:3]))
            if header[3] == Type.HEADERS:
                blocks.append(dict(decoder.decode(payload)))
            if header[3] == Type.DATA:
                answer += payload
            if header[3] == Type.HEADERS and header[4] & frames.END_STREAM:
                writer.close()
                return blocks[0], blocks[-1], answer


def framed(message: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(message).to_bytes(4) + message


MESSAGE = ask(1).SerializeToString()
GZIP = (b"grpc-encoding", b"gzip")


@pytest.mark.parametrize(
    ("body", "fields", "status", "text"),
    [
        (framed(MESSAGE), [], "0", None),
        (framed(gzip.compress(MESSAGE, mtime=0), 1), [GZIP], "0", None),
        (framed(MESSAGE), [GZIP], "0", None),
        (framed(MESSAGE), [(b"content-type", b"application/grpc+proto")], "0", None),
        (b"", [], "12", "This method takes exactly one message"),
        (b"\0\0", [], "12", "This method takes exactly one message"),
        (framed(MESSAGE)[:-1], [], "12", "This method takes exactly one message"),
        (2 * framed(MESSAGE), [], "12", "This method takes exactly one message"),
        (framed(MESSAGE, 2), [], "13", "Unknown flags 2 before a message"),
        (framed(MESSAGE, 1), [], "13", "A message is compressed, but no encoding is named"),
        (framed(MESSAGE, 1), [GZIP], "13", "A message cannot be decompressed"),
        (framed(gzip.compress(MESSAGE, mtime=0)[:-9], 1), [GZIP], "13", "A message cannot be decompressed"),
        (framed(gzip.compress(MESSAGE, mtime=0) + b"x", 1), [GZIP], "13", "A message cannot be decompressed"),
        (framed(MESSAGE), [(b"grpc-encoding", b"br")], "12", "Compression br is unknown"),
        (framed(MESSAGE), [(b"grpc-timeout", b"1x")], "13", "A grpc-timeout cannot be read"),
        (framed(MESSAGE), [(b"grpc-timeout", b"123456789S")], "13", "A grpc-timeout cannot be read"),
        (framed(MESSAGE), [(b"grpc-timeout", b"0n")], "4", "Deadline Exceeded"),
        (framed(b"\xff"), [], "13", "Unable to parse the request"),
    ],
)
async def test_framing(served: Served, body: bytes, fields: Any, status: str, text: str | None) -> None:
    if status != "4":
        served.scheduler.open.set()
    head, trailers, answer = await Raw(served).call(body, *fields)
    assert (head[":status"], head["content-type"]) == ("200", "application/grpc")
    assert (trailers["grpc-status"], trailers.get("grpc-message")) == (status, text)
    assert bool(answer) == (status == "0")


async def test_a_message_in_drops_takes_no_more_memory_than_its_bytes() -> None:
    class Quiet:
        channel = None

        def now(self) -> float:
            return 0.0

    front = Front({}, 10 * MIB, 0, ThreadPoolExecutor(1))
    call = UnaryCall(front, Quiet(), 1, HeadRequest(b"POST", b"http", b"/", b"", {}), Unary(lambda *_: None))  # type: ignore[arg-type,return-value]
    call.receive_window = 10 * MIB
    framed_bytes = framed(bytes(range(256)) * 4096)
    tracemalloc.start()
    for drop in (framed_bytes[at : at + 2] for at in range(0, 200_000, 2)):
        call.total += len(drop)
        call.on_data((drop,), ended=False)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1_000_000


async def test_a_bomb_of_zeros_is_stopped_at_the_bound(served: Served) -> None:
    bomb = gzip.compress(bytes(130 * MIB), 1)
    _, trailers, _ = await Raw(served).call(framed(bomb, 1)[:60_000], GZIP)
    assert trailers["grpc-status"] == "12"
    code, text = await refused(served.channel.unary_unary(PREDICT)(bytes(128 * MIB), compression=grpc.Compression.Gzip))
    assert code == "INTERNAL"
    assert text == "Unable to parse the request"


async def test_compressed_messages_hold_the_memory_that_they_become(served: Served) -> None:
    message = ask()
    message.inputs["x"].CopyFrom(messages.TensorProto(dtype=1, tensor_content=bytes(100 * MIB)))
    message.inputs["x"].tensor_shape.dim.add(size=25 * MIB)
    # The models of this server are held back: two are all that a connection may hold.
    calls = [
        asyncio.ensure_future(served.predict(message, compression=grpc.Compression.Gzip, timeout=60)) for _ in range(3)
    ]
    done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    assert [await refused(call) for call in done] == [
        ("RESOURCE_EXHAUSTED", "The server has no memory for more requests")
    ]
    for call in waiting:
        call.cancel()


async def test_an_output_that_cannot_be_written_is_told_of_by_its_kind_alone(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Echo, "predict", lambda *_: {"y": np.array(["secret \ud800"], object)})
    served.scheduler.open.set()
    for _ in range(2):  # read by protobuf, and then as one like it
        answer = await refused(served.predict(ask(1.0), timeout=10))
        assert answer == ("INTERNAL", "Internal error: UnicodeEncodeError")
    assert "secret" not in caplog.text


async def test_questions_with_many_fields_keep_nobody_waiting(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    readers = []

    def noting(message_class: Any, data: Any) -> Any:
        readers.append(threading.current_thread())
        return parse(message_class, data)

    monkeypatch.setattr("ensconce.serving.grpc.services.parse", noting)
    ask_metadata = served.channel.unary_unary(f"/{PREDICTION_SERVICE}/GetModelMetadata")
    assert (await refused(ask_metadata(b"\x12\0" * 500_000)))[0] == "INVALID_ARGUMENT"
    assert (await refused(ask_metadata(b"\x12\0")))[0] == "INVALID_ARGUMENT"
    assert [each is threading.current_thread() for each in readers] == [False, True]
    # A question about health has one field, and waits for no thread.
    ask_health = served.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert (await refused(ask_health(b"\x10\0" * 50_000)))[0] == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize(
    ("method", "fields", "status"),
    [
        (b"GET", [], "405"),
        (b"POST", [(b"content-type", b"application/json")], "415"),
        (b"POST", [(b"content-type", b"application/grpcx")], "415"),
    ],
)
async def test_what_is_no_grpc(served: Served, method: bytes, fields: Any, status: str) -> None:
    head, _, _ = await Raw(served).call(framed(MESSAGE), *fields, method=method)
    assert head[":status"] == status


async def test_texts_travel_whole(served: Served) -> None:
    message = ask(1)
    message.model_spec.name = "größer % \n als"
    code, text = await refused(served.predict(message))
    assert (code, text) == ("NOT_FOUND", "Servable not found for request: Latest(größer % \n als)")


async def test_unknown_methods_have_no_text_as_in_grpcs_own_servers(served: Served) -> None:
    for path in ("/tensorflow.serving.PredictionService/Nothing", "/nothing", "/a/b/c", "*"):
        assert await refused(served.channel.unary_unary(path)(b"")) == ("UNIMPLEMENTED", "")


async def test_health(served: Served) -> None:
    stub = health_pb2_grpc.HealthStub(served.channel)
    services = {"", PREDICTION_SERVICE, MODEL_SERVICE, "PredictionService", "ModelService"}
    listed = (await stub.List(health_pb2.HealthListRequest())).statuses
    assert {name: each.status for name, each in listed.items()} == dict.fromkeys(services, 1)
    assert (await refused(stub.Check(health_pb2.HealthCheckRequest(service="x"))))[0] == "NOT_FOUND"
    unknown = stub.Watch(health_pb2.HealthCheckRequest(service="x"))
    assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    unknown.cancel()
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    stopping = asyncio.create_task(served.server.stop(30))
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await asyncio.wait_for(stopping, 20)


async def test_reflection(served: Served) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    request = reflection_pb2.ServerReflectionRequest
    stream = stub.ServerReflectionInfo()
    answers = []
    for each in (
        request(list_services=""),
        request(file_containing_symbol=PREDICTION_SERVICE),
        request(file_by_filename="tensorflow_serving/apis/predict.proto"),
        request(file_containing_symbol="no.Such"),
        request(all_extension_numbers_of_type="tensorflow.TensorProto"),
        request(all_extension_numbers_of_type="x"),
        request(file_containing_extension=reflection_pb2.ExtensionRequest(containing_type="x", extension_number=1)),
        request(),
    ):
        await stream.write(each)
        answers.append(await stream.read())
        assert answers[-1].original_request == each
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    names = [service.name for service in answers[0].list_services_response.service]
    assert {PREDICTION_SERVICE, MODEL_SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} <= set(
        names
    )
    files = answers[1].file_descriptor_response.file_descriptor_proto
    assert files[0] == POOL.FindFileContainingSymbol(PREDICTION_SERVICE).serialized_pb
    assert answers[2].file_descriptor_response.file_descriptor_proto[0]
    assert [answer.error_response.error_code for answer in answers[3:]] == [5, 0, 5, 5, 3]


async def test_reflection_by_its_own_client(served: Served) -> None:
    database = pytest.importorskip("grpc_reflection.v1alpha.proto_reflection_descriptor_database")

    def names() -> Any:
        with grpc.insecure_channel(f"127.0.0.1:{served.port}") as channel:
            found = database.ProtoReflectionDescriptorDatabase(channel)
            file = found.FindFileContainingSymbol("tensorflow.serving.PredictRequest")
            return sorted(found.get_services()), file.name

    services, file = await asyncio.to_thread(names)
    assert PREDICTION_SERVICE in services
    assert file == "tensorflow_serving/apis/predict.proto"


async def test_h2load_gets_an_answer_to_everything(served: Served, tmp_path: Path) -> None:
    if shutil.which("h2load") is None:
        pytest.skip("h2load is not installed")
    served.scheduler.open.set()
    body = tmp_path / "body"
    body.write_bytes(framed(MESSAGE))
    command = ["h2load", "-n", "2000", "-c", "8", "-m", "16", "-d", str(body), "-H", "content-type: application/grpc"]
    process = await asyncio.create_subprocess_exec(
        *command, f"http://127.0.0.1:{served.port}{PREDICT}", stdout=subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert b"2000 succeeded, 0 failed, 0 errored, 0 timeout" in out
