"""Ordinary gRPC and HTTP clients over attested connections; predictions and load over those."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc
import httpx
import numpy as np
import pytest

from ensconce.appraisal.appraiser import Appraiser
from ensconce.client import load
from ensconce.client.channel import AttestedChannel, open_channel
from ensconce.client.codec import PREDICT, decode_response, encode_request
from ensconce.client.predict import Client
from ensconce.client.rest import http_client
from ensconce.errors import EnsconceError, InputError, RefusedError, UnreachableError
from ensconce.tfserving.messages import PredictRequest, PredictResponse

DOMAIN = "digits.example.test"
OTHER_CODE = bytes(32)
IMAGES = {"images": np.arange(6, dtype=np.float32).reshape(2, 3)}


@pytest.fixture
def channel_to(world):
    made: list[AttestedChannel] = []

    def make(target, **options) -> AttestedChannel:
        made.append(open_channel(world.service(target), connections=1, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def reason(call: Callable[[], object]) -> EnsconceError:
    """Why calls fail once the connection is known to have ended; one that meets its end gets gRPC's own word for it."""
    deadline = time.monotonic() + 30
    while True:
        with pytest.raises((EnsconceError, grpc.RpcError)) as failed:
            call()
        if isinstance(failed.value, EnsconceError):
            return failed.value
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() < deadline


def test_stubs_work_on_the_channel(world, grpc_replica, channel_to) -> None:
    replica = grpc_replica(world.replica())
    with channel_to(replica.target) as channel:
        # What a generated stub does.
        predict = channel.unary_unary(
            PREDICT,
            request_serializer=PredictRequest.SerializeToString,
            response_deserializer=PredictResponse.FromString,
            _registered_method=True,
        )
        request = PredictRequest.FromString(encode_request("digits", IMAGES))
        assert list(predict(request, timeout=30).outputs["images"].float_val) == [0, 2, 4, 6, 8, 10]
        response, call = predict.with_call(request, timeout=30)
        assert call.code() is grpc.StatusCode.OK
        assert predict.future(request, timeout=30).result() == response
        assert sum(channel.pool.opened.values()) == 1
        with pytest.raises(grpc.RpcError) as failed:
            predict(PredictRequest.FromString(encode_request("absent", IMAGES)), timeout=30)
        assert failed.value.code() is grpc.StatusCode.NOT_FOUND


def test_an_interceptor_of_the_callers(world, grpc_replica, channel_to) -> None:
    seen = []

    class Watch(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation, details, request):
            seen.append(details.method)
            return continuation(details, request)

    channel = grpc.intercept_channel(channel_to(grpc_replica(world.replica()).target), Watch())
    assert decode_response(channel.unary_unary(PREDICT)(encode_request("digits", IMAGES), timeout=30))
    assert seen == [PREDICT]


def test_a_refused_replica_gets_no_channel(world, grpc_replica, channel_to) -> None:
    replica = grpc_replica(world.replica(mr_enclave=OTHER_CODE))
    with pytest.raises(RefusedError) as refused:
        channel_to(replica.target)
    assert refused.value.check == "policy.mr_enclave"
    assert replica.served == 0


def test_a_replica_that_is_swapped_later_is_refused_with_the_true_reason(world, grpc_replica, channel_to) -> None:
    honest = grpc_replica(world.replica())
    predict = channel_to(honest.target).unary_unary(PREDICT)
    request = encode_request("digits", IMAGES)
    assert decode_response(predict(request, timeout=30))["images"].tolist() == [[0, 2, 4], [6, 8, 10]]
    honest.stop()
    impostor = grpc_replica(world.replica(mr_enclave=OTHER_CODE), honest.port)
    for call in (predict, predict.with_call):
        refused = reason(partial(call, request, timeout=30, wait_for_ready=call is predict.with_call))
        assert refused.check == "policy.mr_enclave"
    with pytest.raises(grpc.RpcError):
        predict.future(request, timeout=30).result()
    assert impostor.served == 0


