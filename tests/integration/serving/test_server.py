from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
import httpx
import numpy as np
import pytest
from cryptography import x509

from ensconce.errors import InputError
from ensconce.serving.limits import Limits
from ensconce.serving.manager import ModelManager
from ensconce.serving.server import ModelServer
from ensconce.tfserving import messages
from ensconce.tfserving.dtypes import dtype_named
from ensconce.tfserving.signatures import Signature, TensorSpec
from ensconce.tfserving.tensor import to_proto

PREDICT = "/v1/models/slow:predict"
FLOAT = TensorSpec("x", dtype_named("DT_FLOAT"), None)


class Gate:
    """A model that answers with its input once the gate is open."""

    signatures: Mapping[str, Signature] = {
        "serving_default": Signature("serving_default", "tensorflow/serving/predict", {"x": FLOAT}, {"y": FLOAT})
    }

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def predict(self, signature_name: str, inputs: Mapping[str, Any], output_filter: Sequence[str] = ()) -> Any:
        self.entered.release()
        self.open.wait(30)
        return {"y": inputs["x"]}

    async def wait_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=20)


def slow(gate: Gate) -> ModelManager:
    manager = ModelManager()
    manager.add("slow", 1, gate)
    # Requests of one model wait for one another.
    manager.add("other", 1, gate)
    return manager


def grpc_channel(target: str, running: Any, *options: tuple[str, Any]) -> grpc.aio.Channel:
    name = ("grpc.ssl_target_name_override", "models.example")
    credentials = grpc.ssl_channel_credentials(running.issuer.root_pem)
    return grpc.aio.secure_channel(target, credentials, options=[name, *options])


def predictor(channel: grpc.aio.Channel) -> Any:
    call = channel.unary_unary(
        f"/{messages.PREDICTION_SERVICE}/Predict",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=messages.PredictResponse.FromString,
    )

    async def predict(value: float) -> float:
        request = messages.PredictRequest()
        request.model_spec.name = "slow"
        request.inputs["x"].CopyFrom(to_proto(np.float32([value])))
        response = await call(request, timeout=30)
        return response.outputs["y"].float_val[0]

    return predict


def rest_client(running: Any, **options: Any) -> httpx.AsyncClient:
    context = ssl.create_default_context(cadata=running.issuer.root_pem.decode())
    return httpx.AsyncClient(base_url=f"https://127.0.0.1:{running.ports.rest}", verify=context, **options)


