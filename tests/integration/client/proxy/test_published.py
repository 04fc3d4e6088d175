"""A proxy that goes by what is published: what was withdrawn gets no further connection."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc
import pytest

from ensconce.client import roster
from ensconce.client.codec import PREDICT
from ensconce.client.published import PublishedList
from ensconce.proxy import upstream
from ensconce.state.folder import FolderStore
from ensconce.tfserving.messages import PredictRequest, PredictResponse

DOMAIN = "digits.example.test"
CODE = bytes(range(32))


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries again soon."""
    monkeypatch.setattr(roster, "_LONGEST_PAUSE_S", 0.1)
    monkeypatch.setattr(upstream, "_LONGEST_PAUSE_S", 0.1)


def test_calls_until_a_withdrawal(world, proxy, grpc_replica, publisher, tmp_path, wait_for) -> None:
    place = tmp_path / "published.json"
    place.write_bytes(publisher.publish(world.measured(publisher, CODE)).to_bytes())
    key = f"ed25519:{publisher.public.public_bytes_raw().hex()}"
    published = PublishedList(place, [key], store=FolderStore(tmp_path / "state"))
    replica = grpc_replica(world.replica())
    judging = replace(world.appraiser(), published=lambda: published.measurements(DOMAIN))
    started = proxy(replica.target, appraiser=judging)
    wait_for(lambda: started.replicas, "the replica")
    with grpc.insecure_channel(started.at["grpc"]) as channel:
        call: Any = channel.unary_unary(
            PREDICT,
            request_serializer=PredictRequest.SerializeToString,
            response_deserializer=PredictResponse.FromString,
        )
        call(PredictRequest(), timeout=10)
        gone = {"mr_enclave": CODE.hex(), "reason": "it leaks", "withdrawn": "2026-02-01T00:00:00Z"}
        place.write_bytes(publisher.publish(world.measured(publisher, serial=2, withdrawn=[gone])).to_bytes())
        replica.stop()
        again = grpc_replica(world.replica(), port=replica.port)
        wait_for(lambda: "published.withdrawn" in started.status("/readyz").text, "a refusal")
        with pytest.raises(grpc.RpcError) as caught:
            call(PredictRequest(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "[published.withdrawn]" in caught.value.details()
    assert again.served == 0