def test_a_replica_that_went_away_and_came_back(world, grpc_replica, channel_to, find_port) -> None:
    first = grpc_replica(world.replica(), find_port())
    channel = channel_to(first.target)
    predict = channel.unary_unary(PREDICT)
    request = encode_request("digits", IMAGES)
    predict(request, timeout=30)
    first.stop()
    assert reason(lambda: predict(request, timeout=30)).check == "connect.tcp"
    grpc_replica(world.replica(), first.port)
    assert predict(request, timeout=30, wait_for_ready=True)
    assert len(channel.pool.known) == 2


def test_connections_that_the_server_ages_out_are_judged_anew(world, grpc_replica, channel_to) -> None:
    judged = []

    class Counting(Appraiser):
        def appraise(self, quote: bytes):
            judged.append(quote)
            return super().appraise(quote)

    appraiser = Counting(**vars(world.appraiser()))
    channel = open_channel(
        world.service(grpc_replica(world.replica(), max_age_ms=100).target, appraiser=appraiser), connections=1
    )
    predict = channel.unary_unary(PREDICT)
    request = encode_request("digits", IMAGES)
    deadline = time.monotonic() + 60
    with channel:
        while len(judged) < 4:
            assert time.monotonic() < deadline
            predict(request, timeout=30)


def test_http(world, rest_replica) -> None:
    target = rest_replica(world.replica())
    with http_client(target, DOMAIN, world.appraiser(), authority=world.authority.certificate) as client:
        answer = client.post("/v1/models/digits:predict", json={"instances": [1]})
        assert answer.status_code == 200
        assert answer.text == 'digits.example.test /v1/models/digits:predict {"instances":[1]}'


def test_http_takes_no_part_of_an_answer_for_the_whole(world, rest_replica) -> None:
    """A host can end a connection wherever it likes."""
    target = rest_replica(world.replica())
    with http_client(target, DOMAIN, world.appraiser(), authority=world.authority.certificate) as client:
        with pytest.raises(UnreachableError) as refused:
            client.post("/ends-with-the-connection", content=b"whole?")
        assert refused.value.check == "http.length"
        with pytest.raises(httpx.RemoteProtocolError):
            client.post("/is-cut-short", content=b"whole?")
        assert client.post("/x", content=b"whole").text.endswith("whole")
        assert not client._transport.pool._roster.calls