def presented(port: int, alpn: str) -> tuple[str, str]:
    """Common name of the leaf that a new connection shows, and the TLS version."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain, context.wrap_socket(plain) as tls:
        der = tls.getpeercert(binary_form=True)
        assert der is not None
        assert tls.selected_alpn_protocol() == alpn
        return x509.load_der_x509_certificate(der).subject.rfc4514_string(), str(tls.version())


async def test_a_new_certificate_is_shown_to_new_connections_and_old_ones_go_on(serve: Any, held_out: Any) -> None:
    gate = Gate()
    gate.open.set()
    running = await serve(slow(gate))
    async with grpc_channel(f"127.0.0.1:{running.ports.grpc}", running) as channel, rest_client(running) as client:
        predict = predictor(channel)
        assert await predict(1) == 1
        for port, alpn in ((running.ports.grpc, "h2"), (running.ports.rest, "http/1.1")):
            assert await asyncio.to_thread(presented, port, alpn) == ("CN=first", "TLSv1.3")
        running.server.replace_certificate(*running.issuer.issue("second"))
        for port, alpn in ((running.ports.grpc, "h2"), (running.ports.rest, "http/1.1")):
            assert (await asyncio.to_thread(presented, port, alpn))[0] == "CN=second"
        assert await predict(2) == 2
        assert (await client.post(PREDICT, json={"inputs": [3]})).json() == {"outputs": [3.0]}
        with pytest.raises(InputError):
            running.server.replace_certificate(running.issuer.issue("a")[0], running.issuer.issue("b")[1])
        assert (await asyncio.to_thread(presented, running.ports.rest, "http/1.1"))[0] == "CN=second"


@pytest.mark.parametrize("taken", ["grpc_address", "rest_address"])
async def test_a_port_in_use_is_refused_and_nothing_stays_open(
    serve: Any, manager: Any, issuer: Any, taken: str
) -> None:
    running = await serve()
    busy = sum(thread.name.startswith("inference") for thread in threading.enumerate())
    port = running.ports.grpc if taken == "grpc_address" else running.ports.rest
    key, chain = issuer.issue("x")
    addresses = {"grpc_address": "127.0.0.1:0", "rest_address": "127.0.0.1:0", taken: f"127.0.0.1:{port}"}
    server = ModelServer(manager, private_key_pem=key, certificate_chain_pem=chain, **addresses)
    with pytest.raises(InputError) as caught:
        await server.start()
    assert caught.value.check == "serving.port"
    assert "Address already in use" in caught.value.problem
    assert caught.value.found == f"127.0.0.1:{port}"
    assert sum(thread.name.startswith("inference") for thread in threading.enumerate()) == busy


@pytest.mark.parametrize("address", ["", "8500", ":8500", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:٣"])
def test_a_wrong_address_is_refused(manager: Any, issuer: Any, address: str) -> None:
    key, chain = issuer.issue("x")
    with pytest.raises(InputError) as caught:
        ModelServer(
            manager,
            grpc_address=address,
            rest_address="127.0.0.1:0",
            private_key_pem=key,
            certificate_chain_pem=chain,
        )
    assert caught.value.check == "address.format"


async def test_what_was_asked_before_the_end_is_answered(serve: Any) -> None:
    gate = Gate()
    running = await serve(slow(gate))
    async with grpc_channel(f"127.0.0.1:{running.ports.grpc}", running) as channel, rest_client(running) as client:
        over_grpc = asyncio.create_task(predictor(channel)(5))
        other = client.post("/v1/models/other:predict", json={"instances": [6]}, timeout=30)
        over_rest = asyncio.create_task(other)
        await gate.wait_entered()
        await gate.wait_entered()
        stopping = asyncio.create_task(running.server.stop(20))
        done, _ = await asyncio.wait({stopping}, timeout=0.5)
        assert not done
        gate.open.set()
        assert await over_grpc == 5
        answer = await over_rest
        assert answer.json() == {"predictions": [6.0]}
        assert answer.headers["connection"] == "close"
        await stopping
    for port in (running.ports.grpc, running.ports.rest):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()


async def test_the_end_waits_no_longer_than_its_grace(serve: Any) -> None:
    gate = Gate()
    running = await serve(slow(gate))
    async with grpc_channel(f"127.0.0.1:{running.ports.grpc}", running) as channel:
        call = asyncio.create_task(predictor(channel)(5))
        await gate.wait_entered()
        stopping = asyncio.create_task(running.server.stop(0.2))
        with pytest.raises(grpc.aio.AioRpcError):
            await asyncio.wait_for(call, 10)
        gate.open.set()
        await stopping


async def test_clients_of_two_replicas_do_not_notice_that_one_stops(serve: Any) -> None:
    gate = Gate()
    gate.open.set()
    first, second = await serve(slow(gate)), await serve(slow(gate))
    target = f"ipv4:127.0.0.1:{first.ports.grpc},127.0.0.1:{second.ports.grpc}"
    stopped = asyncio.Event()
    answers = 0

    async def load(predict: Any) -> None:
        nonlocal answers
        left = 20
        while left:
            assert await predict(7) == 7
            answers += 1
            left -= stopped.is_set()

    async with grpc_channel(target, first, ("grpc.lb_policy_name", "round_robin")) as channel:
        predict = predictor(channel)
        clients = [asyncio.create_task(load(predict)) for _ in range(8)]
        while answers < 100:
            await asyncio.sleep(0.01)
        await first.server.stop(10)
        stopped.set()
        await asyncio.gather(*clients)


async def test_busy_rest_clients_are_told_before_the_server_closes(serve: Any) -> None:
    gate = Gate()
    gate.open.set()
    running = await serve(slow(gate))
    connected = [asyncio.Event() for _ in range(4)]

    async def load(answered: asyncio.Event) -> None:
        async with rest_client(running) as client:
            told = False
            while not told:
                answer = await client.post(PREDICT, json={"inputs": [1]}, timeout=30)
                assert answer.status_code == 200
                told = answer.headers.get("connection") == "close"
                answered.set()

    clients = [asyncio.create_task(load(each)) for each in connected]
    for each in connected:
        await asyncio.wait_for(each.wait(), 30)
    await running.server.stop(10)
    await asyncio.wait_for(asyncio.gather(*clients), 30)


async def test_too_many_requests_are_refused_at_once(serve: Any) -> None:
    gate = Gate()
    running = await serve(slow(gate), limits=Limits(requests=1))
    async with grpc_channel(f"127.0.0.1:{running.ports.grpc}", running) as channel, rest_client(running) as client:
        first = asyncio.create_task(client.post(PREDICT, json={"inputs": [1]}, timeout=30))
        await gate.wait_entered()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await predictor(channel)(5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        refused = await client.post(PREDICT, json={"inputs": [1]})
        assert refused.status_code == 503
        assert "is full; currently 1 request" in refused.json()["error"]
        gate.open.set()
        assert (await first).status_code == 200


async def test_connections_age(serve: Any) -> None:
    gate = Gate()
    gate.open.set()
    running = await serve(slow(gate), limits=Limits(connection_age=0.3, connection_grace=1))

    def goaway() -> bool:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        address = ("127.0.0.1", running.ports.grpc)
        with socket.create_connection(address, timeout=10) as plain, context.wrap_socket(plain) as tls:
            tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            file = tls.makefile("rb")
            while header := file.read(9):
                file.read(int.from_bytes(header[:3], "big"))
                if header[3] == 7:  # GOAWAY, RFC 9113 section 6.8
                    return True
        return False

    assert await asyncio.to_thread(goaway)
    async with rest_client(running) as client:
        answer = await client.post(PREDICT, json={"inputs": [1]})
        deadline = time.monotonic() + 10
        while "connection" not in answer.headers:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
            answer = await client.post(PREDICT, json={"inputs": [1]})
        assert answer.headers["connection"] == "close"


async def test_old_tls_is_refused(running: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    for port in (running.ports.grpc, running.ports.rest):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain, pytest.raises(OSError):
            context.wrap_socket(plain)
