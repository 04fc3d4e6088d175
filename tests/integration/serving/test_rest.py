from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest

Held = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
PREDICT = "/v1/models/digits:predict"


@pytest.fixture
async def client(running: Any) -> AsyncIterator[httpx.AsyncClient]:
    context = ssl.create_default_context(cadata=running.issuer.root_pem.decode())
    async with httpx.AsyncClient(base_url=f"https://127.0.0.1:{running.ports.rest}", verify=context) as client:
        yield client


async def test_row_and_columnar_predictions(client: httpx.AsyncClient, held_out: Held) -> None:
    images, labels = held_out
    row = await client.post(PREDICT, json={"instances": images[:50].tolist()})
    assert row.headers["content-type"] == "application/json"
    predictions = row.json()["predictions"]
    assert [p["classes"] for p in predictions] == labels[:50].tolist()
    columnar = await client.post(
        "/v1/models/digits/versions/1:predict",
        json={"signature_name": "serving_default", "inputs": {"images": images[:50].tolist()}},
    )
    outputs = columnar.json()["outputs"]
    assert outputs["classes"] == labels[:50].tolist()
    assert outputs["probabilities"] == [p["probabilities"] for p in predictions]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("POST", PREDICT, b"", 400, "JSON Parse error: The document is empty"),
        ("POST", PREDICT, b"{}", 400, "Missing 'inputs' or 'instances' key"),
        ("POST", PREDICT, b'{"instances": ["a"]}', 400, 'JSON Value: "a" Type: String is not of expected type: float'),
        ("POST", PREDICT, b'{"instances": [1]}', 400, "Expects arg[0] (images) to have shape"),
        ("POST", PREDICT, b"[" * 100_000, 400, "JSON Parse error"),
        ("POST", PREDICT, b'{"signature_name": "z", "instances": [1]}', 400, 'Serving signature name: "z" not found'),
        ("POST", "/v1/models/x:predict", b"{}", 404, "Servable not found for request: Latest(x)"),
        ("POST", "/v1/models/digits/versions/9:predict", b"{}", 404, "Servable not found for request: Specific(digits"),
        ("POST", "/v1/models/digits/labels/new:predict", b"{}", 400, "Unrecognized servable version label: new"),
        ("POST", f"/v1/models/d/versions/{'9' * 30}:predict", b"{}", 400, "Failed to convert version: 999"),
        ("POST", "/v1/models/digits:classify", b"{}", 400, "JSON Value: {} When method is classify, key 'examples'"),
        ("POST", "/v1/models/digits:explode", b"{}", 400, "Malformed request: POST /v1/models/digits:explode"),
        ("PUT", PREDICT, b"{}", 400, "Malformed request: PUT /v1/models/digits:predict"),
        ("GET", "/v1/models/x", b"", 404, "Could not find any versions of model x"),
        ("GET", "/v1/models/digits/versions/9", b"", 404, "Could not find version 9 of model digits"),
        ("GET", "/v1/models/x/metadata", b"", 404, "Servable not found for request: Latest(x)"),
        ("GET", "/v1/models", b"", 400, "Missing model name in request."),
        ("GET", "/", b"", 404, "Not found"),
    ],
)
async def test_refusals_are_json_with_the_originals_status(
    client: httpx.AsyncClient, method: str, path: str, body: bytes, status: int, text: str
) -> None:
    response = await client.request(method, path, content=body)
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    assert response.json()["error"].startswith(text)


async def test_status_is_the_originals_json(client: httpx.AsyncClient) -> None:
    available = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    one = {"version": "1", **available}
    assert (await client.get("/v1/models/digits")).json() == {
        "model_version_status": [{"version": "3", **available}, one]
    }
    assert (await client.get("/v1/models/digits/versions/1")).json() == {"model_version_status": [one]}
    assert (await client.get("/V1/Models/digits/Versions/01")).json() == {"model_version_status": [one]}


async def test_metadata_is_the_originals_json(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/v1/models/digits/metadata")).json()
    assert answer["model_spec"] == {"name": "digits", "signature_name": "", "version": "3"}
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["inputs"]["images"] == {
        "dtype": "DT_FLOAT",
        "name": "images",
        "tensor_shape": {
            "dim": [{"size": size, "name": ""} for size in ("-1", "8", "8", "1")],
            "unknown_rank": False,
        },
    }


async def test_a_body_that_is_too_long_is_not_read(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 200 << 20:
            sent += 1 << 20
            yield b" " * (1 << 20)

    try:
        response = await client.post(PREDICT, content=endless())
    except (httpx.WriteError, httpx.ReadError):
        pass  # it hung up while we were still talking
    else:
        assert response.status_code == 413
        assert "longer than 33554432 bytes" in response.json()["error"]
    assert sent < 100 << 20
    assert (await client.get("/v1/models/digits")).status_code == 200


async def test_rest_strings_reach_a_model_as_bytes(client: httpx.AsyncClient) -> None:
    body = {"inputs": {"images": {"b64": base64.b64encode(b"x").decode()}}}
    response = await client.post(PREDICT, content=json.dumps(body))
    assert response.status_code == 400
    assert "Type: Object is not of expected type: float" in response.json()["error"]


async def test_many_at_once(client: httpx.AsyncClient, held_out: Held) -> None:
    images, labels = held_out
    answers = await asyncio.gather(
        *(client.post(PREDICT, json={"instances": images[i : i + 1].tolist()}) for i in range(60))
    )
    assert [a.json()["predictions"][0]["classes"] for a in answers] == labels[:60].tolist()
