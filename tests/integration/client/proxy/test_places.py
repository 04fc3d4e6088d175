"""Where clients reach the proxy: in the clear, at a Unix socket, or over TLS."""

from __future__ import annotations

import grpc
import httpx
import pytest

from ensconce.addresses import Address
from ensconce.errors import InputError
from ensconce.proxy.program import Proxy
from ensconce.serving.tls import ServingCertificate

TALK = "/a.Service/Talk"


def talk(channel: grpc.Channel) -> list[bytes]:
    with channel:
        return list(channel.stream_stream(TALK, None, None)(iter([b"hello"]), timeout=10))


def test_a_unix_socket(proxy, probe, wait_for, tmp_path) -> None:
    started = proxy(probe().target, place=tmp_path / "proxy")
    assert started.at["grpc"] == f"unix:{tmp_path}/proxy"
    wait_for(lambda: started.replicas, "the replica")
    assert talk(grpc.insecure_channel(started.at["grpc"])) == [b"hello"]
    started.stop()
    assert not (tmp_path / "proxy").exists()


def test_tls_of_the_proxys_own(world, proxy, probe, rest_replica, wait_for) -> None:
    own = world.replica()
    certificate = ServingCertificate(own.key_pem, own.chain_pem)
    started = proxy(probe().target, rest=rest_replica(world.replica()), certificate=certificate)
    wait_for(lambda: started.status("/readyz").status_code == 200, "both")
    authority = world.authority.certificate_pem
    credentials = grpc.ssl_channel_credentials(authority)
    name = [("grpc.ssl_target_name_override", "digits.example.test")]
    assert talk(grpc.secure_channel(started.at["grpc"], credentials, options=name)) == [b"hello"]
    with pytest.raises(grpc.RpcError):
        talk(grpc.insecure_channel(started.at["grpc"]))
    answer = httpx.post(f"https://{started.at['rest']}/v1", content=b"{}", verify=False, trust_env=False)
    assert answer.status_code == 200


def test_there_must_be_something_to_do() -> None:
    with pytest.raises(InputError) as caught:
        Proxy()
    assert caught.value.check == "proxy.nothing"


def test_a_port_that_is_taken(world, proxy, probe) -> None:
    started = proxy(probe().target)
    host, _, port = started.at["grpc"].partition(":")
    with pytest.raises(InputError) as caught:
        proxy(probe().target, place=Address(host, int(port)))
    assert caught.value.check == "proxy.listen"


def test_beyond_this_machine_in_the_clear_it_does_not_start(proxy, probe, rest_replica, world) -> None:
    with pytest.raises(InputError) as caught:
        proxy(probe().target, rest=rest_replica(world.replica()), place=Address("0.0.0.0", 0))
    assert caught.value.check == "proxy.cleartext"
