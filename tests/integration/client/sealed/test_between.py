"""Whoever ends TLS, against a replica that takes sealed bodies: what it can change, put together and strip."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import ssl
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ensconce.addresses import Address
from ensconce.client.codec import PREDICT, encode_request
from ensconce.client.sealed import judge_statement
from ensconce.client.sealed_grpc import statement_of
from ensconce.client.sealed_http import _statement
from ensconce.errors import EnsconceError, UnreachableError
from ensconce.ratls.sealing import KEY_HEADER, Statement, key_id, seal_request
from ensconce.serving.sealed_rest import _nonce

REST = "/v1/models/doubling:predict"
BODY = json.dumps({"instances": [1.25]}).encode()
PREFIX = "/tensorflow.serving.PredictionService/"
CODE = grpc.StatusCode


@pytest.fixture
def post(replica) -> Callable[..., tuple[int, bytes]]:
    """Says anything to a replica's REST."""
    running = replica(required=True)
    context = ssl._create_unverified_context()

    def send(path: str = REST, body: bytes | None = None, *, method: str = "POST", **fields: Any) -> Any:
        statement = running.sealing.statement
        header = {"content-type": "application/ensconce-sealed", KEY_HEADER: key_id(statement.key), **fields}
        if body is None:
            body, send.answering = seal_request(statement.key, "rest", REST, BODY)
        connection = http.client.HTTPSConnection(running.rest.host, running.rest.port, timeout=20, context=context)
        with contextlib.closing(connection):
            connection.putrequest(method, path)
            for name, values in header.items():
                for value in values if isinstance(values, list) else [values]:
                    connection.putheader(name, value)
            connection.putheader("content-length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, response.read()

    send.running = running
    return send


@pytest.fixture
def call(replica) -> Any:
    """The same over gRPC: the code that a call ends with."""
    running = replica(required=True)
    with running.channel() as raw:

        def send(path: str, body: bytes, *fields: tuple[str, str], **options: Any) -> grpc.StatusCode:
            try:
                raw.unary_unary(path, None, None)(body, metadata=fields, timeout=20, **options)
            except grpc.RpcError as error:
                return error.code()
            return CODE.OK

        send.running = running
        yield send


def answer_in(post: Any, reply: tuple[int, bytes]) -> Any:
    assert reply[0] == 200
    status, body = post.answering.open(reply[1])
    assert status == 200
    return json.loads(body)


def test_what_changes_nothing(post) -> None:
    doubled = {"predictions": [2.5]}
    assert answer_in(post, post()) == doubled
    # Another form of the same target (RFC 9112, section 3.2.2); and what would say another method is not read.
    assert answer_in(post, post(f"http://anywhere{REST}")) == doubled
    assert answer_in(post, post(**{"x-http-method-override": "GET", "x-original-url": "/v1/models/other"})) == doubled
    # Compressed on the way, the same bytes arrive.
    sealed, post.answering = seal_request(post.running.sealing.statement.key, "rest", REST, BODY)
    assert answer_in(post, post(REST, gzip.compress(sealed), **{"content-encoding": "gzip"})) == doubled


@pytest.mark.parametrize(
    "path",
    [
        REST + "?",
        REST + "?x=1",
        REST + "/",
        "/" + REST,
        "/." + REST,
        "/v1/../v1/models/doubling:predict",
        REST.replace(":", "%3A"),
        REST.upper(),
        REST.replace("predict", "classify"),
        REST.replace("doubling", "doubling/versions/1"),
        "/v1/models/doubling",
        "/anywhere",
    ],
)
def test_another_path_is_another_request(post, path: str) -> None:
    assert post(path)[0] == 400


def test_what_is_no_sealed_request(post) -> None:
    key = key_id(post.running.sealing.statement.key)
    for twice in ([key, key], [key, "0" * 16], f"{key}, {key}", f"{key},", ""):
        assert post(**{KEY_HEADER: twice})[0] == 421
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert post(method=method)[0] == 400
    sealed, _ = seal_request(post.running.sealing.statement.key, "rest", REST, BODY)
    over_grpc, _ = seal_request(post.running.sealing.statement.key, "grpc", REST, BODY)
    for body in (b"", sealed[:-1], sealed[:32], sealed + sealed, sealed[32:], over_grpc):
        assert post(REST, body)[0] == 400
    # None of these has used it up.
    assert post(REST, sealed)[0] == 200
    assert post(REST, sealed)[0] == 409


def test_required_leaves_no_way_around(post, call) -> None:
    base = f"https://{post.running.rest}"
    with httpx.Client(verify=False, timeout=20) as bare:
        for path in (
            REST,
            REST.upper(),
            "/v1/models/doubling/versions/1:predict",
            "/v1/models/doubling:regress",
            "/v1/",
        ):
            assert bare.post(base + path, content=BODY).status_code == 403
        for path in ("//v1/models/doubling:predict", "/v2/models/doubling/infer", "/ensconce/sealing-key"):
            assert bare.post(base + path, content=BODY).status_code == 404
        for method in ("PUT", "PATCH", "DELETE"):
            assert bare.request(method, base + REST, content=BODY).status_code == 400
        # Statuses and signatures hold nothing of a client's; they stay in the clear, and are believed by nobody.
        assert bare.get(base + "/v1/models/doubling").status_code == 200
        assert bare.get(base + "/v1/models/doubling/metadata").status_code == 200
    for method in ("Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata", "None"):
        assert call(PREFIX + method, b"") is CODE.PERMISSION_DENIED
    assert call("/grpc.health.v1.Health/Check", b"") is CODE.OK
    assert call("/tensorflow.serving.ModelService/GetModelStatus", b"\x0a\x0a\x0a\x08doubling") is CODE.OK


def test_fields_and_frames_of_grpc(call) -> None:
    public = call.running.sealing.statement.key
    key, request = key_id(public), encode_request("doubling", {"x": np.ones(1, np.float32)})

    def sealed() -> bytes:
        return seal_request(public, "grpc", PREDICT, request)[0]

    assert call(PREDICT, sealed(), (KEY_HEADER, key)) is CODE.OK
    assert call(PREDICT, sealed(), (KEY_HEADER, key), compression=grpc.Compression.Gzip) is CODE.OK
    assert call(PREDICT, sealed(), (KEY_HEADER, key), (KEY_HEADER, key)) is CODE.FAILED_PRECONDITION
    assert call(PREDICT, sealed(), (KEY_HEADER, "")) is CODE.FAILED_PRECONDITION
    for body in (b"", sealed()[:31], sealed() * 2, sealed()[:-1]):
        assert call(PREDICT, body, (KEY_HEADER, key)) is CODE.INVALID_ARGUMENT
    for path in (PREDICT + "?x", PREDICT + "/", PREDICT.lower(), "/" + PREDICT):
        assert call(path, sealed(), (KEY_HEADER, key)) in (CODE.UNIMPLEMENTED, CODE.INVALID_ARGUMENT)


def test_nothing_outlives_a_restart(world, replica) -> None:
    """The same certificate, as if the host could start a replica from what it kept; keys are of memory alone."""
    who = world.replica()
    before, after = replica(who), replica(who)
    key = before.sealing.statement.key
    sealed, _ = seal_request(key, "grpc", PREDICT, encode_request("doubling", {}))
    assert after.sealing.statement.certificate == before.sealing.statement.certificate
    with after.channel() as raw:
        for name, code in ((key, CODE.FAILED_PRECONDITION), (after.sealing.statement.key, CODE.INVALID_ARGUMENT)):
            with pytest.raises(grpc.RpcError) as error:
                raw.unary_unary(PREDICT, None, None)(sealed, metadata=[(KEY_HEADER, key_id(name))], timeout=20)
            assert error.value.code() is code


def test_garbage_takes_no_memory(call) -> None:
    key = key_id(call.running.sealing.statement.key)
    for _ in range(50):
        call(PREDICT, bytes(100), (KEY_HEADER, key))
    assert not call.running.sealing._key.taken


# Parsers of what anybody may say.


@given(
    st.integers(100, 599), st.binary(max_size=300) | st.text(max_size=100).map(lambda text: json.dumps(text).encode())
)
def test_an_answer_over_rest_is_a_statement_or_none(status: int, body: bytes) -> None:
    with pytest.raises(UnreachableError):
        _statement(status, body)


@given(st.dictionaries(st.sampled_from(["certificate", "key", "signature", "quote", "nonces"]), st.text(max_size=9)))
def test_fields_over_rest(fields: dict[str, str]) -> None:
    with contextlib.suppress(UnreachableError):
        assert isinstance(_statement(200, json.dumps(fields).encode()), Statement)
        assert len(fields) == 5


@given(st.binary(max_size=300))
def test_an_answer_over_grpc_is_a_statement_or_none(body: bytes) -> None:
    with contextlib.suppress(UnreachableError):
        assert isinstance(statement_of(body), Statement)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.builds(Statement, *[st.binary(max_size=200)] * 5), st.sampled_from([b"", bytes(32)]))
def test_no_statement_is_judged_well(world, statement: Statement, nonce: bytes) -> None:
    with pytest.raises(EnsconceError):
        judge_statement(statement, world.service(Address("127.0.0.1", 1), freshness=bool(nonce)), nonce)


@given(st.text(max_size=80) | st.binary(min_size=32, max_size=32).map(lambda each: f"nonce={each.hex()}"))
def test_a_query_is_a_nonce_or_refused(query: str) -> None:
    nonce = _nonce(query)
    assert len(nonce) in (0, 1, 32)
    assert (len(nonce) == 0) == (query == "")
    if len(nonce) == 32:
        assert query == f"nonce={nonce.hex()}"
