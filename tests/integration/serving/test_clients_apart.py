"""Clients that share buffers, batches and a model get their own bytes back, and nobody else's, whatever they do.

The model answers with what it is given, in views of it at times, and fails at times when requests are merged. Requests
of many clients come in pieces, between each other's, and some are cancelled.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import random
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from ensconce.serving.batching.parameters import Parameters
from ensconce.serving.fronts import FrontOptions, Fronts
from ensconce.serving.http2 import frames
from ensconce.serving.http2.frames import ErrorCode, Setting, Type
from ensconce.serving.http2.headers import encode_block
from ensconce.serving.manager import ModelManager
from ensconce.tfserving.dtypes import dtype_named
from ensconce.tfserving.messages import PREDICTION_SERVICE, PredictRequest, PredictResponse
from ensconce.tfserving.signatures import Signature, TensorSpec

ROWS = TensorSpec("x", dtype_named("DT_FLOAT"), (-1, -1))
HEAD = encode_block(
    [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", f"/{PREDICTION_SERVICE}/Predict".encode()),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
)
PIECES = (1, 9, 50, 3000, 40_000, 300_000)
Shape = tuple[int, int]


class Mirror:
    signatures: Mapping[str, Signature] = {
        "serving_default": Signature("serving_default", "tensorflow/serving/predict", {"x": ROWS}, {"y": ROWS})
    }

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def predict(self, signature_name: str, inputs: Mapping[str, Any], output_filter: Sequence[str] = ()) -> Any:
        if len(inputs["x"]) > 1 and self._chance.random() < 0.05:
            raise RuntimeError
        return {"y": inputs["x"] if self._chance.random() < 0.5 else inputs["x"].copy()}


class Crowd:
    """What its clients ask, each for another number, and how many got an answer."""

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.numbers, self.answered = chance, itertools.count(1), 0

    def question(self) -> tuple[float, Shape]:
        return float(next(self.numbers)), (
            self.chance.choice((1, 1, 2, 8)),
            self.chance.choice((1, 16, 16, 1000, 4000)),
        )

    def judge(self, number: float, shape: Shape, values: Any) -> None:
        assert np.array_equal(np.reshape(values, shape), np.full(shape, number, np.float32))
        self.answered += 1

    async def grpc(self, port: int, rounds: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        # Much smaller, and the many frames that small answers take are a flood (http2.limits.Patience).
        window = self.chance.choice((2000, 65_535, 1 << 20))
        start = frames.settings({Setting.INITIAL_WINDOW_SIZE: window}) + frames.window_update(0, 1 << 30)
        unsent, wanted = bytearray(frames.PREFACE + start), dict[int, tuple[float, Shape]]()

        async def read() -> None:
            bodies = dict[int, bytearray]()
            while True:
                header = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(header[:3]))
                kind, flags, stream = header[3], header[4], int.from_bytes(header[5:])
                if kind == Type.DATA:
                    bodies.setdefault(stream, bytearray()).extend(payload)
                    unsent.extend(frames.window_update(stream, max(1, len(payload))))
                asked = wanted.get(stream)
                if kind == Type.RST_STREAM or flags & frames.END_STREAM:
                    wanted.pop(stream, None)
                    if asked is not None and stream in bodies:
                        self.judge(*asked, PredictResponse.FromString(bytes(bodies[stream][5:])).outputs["y"].float_val)

        async def write() -> None:
            while True:
                piece = bytes(unsent[: self.chance.choice(PIECES)])
                del unsent[: len(piece)]
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)

        working = [asyncio.create_task(each()) for each in (read, write)]
        streams = itertools.count(1, 2)
        for _ in range(rounds):
            bodies = {stream: self._framed(stream, wanted, unsent) for stream in itertools.islice(streams, 4)}
            while bodies:
                stream = self.chance.choice(list(bodies))
                body, size = bodies[stream], self.chance.choice((1, 7, 500, 5000, 16_384, 60_000))
                gone, last = self.chance.random() < 0.02, size >= len(body)
                if not gone:
                    part = body[:size]
                    unsent += frames.data_header(stream, len(part), frames.END_STREAM if last else 0) + part
                    bodies[stream] = body[size:]
                if gone or (last and self.chance.random() < 0.05):
                    unsent += frames.reset_stream(stream, ErrorCode.CANCEL)
                    wanted.pop(stream, None)
                if gone or last:
                    del bodies[stream]
            while unsent:
                await asyncio.sleep(0)
        while wanted and not any(each.done() for each in working):
            await asyncio.sleep(0.001)
        for each in working:
            each.cancel()
        for ended in await asyncio.gather(*working, return_exceptions=True):
            assert isinstance(ended, asyncio.CancelledError), ended
        writer.close()

    def _framed(self, stream: int, wanted: dict[int, tuple[float, Shape]], unsent: bytearray) -> bytes:
        number, shape = wanted[stream] = self.question()
        request = PredictRequest()
        request.model_spec.name = "m"
        tensor = request.inputs["x"]
        tensor.dtype = 1
        for size in shape:
            tensor.tensor_shape.dim.add(size=size)
        values = np.full(shape, number, "<f4")
        if self.chance.random() < 0.5:
            tensor.tensor_content = values.tobytes()
        else:
            tensor.float_val.extend(values.ravel().tolist() if self.chance.random() < 0.8 else [number])
        unsent += frames.headers(stream, HEAD)
        data = request.SerializeToString()
        return b"\0" + len(data).to_bytes(4) + bytes(data)

    async def rest(self, port: int, rounds: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(rounds):
            asked, unsent = [self.question() for _ in range(3)], bytearray()
            for number, shape in asked:
                body, head = json.dumps({"inputs": np.full(shape, number).tolist()}).encode(), b""
                if self.chance.random() < 0.3:
                    body, head = gzip.compress(body, 1), b"Content-Encoding: gzip\r\n"
                unsent += b"POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\n" + head
                unsent += b"Content-Length: %d\r\n\r\n" % len(body) + body
            while unsent:
                size = self.chance.choice(PIECES[2:])
                writer.write(bytes(unsent[:size]))
                del unsent[:size]
                await writer.drain()
                await asyncio.sleep(0)
            for number, shape in asked:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                body = await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r")[0]))
                if head.startswith(b"http/1.1 200"):
                    self.judge(number, shape, json.loads(body)["outputs"])
        writer.close()


@pytest.mark.parametrize("batching", [None, Parameters(max_batch_size=64, batch_timeout_micros=1000)])
async def test_each_gets_its_own(batching: Parameters | None) -> None:
    chance = random.Random(1)
    manager, crowd = ModelManager(), Crowd(chance)
    manager.add("m", 1, Mirror(chance))
    fronts = Fronts(manager, FrontOptions(batching=batching))
    grpc, rest = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    for listener in (grpc, rest):
        listener.setblocking(False)
    await fronts.listen([(grpc, None)], [(rest, None)])
    grpc_port, rest_port = grpc.getsockname()[1], rest.getsockname()[1]

    def held() -> tuple[int, ...]:
        scheduler = fronts.scheduler
        return fronts._grpc.held_bytes, fronts._rest.memory.used, scheduler.requests, scheduler.input_bytes

    async with asyncio.timeout(60):
        await asyncio.gather(
            *(crowd.grpc(grpc_port, 12) for _ in range(6)), *(crowd.rest(rest_port, 6) for _ in range(3))
        )
        while any(held()):  # nothing is counted for those who have gone
            await asyncio.sleep(0.01)
    await fronts.stop(1)
    assert crowd.answered > 200
