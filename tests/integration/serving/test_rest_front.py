from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any

import httpx
import numpy as np
import pytest

from ensconce.serving.batching.scheduler import Scheduler
from ensconce.serving.http1.limits import Http1Limits
from ensconce.serving.http1.server import HttpServer
from ensconce.serving.manager import ModelManager
from ensconce.serving.metrics import METRICS_PATH, Metrics
from ensconce.serving.observing import Answered, to_all
from ensconce.serving.rest import RestFront, RestOptions
from ensconce.tfserving.dtypes import dtype_named
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.signatures import Signature, TensorSpec

FLOAT = TensorSpec("x", dtype_named("DT_FLOAT"), None)
PREDICT = "/v1/models/echo:predict"


class Echo:
    """Answers with its input; waits while it is held; breaks when told."""

    signatures: Mapping[str, Signature] = {
        "serving_default": Signature("serving_default", "tensorflow/serving/predict", {"x": FLOAT}, {"y": FLOAT})
    }

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.error: Exception | None = None

    def predict(self, signature_name: str, inputs: Mapping[str, Any], output_filter: Sequence[str] = ()) -> Any:
        self.open.wait(30)
        if self.error is not None:
            raise self.error
        return {"y": inputs["x"]}


class World:
    def __init__(self, client: httpx.AsyncClient, echo: Echo, told: list[Answered]) -> None:
        self.client, self.echo, self.told = client, echo, told


Start = Callable[..., Coroutine[Any, Any, World]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    ends: list[Callable[[], Coroutine[Any, Any, Any]]] = []

    async def begin(metrics: Metrics | None = None, **options: Any) -> World:
        echo, told, manager = Echo(), [], ModelManager()
        manager.add("echo", 1, echo)
        manager.add("echo", 2, echo)
        manager.label({"echo": {"old one": 1}})
        scheduler = Scheduler()
        observe = to_all([told.append, *([metrics.answered] if metrics else [])])
        page = metrics.page if metrics else None
        front = RestFront(
            manager, scheduler, RestOptions(**options), tensor_bytes=1 << 20, observe=observe, metrics=page
        )
        server = HttpServer(front.handle, front.refused, Http1Limits(body_bytes=8 << 20))
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        await server.listen(listener, None)
        client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}")

        async def end() -> None:
            echo.open.set()
            await client.aclose()
            await server.stop(0)
            await scheduler.close()

        ends.append(end)
        return World(client, echo, told)

    yield begin
    for end in ends:
        await end()


async def test_every_way_to_name_a_version(start: Start) -> None:
    world = await start()
    for path, version in (("", 2), ("/versions/1", 1), ("/versions/002", 2), ("/labels/old%20one", 1)):
        answer = await world.client.post(f"/v1/models/echo{path}:predict", json={"inputs": [1]})
        assert answer.json() == {"outputs": [1.0]}
        assert world.told[-1].version == version
    answer = await world.client.get("/v1/models/echo/labels/old%20one/metadata")
    assert answer.json()["model_spec"]["version"] == "1"


async def test_what_is_told_of_a_request(start: Start) -> None:
    world = await start()
    await world.client.post(PREDICT, content=b'{"inputs":[1.5]}')
    [one] = world.told
    assert one.peer.startswith("127.0.0.1:")
    assert (one.entrypoint, one.method, one.model, one.version) == ("REST", "Predict", "echo", 2)
    assert (one.signature, one.code, one.status) == ("serving_default", Code.OK, 200)
    assert (one.received, one.sent) == (16, 17)
    await world.client.post("/v1/models/secret-name:predict", content=b"{}")
    assert (world.told[-1].model, world.told[-1].code, world.told[-1].status) == ("", Code.NOT_FOUND, 404)
    await world.client.get("/v1/models/echo")
    assert (world.told[-1].method, world.told[-1].model) == ("GetModelStatus", "echo")
    await world.client.post(PREDICT, content=b" " * (9 << 20))
    assert (world.told[-1].status, world.told[-1].model) == (413, "")


