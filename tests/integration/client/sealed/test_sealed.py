"""Sealed bodies through an nginx that terminates TLS, and everything that it could do instead of passing them on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from ensconce.addresses import Address
from ensconce.client.codec import PREDICT, decode_response, encode_request
from ensconce.client.sealed import judge_statement
from ensconce.client.sealed_grpc import SealedCallError, sealed_channel
from ensconce.client.sealed_http import sealed_transport
from ensconce.demo.tap import Tap
from ensconce.errors import EnsconceError, EvidenceError, InputError, RefusedError, UnreachableError
from ensconce.gateway.nginx_program import Nginx, find_nginx
from ensconce.ratls.sealing import KEY_HEADER, MEDIA_TYPE, key_id, seal_request, signed_part
from ensconce.serving.metrics import Metrics
from ensconce.serving.sealing import Sealing

DOMAIN = "digits.example.test"
SECRET = np.frombuffer(b"a patient's data", np.float32)
REST = "/v1/models/doubling:predict"


@contextlib.contextmanager
def balancer(world, folder: Path, find_port, upstreams: list[Any]) -> Iterator[tuple[int, int, Path]]:
    """nginx as a terminating balancer, in two halves with a spy between, who so sees what nginx sees: TLS of its own,
    plain, TLS to the replicas."""
    found = find_nginx()
    if not isinstance(found, Nginx):
        pytest.skip(found.reason)
    folder.mkdir()
    who = world.self_signed(ec.generate_private_key(ec.SECP256R1()), None)
    (folder / "nginx.pem").write_bytes(who.chain_pem + who.key_pem)
    grpc_port, rest_port, inner_grpc, inner_rest = (find_port() for _ in range(4))
    pools = {
        name: "".join(f"server {getattr(each, name)};" for each in upstreams) + "hash $http_ensconce_route consistent;"
        for name in ("grpc", "rest")
    }
    tap_grpc = Tap(Address("127.0.0.1", inner_grpc), folder / "spied")
    tap_rest = Tap(Address("127.0.0.1", inner_rest), folder / "spied-rest")
    with tap_grpc, tap_rest:
        (folder / "nginx.conf").write_text(f"""daemon off; pid nginx.pid; error_log error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  ssl_certificate nginx.pem; ssl_certificate_key nginx.pem;
  upstream grpc {{ {pools["grpc"]} }}
  upstream rest {{ {pools["rest"]} }}
  server {{ listen 127.0.0.1:{grpc_port} ssl http2; location / {{ grpc_pass grpc://{Address(*tap_grpc.address)}; }} }}
  server {{ listen 127.0.0.1:{rest_port} ssl; location / {{ proxy_pass http://{Address(*tap_rest.address)}; }} }}
  server {{ listen 127.0.0.1:{inner_grpc} http2; location / {{ grpc_pass grpcs://grpc; }} }}
  server {{ listen 127.0.0.1:{inner_rest}; location / {{ proxy_pass https://rest; }} }}
}}
""")
        process = subprocess.Popen([found.program, "-p", str(folder), "-c", "nginx.conf", "-e", "error.log"])
        try:
            yield grpc_port, rest_port, folder
        finally:
            process.terminate()
            process.wait(10)


def open_grpc(port: int, folder: Path) -> grpc.Channel:
    pem = (folder / "nginx.pem").read_bytes().split(b"-----BEGIN EC")[0].split(b"-----BEGIN PRIVATE")[0]
    options = [("grpc.ssl_target_name_override", DOMAIN)]
    return grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(pem), options)


def predict(channel: grpc.Channel, model: str = "doubling", **options: Any) -> Any:
    answer = channel.unary_unary(PREDICT, None, None)(encode_request(model, {"x": SECRET}), timeout=20, **options)
    return decode_response(answer)["y"]


def of(world) -> Any:
    return world.service(Address("127.0.0.1", 1))


def sealer(channel: Any) -> Any:
    return channel.pool.lease().seat.sealer


def refused(check: str, kind: type[EnsconceError], call: Callable[[], Any]) -> None:
    with pytest.raises(kind) as error:
        call()
    assert error.value.check == check


def test_end_to_end_through_nginx(world, replica, find_port, tmp_path: Path) -> None:
    replicas = [replica(required=True) for _ in range(2)]
    with balancer(world, tmp_path / "nginx", find_port, replicas) as (grpc_port, rest_port, folder):
        outer = open_grpc(grpc_port, folder)
        grpc.channel_ready_future(outer).result(10)
        with sealed_channel(outer, of(world)) as channel:
            for _ in range(3):
                assert predict(channel).tobytes() == (SECRET * 2).tobytes()
            with pytest.raises(SealedCallError) as error:
                predict(channel, "a very private name")
            assert error.value.code() is grpc.StatusCode.NOT_FOUND
            assert "a very private name" in error.value.details()
            # Not sealed: the replica does not even look at it.
            with pytest.raises(grpc.RpcError) as bare:
                predict(outer, "doubling")
            assert bare.value.code() is grpc.StatusCode.PERMISSION_DENIED

        base = f"https://127.0.0.1:{rest_port}"
        transport = sealed_transport(httpx.HTTPTransport(verify=False), of(world), base)
        with httpx.Client(transport=transport, base_url=base, timeout=20) as client:
            response = client.post(REST, json={"instances": [1.25, 987654.5]})
            assert response.json() == {"predictions": [2.5, 1975309.0]}
            response = client.post("/v1/models/doubling:predict", json={"inputs": "very private"})
            assert response.status_code == 400
            assert "error" in response.json()
            assert response.request.url.path == REST
        with httpx.Client(verify=False, timeout=20) as bare_client:
            assert bare_client.post(base + REST, json={"instances": [1.0]}).status_code == 403

    spied = b"".join(path.read_bytes() for path in folder.glob("spied*/*"))
    assert MEDIA_TYPE.encode() in spied
    # What was sent in the clear, on purpose, shows that the spy would have seen the others.
    assert b'{"instances":[1.0]}' in spied.replace(b" ", b"")
    for plain in (b"very private", b"987654", b"1975309"):
        assert plain not in spied
    assert spied.count(SECRET.tobytes()) == 1  # the one that was not sealed
    assert (SECRET * 2).tobytes() not in spied


def test_a_new_key_is_asked_for_and_judged(world, replica) -> None:
    running = replica(most_requests=2)
    with sealed_channel(running.channel(), of(world), routes=1) as channel:
        seen = set()
        for _ in range(5):
            seen.add(sealer(channel).key.id)
            predict(channel)
        assert len(seen) >= 2
        before = sealer(channel).key
        running.renew(world.replica())
        predict(channel)
        assert sealer(channel).key.accepted.replica_id != before.accepted.replica_id
        # Renewed with what the policy does not accept: nothing more is sealed.
        running.renew(world.replica(mr_enclave=bytes(32)))
        with pytest.raises(RefusedError):
            predict(channel)


class Between(grpc.Channel):
    """Somebody who terminates: passes calls on as ``change`` says."""

    def __init__(self, channel: grpc.Channel, change: Callable[[Callable[..., Any], str, bytes, Any], Any]) -> None:
        self._channel, self._change = channel, change

    def unary_unary(self, method, request_serializer=None, response_deserializer=None, _registered_method=False):
        call = self._channel.unary_unary(method, request_serializer, response_deserializer)
        outer = self

        class Multi:
            def __call__(self, request, timeout=None, metadata=None):
                return call(request, timeout, metadata)

            def with_call(self, request, timeout=None, metadata=None):
                return outer._change(outer._pass, method, request, metadata)

        return Multi()

    def _pass(self, method: str, request: bytes, metadata: Any) -> Any:
        return self._channel.unary_unary(method, None, None).with_call(request, metadata=metadata, timeout=20)

    def subscribe(self, callback, try_to_connect=False): ...
    def unsubscribe(self, callback): ...
    def unary_stream(self, *_, **__): ...
    def stream_unary(self, *_, **__): ...
    def stream_stream(self, *_, **__): ...
    def close(self):
        self._channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def test_replayed_swapped_and_turned_requests(world, replica) -> None:
    running, seen = replica(), []

    def keep(forward, method, request, metadata):
        seen.append((method, request, metadata))
        return forward(method, request, metadata)

    with sealed_channel(Between(running.channel(), keep), of(world)) as channel:
        predict(channel)
    with running.channel() as raw:

        def code(method: str, request: bytes, metadata: Any) -> grpc.StatusCode:
            with pytest.raises(grpc.RpcError) as error:
                raw.unary_unary(method, None, None)(request, metadata=metadata, timeout=20)
            return error.value.code()

        method, request, metadata = seen[0]
        assert code(method, request, metadata) is grpc.StatusCode.ALREADY_EXISTS
        elsewhere = method.removesuffix("Predict") + "Classify"
        key = running.sealing.statement.key
        fresh, _ = seal_request(key, "grpc", method, b"")
        assert code(elsewhere, fresh, metadata) is grpc.StatusCode.INVALID_ARGUMENT
        assert code(method, fresh[:-1], metadata) is grpc.StatusCode.INVALID_ARGUMENT
        assert code(method, fresh, [(KEY_HEADER, "0" * 16)]) is grpc.StatusCode.FAILED_PRECONDITION
        reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        assert code(reflection, fresh, metadata) is grpc.StatusCode.UNIMPLEMENTED
        assert code("/no/Method", fresh, metadata) is grpc.StatusCode.UNIMPLEMENTED


def test_answers_that_are_not_this_requests(world, replica) -> None:
    running, kept = replica(), []

    def swap(forward, method, request, metadata):
        answer, call = forward(method, request, metadata)
        kept.append(answer)
        return kept[0], call

    with sealed_channel(Between(running.channel(), swap), of(world)) as channel:
        predict(channel)
        refused("sealed.answer", EvidenceError, lambda: predict(channel))

    def plain(_forward, _method, _request, _metadata):
        return b"", None

    with sealed_channel(Between(running.channel(), plain), of(world)) as channel:
        refused("sealed.answer", EvidenceError, lambda: predict(channel))


def test_the_enclave_counts_what_is_inside(world, replica, wait_for) -> None:
    metrics = Metrics()
    with sealed_channel(replica(metrics=metrics).channel(), of(world)) as channel:
        predict(channel)
        with pytest.raises(SealedCallError):
            predict(channel, "absent")
    # It counts when it has answered, and may be slower than the answer.
    counted = ('status="OK"} 1\n', 'status="NOT_FOUND"} 1\n')
    wait_for(lambda: all(each in metrics.page() for each in counted), "both calls to be counted")


def test_a_balancer_that_never_meets_the_key(world, replica) -> None:
    one, other = replica(), replica()
    strays = other.channel()

    def stray(_forward, method, request, metadata):
        return strays.unary_unary(method, None, None).with_call(request, metadata=metadata, timeout=20)

    with strays, sealed_channel(Between(one.channel(), stray), of(world)) as channel:
        refused("sealed.route", UnreachableError, lambda: predict(channel))


def test_keys_that_nobody_vouches_for(world, replica) -> None:
    running = replica()
    true, service = running.sealing.statement, of(world)
    assert judge_statement(true, service).id == key_id(true.key)
    hosts = ec.generate_private_key(ec.SECP256R1())

    def put(**changes: bytes) -> Callable[[], Any]:
        return lambda: judge_statement(dataclasses.replace(true, **changes), service)

    refused("sealed.signature", EvidenceError, put(key=bytes(range(32))))
    signature = hosts.sign(signed_part(bytes(range(32))), ec.ECDSA(SHA256()))
    refused("sealed.signature", EvidenceError, put(key=bytes(range(32)), signature=signature))
    refused("sealed.signature", EvidenceError, put(signature=b""))
    # Without the context, as a handshake might sign something.
    bare = running.who.key.sign(true.key, ec.ECDSA(SHA256()))
    refused("sealed.signature", EvidenceError, put(signature=bare))
    refused("sealed.key", EvidenceError, put(key=true.key + b"\0"))
    refused("sealed.key", EvidenceError, put(certificate=bytes((1 << 16) + 1)))
    refused("sealed.key", EvidenceError, put(certificate=b""))
    for who, kind in [
        (world.self_signed(hosts, None), EvidenceError),
        (world.thief(running.who, self_signed=False), EvidenceError),
        (world.replica(mr_enclave=bytes(32)), RefusedError),
        (world.replica(domain="other.example.test"), EvidenceError),
        (world.replica(issued=world.now - 40 * 86400), EvidenceError),
    ]:
        sealing = Sealing()
        sealing.present(who.key_pem, who.chain_pem)
        with pytest.raises(kind):
            judge_statement(sealing.statement, service)


def test_what_cannot_be_sealed_is_refused(world, replica) -> None:
    running = replica()
    with sealed_channel(running.channel(), of(world)) as channel:
        for call in (
            channel.unary_stream(PREDICT),
            channel.stream_unary(PREDICT),
            channel.stream_stream(PREDICT),
        ):
            refused("sealed.kind", InputError, lambda call=call: call(b""))


def handled(world, answers: Callable[[httpx.Request], httpx.Response]) -> httpx.Client:
    transport = sealed_transport(httpx.MockTransport(answers), of(world), "https://balancer")
    return httpx.Client(transport=transport, base_url="https://balancer")


def test_rest_refuses(world) -> None:
    who, sealing = world.replica(), Sealing()
    sealing.present(who.key_pem, who.chain_pem)
    posts: list[httpx.Request] = []

    def answers(status: int, body: bytes) -> Callable[[httpx.Request], httpx.Response]:
        def answer(request: httpx.Request) -> httpx.Response:
            if request.method == "GET":
                fields = dataclasses.asdict(sealing.statement)
                return httpx.Response(200, json={name: b64encode(value).decode() for name, value in fields.items()})
            posts.append(request)
            return httpx.Response(status, content=body)

        return answer

    post = {"json": {"instances": ["plain text"]}}
    with handled(world, answers(200, b'{"predictions": [1]}')) as client:
        refused("sealed.answer", EvidenceError, lambda: client.post(REST, **post))
        refused("sealed.kind", InputError, lambda: client.get("/v1/models/doubling"))
        refused("sealed.kind", InputError, lambda: client.post("http://elsewhere" + REST, **post))
    with handled(world, answers(503, b"busy")) as client:
        refused("sealed.refused", UnreachableError, lambda: client.post(REST, **post))
    posts_before = len(posts)
    with handled(world, answers(421, b"")) as client:
        refused("sealed.route", UnreachableError, lambda: client.post(REST, **post))
    assert len(posts) == posts_before + 3
    assert not any(b"plain text" in request.content for request in posts)
    assert len({request.content[:32] for request in posts}) == len(posts)
    for response in (
        httpx.Response(404),
        httpx.Response(200, content=b"[" * 5000),
        httpx.Response(200, content=b"{}"),
        httpx.Response(200, content=json.dumps({"certificate": 1, "key": "", "signature": ""}).encode()),
    ):
        refused("sealed.none", UnreachableError, lambda response=response: handled(world, lambda _: response))
    long = httpx.Response(200, content=bytes(1 << 18))
    refused("sealed.length", UnreachableError, lambda: handled(world, lambda _: long))


def test_a_server_that_takes_none(world, serve) -> None:
    """Off by default."""
    who = world.replica()
    grpc_address, rest_address = serve(who)
    options = [("grpc.ssl_target_name_override", DOMAIN)]
    with grpc.secure_channel(str(grpc_address), grpc.ssl_channel_credentials(who.chain_pem), options) as raw:
        refused("sealed.none", UnreachableError, lambda: sealed_channel(raw, of(world)))
    base = f"https://{rest_address}"
    transport = httpx.HTTPTransport(verify=False)
    refused("sealed.none", UnreachableError, lambda: sealed_transport(transport, of(world), base))
    transport.close()
