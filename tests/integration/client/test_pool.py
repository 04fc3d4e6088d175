"""Calls shared between proved connections: replicas that come, go, lie, stall and refuse."""

from __future__ import annotations

import threading
from pathlib import Path

import grpc
import numpy as np
import pytest

from ensconce.addresses import Address
from ensconce.client import roster
from ensconce.client.channel import open_channel
from ensconce.client.codec import PREDICT, encode_request
from ensconce.client.predict import Client
from ensconce.errors import EvidenceError, InputError, RefusedError, UnreachableError
from ensconce.gateway import Backend, open_gateway
from ensconce.ratls.authority import CertificateAuthority

DOMAIN = "digits.example.test"
OTHER_CODE = bytes(32)
IMAGES = {"images": np.arange(6, dtype=np.float32).reshape(2, 3)}


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks around often, and tries again soon."""
    monkeypatch.setattr(roster, "EXPLORE_S", 0.05)
    monkeypatch.setattr(roster, "_LONGEST_PAUSE_S", 0.2)


@pytest.fixture
def client_of(world):
    made: list[Client] = []

    def make(*targets: Address, connections: int = 2, hedge=None, **options) -> Client:
        made.append(Client(open_channel(world.service(*targets, **options), connections=connections), hedge=hedge))
        return made[-1]

    yield make
    for each in made:
        each.close()


def share(client: Client, replicas, calls: int = 12) -> list[int]:
    """How many of so many calls each replica answers."""
    before = [replica.served for replica in replicas]
    for _ in range(calls):
        client.predict("digits", IMAGES)
    return [replica.served - count for replica, count in zip(replicas, before, strict=True)]


def even(client: Client, replicas) -> bool:
    return len(set(share(client, replicas))) == 1


def test_a_new_replica_behind_a_gateway_gets_its_share(world, grpc_replica, client_of, tmp_path, wait_for) -> None:
    gateway = open_gateway(
        "embedded", tmp_path / "gateway", grpc=Address("127.0.0.1", 0), rest=Address("127.0.0.1", 0), domain=DOMAIN
    )
    replicas = [grpc_replica(world.replica()) for _ in range(2)]
    backends = [Backend(str(each.port), "127.0.0.1", each.port, each.port) for each in replicas]
    gateway.start(backends)
    try:
        client = client_of(Address(*gateway.addresses["grpc"]))
        wait_for(lambda: even(client, replicas), "an even share of two")
        replicas.append(grpc_replica(world.replica()))
        backends.append(Backend("new", "127.0.0.1", replicas[-1].port, replicas[-1].port))
        gateway.reload(backends)
        wait_for(lambda: even(client, replicas), "an even share of three")
        assert len(client.channel.pool.replicas) == 3
    finally:
        gateway.stop()


def test_a_replica_that_dies_is_left_and_tried_again(world, grpc_replica, client_of, wait_for) -> None:
    replicas = [grpc_replica(world.replica()) for _ in range(2)]
    client = client_of(*(replica.target for replica in replicas))
    wait_for(lambda: len(client.channel.pool.replicas) == 2, "both replicas")
    assert share(client, replicas) == [6, 6]
    dead = replicas.pop()
    dead.stop()
    both = set(client.accepted)
    # Not one call fails: what was on its way to it is asked of the other.
    assert share(client, replicas) == [12]
    wait_for(lambda: dead.target in client.channel.pool.failures, "an attempt that failed")
    assert client.channel.pool.failures[dead.target].check == "connect.tcp"
    replicas.append(grpc_replica(world.replica(), dead.port))
    wait_for(lambda: even(client, replicas), "an even share of the one that came back")
    assert client.channel.pool.failures == {}
    # What it knows of those that answered outlasts them.
    assert set(client.accepted) == set(client.calls) == both | set(client.channel.pool.replicas)
    assert len(client.accepted) == 3


def test_what_comes_back_in_its_place_is_judged_anew(world, grpc_replica, client_of, wait_for) -> None:
    good, other = grpc_replica(world.replica()), grpc_replica(world.replica())
    client = client_of(good.target, other.target)
    share(client, [good, other])
    other.stop()
    impostor = grpc_replica(world.replica(mr_enclave=OTHER_CODE), other.port)
    assert share(client, [good]) == [12]
    # Before that, while nobody was there, it was not reached.
    pool = client.channel.pool
    wait_for(lambda: isinstance(pool.failures.get(impostor.target), RefusedError), "the impostor to be refused")
    good.stop()
    with pytest.raises((RefusedError, UnreachableError)):
        client.predict("digits", IMAGES, timeout=5)
    assert impostor.served == 0


def refused(world) -> dict[str, tuple[object, type[Exception], str]]:
    victim = world.replica()
    stranger = CertificateAuthority.create("stranger", world.now)
    return {
        "another enclave": (world.replica(mr_enclave=OTHER_CODE), RefusedError, "policy.mr_enclave"),
        "debug": (world.replica(debug=True), RefusedError, "policy.debug"),
        "another's evidence": (world.thief(victim, self_signed=False), EvidenceError, "ratls.pubkey_hash"),
        "another's authority": (world.replica(authority=stranger), EvidenceError, "certificate.issuer"),
        "another name": (world.replica(domain="other.example.test"), EvidenceError, "certificate.name"),
        "expired": (world.replica(issued=world.now - 3 * 86400), EvidenceError, "certificate.validity"),
    }


def test_each_kind_of_refusal_is_the_reason_why_there_is_no_channel(world, grpc_replica) -> None:
    for who, kind, check in refused(world).values():
        replica = grpc_replica(who)
        with pytest.raises(kind) as failed:
            open_channel(world.service(replica.target))
        assert failed.value.check == check
        assert replica.served == 0


def test_a_refusal_is_told_rather_than_that_another_was_not_reached(world, grpc_replica, find_port) -> None:
    bad = grpc_replica(world.replica(mr_enclave=OTHER_CODE))
    with pytest.raises(RefusedError):
        open_channel(world.service(Address("127.0.0.1", find_port()), bad.target))


def test_unavailable_is_asked_again_elsewhere_and_other_failures_are_not(world, grpc_replica, client_of) -> None:
    replicas = [grpc_replica(world.replica()) for _ in range(2)]
    client = client_of(*(replica.target for replica in replicas))
    for replica in replicas:
        replica.refuses = 1
    client.predict("digits", IMAGES)
    assert sum(client.calls.values()) == 1
    assert sum(replica.served for replica in replicas) == 3
    with pytest.raises(InputError) as failed:
        client.predict("absent", IMAGES)
    assert failed.value.check == "predict.not_found"
    assert sum(replica.served for replica in replicas) == 4


def test_it_gives_up_in_the_end(world, grpc_replica, client_of) -> None:
    replica = grpc_replica(world.replica(), refuses=1000)
    client = client_of(replica.target)
    with pytest.raises(UnreachableError) as failed:
        client.predict("digits", IMAGES)
    assert failed.value.check == "predict.unavailable"
    assert replica.served == 5
    for _ in range(5):
        with pytest.raises(UnreachableError):
            client.predict("digits", IMAGES)
    # The budget: ten and a tenth of the calls, not four for each of six.
    assert replica.served <= 6 + 10


def test_without_a_hedge_nobody_else_is_asked(world, grpc_replica, client_of) -> None:
    replicas = [grpc_replica(world.replica(), holds=True) for _ in range(2)]
    client = client_of(*(replica.target for replica in replicas))
    with pytest.raises(UnreachableError) as failed:
        client.predict("digits", IMAGES, timeout=0.3)
    assert failed.value.check == "predict.deadline_exceeded"
    assert sum(replica.served for replica in replicas) == 1


def test_calls_at_once_go_where_the_fewest_are(world, grpc_replica, client_of, wait_for) -> None:
    replicas = [grpc_replica(world.replica(), holds=True) for _ in range(2)]
    client = client_of(*(replica.target for replica in replicas))
    wait_for(lambda: len(client.channel.pool.replicas) == 2, "both replicas")
    threads = [threading.Thread(target=client.predict, args=("digits", IMAGES)) for _ in range(6)]
    for thread in threads:
        thread.start()
    wait_for(lambda: sum(replica.served for replica in replicas) == 6, "all calls to arrive")
    assert [replica.served for replica in replicas] == [3, 3]
    for replica in replicas:
        replica.holds = False
    for thread in threads:
        thread.join()


def test_states_futures_and_streams_of_an_ordinary_channel(world, serve, wait_for) -> None:
    target, _ = serve(world.replica())
    channel = open_channel(world.service(target))
    grpc.channel_ready_future(channel).result(30)
    states: list[grpc.ChannelConnectivity] = []
    channel.subscribe(states.append)
    assert channel.unary_unary("/grpc.health.v1.Health/Check").future(b"", timeout=30).result() == b"\x08\x01"
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=30)
    assert next(watch) == b"\x08\x01"
    assert sum(channel.pool._roster.calls.values()) == 1
    watch.cancel()
    both = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    assert b"ensconce.Attestation" in b"".join(both(iter([b"\x3a\x00"]), timeout=30))
    wait_for(lambda: not channel.pool._roster.calls, "every call to be over")
    channel.close()
    channel.close()
    assert states == [grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.SHUTDOWN]
    with pytest.raises(InputError) as failed:
        channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
    assert failed.value.check == "client.closed"


def test_closing_ends_calls_and_threads(world, grpc_replica, wait_for) -> None:
    channel = open_channel(world.service(grpc_replica(world.replica(), holds=True).target))
    future = channel.unary_unary(PREDICT).future(encode_request("digits", IMAGES), timeout=30)
    channel.close()
    assert future.exception() is not None
    wait_for(lambda: not any(each.name.startswith(("pool", "tunnel")) for each in threading.enumerate()), "the end")


def test_a_connection_that_was_exchanged_ends_with_its_last_call(world, grpc_replica, client_of, wait_for) -> None:
    client = client_of(grpc_replica(world.replica()).target)
    pool = client.channel.pool
    lease = pool.lease()

    def exchanged() -> bool:
        client.predict("digits", IMAGES)
        return lease.seat not in pool.seats

    wait_for(exchanged, "another connection in its place")
    path = Path(lease.seat.tunnel.path)
    assert path.exists()
    lease.release()
    wait_for(lambda: not path.exists(), "its end")