async def test_an_inference_may_take_so_long(start: Start) -> None:
    world = await start(timeout_in_ms=200)
    world.echo.open.clear()
    answer = await world.client.post(PREDICT, json={"inputs": [1]})
    assert answer.status_code == 504
    assert answer.json() == {"error": "Timed out waiting for notification"}
    world.echo.open.set()
    assert (await world.client.post(PREDICT, json={"inputs": [1]})).status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (RequestError(Code.RESOURCE_EXHAUSTED, "full"), 429, "full"),
        (RequestError(Code.FAILED_PRECONDITION, "not now"), 400, "not now"),
        (RequestError(Code.DATA_LOSS, "gone"), 500, "gone"),
        (ValueError("a client's data"), 500, "Internal error: ValueError"),
    ],
)
async def test_what_a_model_says(start: Start, error: Exception, status: int, text: str) -> None:
    world = await start()
    world.echo.error = error
    answer = await world.client.post(PREDICT, json={"inputs": [1]})
    assert (answer.status_code, answer.json()) == (status, {"error": text})


async def test_pages_of_other_origins(start: Start) -> None:
    names = ("access-control-allow-origin", "access-control-allow-methods", "access-control-allow-headers")
    for enabled, values in ((True, ["*", "POST, GET", "Content-Type"]), (False, [None, None, None])):
        client = (await start(enable_cors_support=enabled)).client
        preflight = await client.options(PREDICT, headers={"Origin": "https://page.example"})
        assert (preflight.status_code, preflight.content) == (200, b"")
        refused = await client.options(PREDICT, headers={"Origin": "null"})
        assert (refused.status_code, refused.content) == (400, b"")
        good = await client.post(PREDICT, json={"inputs": [1]})
        bad = await client.post(PREDICT, content=b"")
        for answer in (preflight, refused, good, bad):
            assert [answer.headers.get(name) for name in names] == values
        assert names[0] not in (await client.get("/elsewhere")).headers


async def test_gzip_both_ways(start: Start) -> None:
    world = await start()
    values = [number / 4 for number in range(5000)]
    body = gzip.compress(json.dumps({"inputs": values}).encode())
    answer = await world.client.post(PREDICT, content=body, headers={"Content-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json() == {"outputs": values}
    assert world.told[-1].received == len(body)
    plain = await world.client.post(PREDICT, json={"inputs": values}, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.json() == answer.json()


async def test_large_bodies(start: Start) -> None:
    world = await start()
    image = np.random.default_rng(0).random((1, 224, 224, 3), np.float32).round(4)
    bodies = [world.client.post(PREDICT, json={"instances": image.tolist()}, timeout=60) for _ in range(3)]
    for answer in await asyncio.gather(*bodies):
        np.testing.assert_array_equal(np.float32(answer.json()["predictions"]), image)


async def test_numbers_that_json_does_not_have(start: Start) -> None:
    world = await start()
    answer = await world.client.post(PREDICT, content=b'{"inputs":[NaN,Infinity,-Infinity,1e999,-0.0]}')
    assert answer.content == b'{"outputs":[NaN,Infinity,-Infinity,Infinity,-0.0]}'


async def test_head_is_get_without_a_body(start: Start) -> None:
    client = (await start()).client
    get, head = await client.get("/v1/models/echo"), await client.head("/v1/models/echo")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]


async def test_a_question_mark_is_part_of_the_name(start: Start) -> None:
    answer = await (await start()).client.get("/v1/models/echo?verbose=1")
    assert answer.json() == {"error": "Could not find any versions of model echo?verbose=1"}


async def test_metrics_are_where_they_were_asked_for(start: Start) -> None:
    metrics = Metrics()
    client = (await start(metrics, metrics_path=METRICS_PATH)).client
    await client.post(PREDICT, json={"inputs": [1]})
    page = await client.get(METRICS_PATH)
    assert page.headers["content-type"].startswith("text/plain")
    assert ':tensorflow:serving:request_count{model_name="echo",status="OK"} 1' in page.text.splitlines()
    wrong = await client.get(f"{METRICS_PATH}?x")
    assert (wrong.status_code, wrong.text) == (400, f"Unexpected path: {METRICS_PATH}?x. Should be {METRICS_PATH}")
    for other in (await start(metrics), await start()):
        assert (await other.client.get(METRICS_PATH)).status_code == 404


async def test_the_description_of_the_api(start: Start) -> None:
    answer = await (await start()).client.get("/openapi.json")
    assert answer.json()["openapi"] == "3.1.0"
    assert "/v1/models/echo:predict" in answer.json()["paths"]
    assert (await (await start(with_openapi=False)).client.get("/openapi.json")).status_code == 404


async def test_long_names_are_not_sent_back_whole(start: Start) -> None:
    world = await start()
    answer = await world.client.post(PREDICT, json={"signature_name": "s" * 100_000, "instances": [1]})
    assert answer.status_code == 400
    assert len(answer.content) < 1100
    assert answer.json()["error"].endswith("...TRUNCATED")