def test_http_never_goes_through_a_proxy(world, rest_replica, recorder, monkeypatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    target = rest_replica(world.replica())
    with http_client(target, DOMAIN, world.appraiser(), authority=world.authority.certificate) as client:
        assert client.post("/x", content=b"y").status_code == 200


@pytest.mark.parametrize("location", ["http://127.0.0.1:{port}/next", "//127.0.0.1:{port}/next"])
def test_http_follows_redirects_to_the_same_service_only(world, recorder, listen, location: str) -> None:
    asked: list[bytes] = []
    elsewhere = listen(lambda connection: asked.append(connection.recv(100)))
    target = location.format(port=elsewhere.address.port).encode()

    def talk(tls) -> None:
        request = b""
        while part := tls.recv(1000):
            request += part
            if request.endswith(b"pixels"):
                if b"/next" in request:
                    tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhere")
                else:
                    tls.sendall(b"HTTP/1.1 307 Go\r\nlocation: " + target + b"\r\ncontent-length: 0\r\n\r\n")
                request = b""

    server = recorder(world.replica(), talk=talk)
    with http_client(server.target, DOMAIN, world.appraiser(), authority=world.authority.certificate) as client:
        assert client.post("/x", content=b"pixels", follow_redirects=True).text == "here"
    assert asked == []
    assert elsewhere.accepted == 0


def test_http_refused(world, rest_replica) -> None:
    target = rest_replica(world.replica(debug=True))
    with pytest.raises(RefusedError) as refused:
        http_client(target, DOMAIN, world.appraiser(), authority=world.authority.certificate)
    assert refused.value.check == "policy.debug"


def test_http_to_a_replica_that_is_refused_later(world, recorder) -> None:
    server = recorder(world.replica())
    policy = world.appraiser()
    with http_client(server.target, DOMAIN, policy, authority=world.authority.certificate) as client:
        for seat in client._transport.pool._roster.seats:
            seat.tunnel._again = lambda: (_ for _ in ()).throw(RefusedError("policy.x", "swapped"))
        server.cut()
        for _ in range(2):
            with pytest.raises((RefusedError, httpx.TransportError)) as failed:
                client.get("/")
        assert isinstance(failed.value, RefusedError)


@pytest.fixture
def client_of(world):
    made: list[Client] = []

    def make(*replicas, connections=1, **options) -> Client:
        service = world.service(*(replica.target for replica in replicas))
        made.append(Client(open_channel(service, connections=connections), **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_predict(world, grpc_replica, client_of) -> None:
    replicas = [grpc_replica(world.replica()) for _ in range(2)]
    client = client_of(*replicas, connections=4)
    for _ in range(8):
        assert np.array_equal(client.predict("digits", IMAGES)["images"], IMAGES["images"] * 2)
    assert [replica.served for replica in replicas] == [4, 4]
    assert sorted(client.calls.values()) == [4, 4]
    assert set(client.accepted) == set(client.calls)
    assert {each.acceptance.identity.name for each in client.accepted.values()} == {"server"}


@pytest.mark.parametrize(
    ("model", "kind", "check"),
    [("absent", InputError, "predict.not_found"), ("slow", UnreachableError, "predict.deadline_exceeded")],
)
def test_predictions_that_fail(world, grpc_replica, client_of, model, kind, check) -> None:
    client = client_of(grpc_replica(world.replica()))
    with pytest.raises(kind) as failed:
        client.predict(model, IMAGES, timeout=2.0 if model == "slow" else 30)
    assert failed.value.check == check
    assert client.calls == {}


def test_arrays_that_cannot_be_sent(world, grpc_replica, client_of) -> None:
    client = client_of(grpc_replica(world.replica()))
    with pytest.raises(InputError) as failed:
        client.predict("digits", {"images": np.zeros(2, dtype="datetime64[s]")})
    assert failed.value.check == "predict.inputs"


def test_no_target_and_no_connection(world, client_of, grpc_replica) -> None:
    with pytest.raises(InputError):
        client_of()
    with pytest.raises(InputError):
        client_of(grpc_replica(world.replica()), connections=0)


def test_one_refused_replica_among_many_is_told_of_and_gets_nothing(world, grpc_replica, client_of) -> None:
    good, bad = grpc_replica(world.replica()), grpc_replica(world.replica(mr_enclave=OTHER_CODE))
    client = client_of(good, bad, connections=2)
    for _ in range(4):
        client.predict("digits", IMAGES)
    assert client.channel.pool.failures[bad.target].check == "policy.mr_enclave"
    assert (good.served, bad.served) == (4, 0)


def test_load(world, grpc_replica, client_of, wait_for) -> None:
    replicas = [grpc_replica(world.replica(), holds=True) for _ in range(2)]
    client = client_of(*replicas, connections=2)
    batches = [{"images": np.full((1, 2), number, np.float32)} for number in range(20)]
    with ThreadPoolExecutor(1) as threads:
        loading = threads.submit(load.run, client, "digits", batches, concurrency=4)
        try:
            wait_for(lambda: [each.served for each in replicas] == [2, 2], "half of the callers at each replica")
        finally:
            for each in replicas:
                each.holds = False
        result = loading.result()
    assert [prediction["images"][0, 0] for prediction in result.predictions] == [2 * number for number in range(20)]
    assert sum(result.per_replica.values()) == 20
    assert sorted(result.per_replica.values()) == sorted(each.served for each in replicas)
    assert result.latencies.shape == (20,)
    assert 0 < result.percentile(50) <= result.percentile(99) == result.latencies.max() <= result.seconds


def test_load_ends_at_the_first_failure(world, grpc_replica, client_of) -> None:
    replica = grpc_replica(world.replica())
    client = client_of(replica)
    with pytest.raises(InputError) as failed:
        load.run(client, "absent", [IMAGES] * 50, concurrency=2)
    assert failed.value.check == "predict.not_found"
    assert replica.served < 10
