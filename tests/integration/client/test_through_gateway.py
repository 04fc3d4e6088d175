"""Clients, gateway and replicas together, with a spy on the wire."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensconce.addresses import Address
from ensconce.client import load, roster
from ensconce.client.channel import open_channel
from ensconce.client.predict import Client
from ensconce.demo.tap import Tap
from ensconce.errors import RefusedError, UnreachableError
from ensconce.gateway import Backend, open_gateway
from ensconce.gateway.nginx_program import Nginx, find_nginx

DOMAIN = "digits.example.test"


@pytest.fixture(params=["nginx", "embedded"])
def gateway(request: pytest.FixtureRequest, tmp_path: Path):
    found = find_nginx()
    if request.param == "nginx" and not isinstance(found, Nginx):
        pytest.skip(found.reason)
    made = open_gateway(
        request.param, tmp_path / "gateway", grpc=Address("127.0.0.1", 0), rest=Address("127.0.0.1", 0), domain=DOMAIN
    )
    yield made
    made.stop()


def backend(replica) -> Backend:
    return Backend("replica", "127.0.0.1", replica.port, replica.port)


def test_every_replica_serves_and_nothing_leaks(
    world, grpc_replica, gateway, tmp_path: Path, wait_for, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "EXPLORE_S", 0.05)
    replicas = [grpc_replica(world.replica()) for _ in range(2)]
    gateway.start([backend(replica) for replica in replicas])
    pixels = np.frombuffer(bytes(range(1, 65)), np.uint8).astype(np.float32).reshape(1, 64)
    with Tap(gateway.addresses["grpc"], tmp_path / "spied") as tap:
        with Client(open_channel(world.service(Address(*tap.address)), connections=4)) as client:
            result = load.run(client, "digits", [{"images": pixels}] * 20, concurrency=4)
            assert sum(result.per_replica.values()) == 20
            assert len(result.per_replica) == 2

            # A third joins; connections that are made from now on reach it.
            replicas.append(grpc_replica(world.replica()))
            gateway.reload([backend(replica) for replica in replicas])
        with Client(open_channel(world.service(Address(*tap.address)), connections=3)) as client:
            wait_for(lambda: client.predict("digits", {"images": pixels}) and len(client.calls) == 3, "the third")
    recording = b"".join(file.read_bytes() for file in (tmp_path / "spied").iterdir())
    assert len(recording) > 20_000
    assert DOMAIN.encode() in recording
    assert pixels[0, :8].tobytes() not in recording
    assert b"PredictionService" not in recording


def test_an_impostor_behind_the_gateway(world, grpc_replica, gateway) -> None:
    impostor = grpc_replica(world.replica(mr_enclave=bytes(32)))
    gateway.start([backend(impostor)])
    with pytest.raises(RefusedError) as refused:
        open_channel(world.service(Address(*gateway.addresses["grpc"])))
    assert refused.value.check == "policy.mr_enclave"
    assert impostor.served == 0


def test_a_name_that_the_gateway_does_not_serve(world, grpc_replica, gateway) -> None:
    gateway.start([backend(grpc_replica(world.replica()))])
    with pytest.raises(UnreachableError) as failed:
        open_channel(world.service(Address(*gateway.addresses["grpc"]), server_name="other.example.test"))
    assert failed.value.check == "tls.handshake"
    assert "other.example.test" in (failed.value.remedy or "")
