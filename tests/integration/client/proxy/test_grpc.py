"""gRPC through the proxy: clients on insecure channels, attested TLS behind it."""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import grpc
import numpy as np
import pytest

from ensconce.addresses import Address
from ensconce.client import roster
from ensconce.client.codec import PREDICT
from ensconce.proxy import upstream
from ensconce.proxy.link import Link
from ensconce.tfserving.messages import PredictRequest, PredictResponse
from ensconce.tfserving.tensor import from_proto, to_proto

OTHER_CODE = bytes(32)
UNBOUNDED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks around often, and tries again soon."""
    monkeypatch.setattr(roster, "EXPLORE_S", 0.05)
    monkeypatch.setattr(roster, "_LONGEST_PAUSE_S", 0.1)
    monkeypatch.setattr(upstream, "_LONGEST_PAUSE_S", 0.1)


@pytest.fixture
def channel_to():
    made: list[grpc.Channel] = []

    def make(started, **options) -> grpc.Channel:
        # Channels to one address share their connections otherwise.
        own = ("grpc.use_local_subchannel_pool", 1)
        made.append(grpc.insecure_channel(started.at["grpc"], options=[*UNBOUNDED, own], **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def predict(channel: grpc.Channel, model: str = "digits", **options):
    method = channel.unary_unary(
        PREDICT, request_serializer=PredictRequest.SerializeToString, response_deserializer=PredictResponse.FromString
    )
    request = PredictRequest()
    request.model_spec.name = model
    request.inputs["images"].CopyFrom(to_proto(np.arange(6, dtype=np.float32)))
    return from_proto(method(request, **{"timeout": 10, **options}).outputs["images"])


def raw(channel: grpc.Channel, path: str):
    return channel.stream_stream(path, None, None)


def test_calls_are_shared_by_two_replicas(world, proxy, grpc_replica, channel_to, wait_for) -> None:
    replicas = [grpc_replica(world.replica()) for _ in range(2)]
    started = proxy(*(each.target for each in replicas))
    wait_for(lambda: len(started.replicas) == 2, "both replicas")
    channel = channel_to(started)
    for _ in range(10):
        assert predict(channel).tolist() == [0, 2, 4, 6, 8, 10]
    assert [each.served for each in replicas] == [5, 5]
    page = started.status("/metrics").text
    assert 'ensconce_proxy_calls_total{protocol="grpc",status="OK"} 10.0' in page
    assert 'ensconce_proxy_replicas{protocol="grpc"} 2.0' in page
    for replica in started.replicas:
        assert f'ensconce_proxy_replica_calls_total{{protocol="grpc",replica="{replica}"}} 5.0' in page
        assert f'ensconce_proxy_valid_until_seconds{{protocol="grpc",replica="{replica}"}}' in page


def test_an_error_of_the_replica_is_the_clients(world, proxy, grpc_replica, channel_to, wait_for) -> None:
    started = proxy(grpc_replica(world.replica()).target)
    wait_for(lambda: started.replicas, "the replica")
    with pytest.raises(grpc.RpcError) as caught:
        predict(channel_to(started), "absent")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "Servable not found for request: Latest(absent)"


def test_one_of_two_dies(proxy, probe, wire, channel_to, wait_for) -> None:
    replicas = [probe() for _ in range(2)]
    wires = [wire(each.target) for each in replicas]
    started = proxy(*(each.address for each in wires))
    wait_for(lambda: len(started.replicas) == 2, "both replicas")
    channel = channel_to(started)
    stuck = [raw(channel, "/a.Service/Wait")(iter([]), timeout=30) for _ in range(2)]
    wait_for(lambda: [each.served for each in replicas] == [1, 1], "a call at each")
    wires[0].cut()
    wait_for(lambda: any(not each.is_active() for each in stuck), "the end of the call at the replica that died")
    ended = next(each for each in stuck if not each.is_active())
    assert ended.code() is grpc.StatusCode.UNAVAILABLE
    assert "[proxy.connection]" in ended.details()
    wait_for(lambda: len(started.replicas) == 1, "one replica")
    for _ in range(6):
        assert list(raw(channel, "/a.Service/Talk")(iter([b"hello"]), timeout=10)) == [b"hello"]
    assert [each.served for each in replicas] == [1, 7]


def test_a_refused_replica_is_sent_nothing_and_the_client_learns_why(
    world, proxy, recorder, channel_to, wait_for
) -> None:
    liar = recorder(world.replica(mr_enclave=OTHER_CODE))
    started = proxy(liar.target)
    wait_for(lambda: started.status("/readyz").json()["grpc"]["failures"], "a refusal")
    assert started.status("/readyz").status_code == 503
    with pytest.raises(grpc.RpcError) as caught:
        predict(channel_to(started))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    details = caught.value.details()
    assert "[policy.mr_enclave]" in details
    assert "remedy:" in details
    assert bytes(liar.received) == b""
    page = started.status("/metrics").text
    assert 'ensconce_proxy_refused_total{check="policy.mr_enclave",protocol="grpc"} 1.0' in page


def test_a_judge_that_fails_in_a_way_of_its_own_refuses_at_once(world, proxy, probe, channel_to, wait_for) -> None:
    def judge(_quote: bytes):
        raise ZeroDivisionError

    started = proxy(probe().target, appraiser=replace(world.appraiser(), collateral=SimpleNamespace(get_for=judge)))
    wait_for(lambda: started.status("/readyz").json()["grpc"]["failures"], "a failure")
    with pytest.raises(grpc.RpcError) as caught:
        predict(channel_to(started))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "[client.connect]" in caught.value.details()
    assert "ZeroDivisionError at" in caught.value.details()


def test_a_call_that_cannot_be_begun_ends_at_once(proxy, probe, channel_to, wait_for, monkeypatch) -> None:
    started = proxy(probe().target)
    wait_for(lambda: started.replicas, "the replica")

    async def fail(_link: Link) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Link, "ready", lambda _: None)
    monkeypatch.setattr(Link, "connection", fail)
    with pytest.raises(grpc.RpcError) as caught:
        predict(channel_to(started))
    assert caught.value.code() is grpc.StatusCode.INTERNAL


def test_it_starts_before_its_replica(world, proxy, grpc_replica, find_port, channel_to, wait_for) -> None:
    who, port = world.replica(), find_port()
    started = proxy(Address("127.0.0.1", port))
    wait_for(lambda: started.status("/readyz").json()["grpc"]["failures"], "a failure")
    channel = channel_to(started)
    with pytest.raises(grpc.RpcError) as caught:
        predict(channel)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "[connect.tcp]" in caught.value.details()
    assert started.status("/healthz").status_code == 200
    grpc_replica(who, port=port)
    wait_for(lambda: started.replicas, "the replica")
    assert started.status("/readyz").status_code == 200
    assert predict(channel).tolist() == [0, 2, 4, 6, 8, 10]


def test_a_replica_that_comes_back_is_asked_again(world, proxy, grpc_replica, channel_to, wait_for) -> None:
    who = world.replica()
    first = grpc_replica(who)
    started = proxy(first.target)
    channel = channel_to(started)
    wait_for(lambda: started.replicas, "the replica")
    predict(channel)
    first.stop()
    wait_for(lambda: not started.replicas, "its end")
    with pytest.raises(grpc.RpcError) as caught:
        predict(channel)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    second = grpc_replica(who, port=first.port)
    wait_for(lambda: started.replicas, "its return")
    predict(channel)
    assert second.served == 1


def test_connections_that_age_out_lose_no_call(world, proxy, grpc_replica, channel_to, wait_for) -> None:
    replica = grpc_replica(world.replica(), max_age_ms=150)
    started = proxy(replica.target)
    wait_for(lambda: started.replicas, "the replica")
    channel = channel_to(started)
    until, calls = time.monotonic() + 0.6, 0
    while time.monotonic() < until:
        predict(channel)
        calls += 1
    assert replica.served == calls


def test_metadata_trailers_and_status_pass(proxy, probe, channel_to, wait_for) -> None:
    far = probe()
    started = proxy(far.target)
    wait_for(lambda: started.replicas, "the replica")
    metadata = (("ask-who", "me"), ("ask-key-bin", b"\0\xff\n"), ("end-mark", "x, y"), ("end-bin", bytes(range(256))))
    call = raw(channel_to(started), "/a.Service/Refuse")(iter([b"one", b""]), metadata=metadata, timeout=10)
    assert [next(call), next(call)] == [b"one", b""]
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS
    assert caught.value.details() == "50 % is lost \u2013 so what"
    told = dict(call.initial_metadata())
    assert (told["told-who"], told["told-key-bin"]) == ("me", b"\0\xff\n")
    ends = dict(call.trailing_metadata())
    assert (ends["end-mark"], ends["end-bin"]) == ("x, y", bytes(range(256)))
    assert far.path == "/a.Service/Refuse"
    assert far.metadata["user-agent"].startswith("grpc-python")


def test_messages_go_both_ways_as_they_are_said(proxy, probe, channel_to, wait_for) -> None:
    started = proxy(probe().target)
    wait_for(lambda: started.replicas, "the replica")
    said: list[bytes] = []
    go_on = threading.Semaphore(0)

    def talk():
        for number in range(5):
            yield b"%d" % number
            go_on.acquire()

    for answer in raw(channel_to(started), "/a.Service/Talk")(talk(), timeout=10):
        said.append(answer)
        go_on.release()
    assert said == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_pass(proxy, probe, channel_to, wait_for, compression) -> None:
    far = probe()
    started = proxy(far.target)
    wait_for(lambda: started.replicas, "the replica")
    call = raw(channel_to(started, compression=compression), "/a.Service/Talk")(iter([bytes(100_000)]), timeout=10)
    assert list(call) == [bytes(100_000)]


def test_a_large_message_passes_and_is_never_held(proxy, probe, channel_to, wait_for) -> None:
    started = proxy(probe().target)
    wait_for(lambda: started.replicas, "the replica")
    large = bytes(range(256)) * 64 * 1024
    assert list(raw(channel_to(started), "/a.Service/Talk")(iter([large]), timeout=30)) == [large]


def test_who_does_not_read_is_not_sent(proxy, probe, channel_to, wait_for) -> None:
    """Of 64 MB that nobody takes, the proxy holds a few windows."""
    started = proxy(probe().target)
    wait_for(lambda: started.replicas, "the replica")
    message = b"%08d" % 64 + bytes(1 << 20)
    call = raw(channel_to(started), "/a.Service/Many")(iter([message]), timeout=30)
    next(call)
    front = started.running._grpc.server
    held = []
    for _ in range(20):
        time.sleep(0.01)
        held.append(front.held_bytes)
    assert max(held) < 8 << 20
    assert sum(1 for _ in call) == 63


def test_a_cancelled_call_is_cancelled_at_the_replica(proxy, probe, channel_to, wait_for) -> None:
    far = probe()
    started = proxy(far.target)
    wait_for(lambda: started.replicas, "the replica")
    call = raw(channel_to(started), "/a.Service/Wait")(iter([]), timeout=30)
    wait_for(lambda: far.metadata, "the call")
    call.cancel()
    assert far.cancelled.wait(10)
    page = started.status("/metrics").text
    assert 'ensconce_proxy_calls_total{protocol="grpc",status="CANCELLED"} 1.0' in page


def test_deadlines_pass_and_are_kept(proxy, probe, channel_to, wait_for) -> None:
    far = probe()
    started = proxy(far.target)
    wait_for(lambda: started.replicas, "the replica")
    list(raw(channel_to(started), "/a.Service/Talk")(iter([]), timeout=20))
    assert 10 < far.time_left < 21
    while far.served < 2:  # it may be over before the replica sees it
        with pytest.raises(grpc.RpcError) as caught:
            list(raw(channel_to(started), "/a.Service/Wait")(iter([]), timeout=0.2))
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert far.cancelled.wait(10)


def test_health_is_the_proxys_own(world, proxy, grpc_replica, channel_to, wait_for) -> None:
    replica = grpc_replica(world.replica())
    started = proxy(replica.target)
    watch = channel_to(started).unary_stream("/grpc.health.v1.Health/Watch", None, None)(b"", timeout=30)
    said = []
    for answer in watch:
        said.append(answer)
        if answer == b"\x08\x01":
            break
    assert said[-1] == b"\x08\x01"
    name = b"tensorflow.serving.PredictionService"
    check = channel_to(started).unary_unary("/grpc.health.v1.Health/Check", None, None)
    assert check(bytes((10, len(name))) + name, timeout=10) == b"\x08\x01"
    replica.stop()
    assert next(answer for answer in watch if answer != b"\x08\x01") == b"\x08\x02"


def test_a_call_under_way_ends_before_the_proxy_does(world, proxy, grpc_replica, channel_to, wait_for) -> None:
    replica = grpc_replica(world.replica())
    replica.holds = True
    started = proxy(replica.target)
    wait_for(lambda: started.replicas, "the replica")
    found: list[object] = []
    channel = channel_to(started)
    thread = threading.Thread(target=lambda: found.append(predict(channel)))
    thread.start()
    wait_for(lambda: replica.served, "the call")
    ending = threading.Thread(target=started.stop, args=(10,))
    ending.start()
    wait_for(lambda: started.status("/readyz").status_code == 503, "the beginning of the end")
    replica.holds = False
    thread.join()
    ending.join()
    assert len(found) == 1
    with pytest.raises(grpc.RpcError):
        predict(channel)


def test_what_is_no_grpc_is_refused(world, proxy, grpc_replica, wait_for) -> None:
    started = proxy(grpc_replica(world.replica()).target)
    asked = ["curl", "-s", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_code}"]
    url = f"http://{started.at['grpc']}/x"
    assert subprocess.run([*asked, url], capture_output=True, text=True, check=True).stdout == "405"
    # Without a body: the answer would come before that is taken, which curl minds.
    assert subprocess.run([*asked, "-X", "POST", url], capture_output=True, text=True, check=True).stdout == "415"


def test_reflection_through_connections_with_fresh_quotes(world, proxy, serve, channel_to, wait_for) -> None:
    address, _ = serve(world.replica())
    started = proxy(address, freshness=True)
    wait_for(lambda: started.replicas, "the replica")
    asked = iter([b"\x3a\x01*", b"\x3a\x01*"])  # ServerReflectionRequest.list_services, twice
    answers = list(
        raw(channel_to(started), "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")(asked, timeout=10)
    )
    assert len(answers) == 2
    assert all(b"tensorflow.serving.PredictionService" in each for each in answers)
