"""REST through the proxy."""

from __future__ import annotations

import gzip
import http.client
import json
import socket

import httpx
import pytest

from ensconce.addresses import Address
from ensconce.client import roster
from ensconce.proxy import upstream

DOMAIN = "digits.example.test"


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries again soon."""
    monkeypatch.setattr(roster, "_LONGEST_PAUSE_S", 0.1)
    monkeypatch.setattr(upstream, "_LONGEST_PAUSE_S", 0.1)


def ready(started) -> bool:
    return bool(started.status("/readyz").json()["rest"]["replicas"])


def ask(started, path: str = "/v1/models/digits:predict", body: bytes = b"{}", **fields: str) -> httpx.Response:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return httpx.post(f"http://{started.at['rest']}{path}", content=body, headers=headers, trust_env=False)


def test_requests_pass_on_one_connection(world, proxy, rest_replica, wait_for) -> None:
    started = proxy(rest=rest_replica(world.replica()))
    wait_for(lambda: ready(started), "the replica")
    connection = http.client.HTTPConnection(started.at["rest"])
    local: set[object] = set()
    for number in range(3):
        connection.request("POST", "/v1/models/digits:predict?a=b%20c", b"%d" % number)
        answer = connection.getresponse()
        local.add(connection.sock.getsockname())
        assert answer.status == 200
        assert answer.read() == f"{DOMAIN} /v1/models/digits:predict?a=b%20c {number}".encode()
    assert len(local) == 1
    connection.close()
    assert 'ensconce_proxy_calls_total{protocol="rest",status="200"} 3.0' in started.status("/metrics").text


def test_large_and_compressed_bodies_pass(world, proxy, rest_replica, wait_for) -> None:
    started = proxy(rest=rest_replica(world.replica()))
    wait_for(lambda: ready(started), "the replica")
    large = b"0123456789abcdef" * 100_000
    assert ask(started, body=large).content.endswith(large)
    assert ask(started, body=gzip.compress(large), content_encoding="gzip").content.endswith(large)


def test_the_rest_api_of_a_model_server(world, proxy, serve, wait_for) -> None:
    _, rest = serve(world.replica())
    started = proxy(rest=rest)
    wait_for(lambda: ready(started), "the replica")
    answer = ask(started)
    assert answer.status_code == 404
    assert "digits" in answer.json()["error"]
    assert answer.headers["content-type"].startswith("application/json")


def test_a_refused_replica_is_sent_nothing_and_the_client_learns_why(world, proxy, recorder, wait_for) -> None:
    liar = recorder(world.replica(mr_enclave=bytes(32)))
    started = proxy(rest=liar.target)
    wait_for(lambda: started.status("/readyz").json()["rest"]["failures"], "a refusal")
    answer = ask(started, body=b"secret")
    assert answer.status_code == 502
    found = answer.json()
    assert found["refusal"]["check"] == "policy.mr_enclave"
    assert found["refusal"]["remedy"]
    assert "[policy.mr_enclave]" in found["error"]
    assert bytes(liar.received) == b""


def test_no_replica_is_503(proxy, find_port, wait_for) -> None:
    started = proxy(rest=Address("127.0.0.1", find_port()))
    wait_for(lambda: started.status("/readyz").json()["rest"]["failures"], "a failure")
    answer = ask(started)
    assert answer.status_code == 503
    assert answer.json()["refusal"]["check"] == "connect.tcp"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8501", "localhost.evil.example"])
def test_web_pages_cannot_ask_under_a_name_of_their_own(world, proxy, rest_replica, wait_for, host) -> None:
    started = proxy(rest=rest_replica(world.replica()))
    wait_for(lambda: ready(started), "the replica")
    assert ask(started, host=host).status_code == 421
    assert ask(started, host="localhost:8501").status_code == 200
    assert ask(started, host="[::1]:8501").status_code == 200


def test_no_part_of_an_answer_is_passed_on_for_the_whole(world, proxy, rest_replica, wait_for) -> None:
    started = proxy(rest=rest_replica(world.replica()))
    wait_for(lambda: ready(started), "the replica")
    for path, check in (("/ends-with-the-connection", "http.length"), ("/is-cut-short", "proxy.connection")):
        answer = ask(started, path, b"whole?")
        assert answer.status_code == 503
        assert answer.json()["refusal"]["check"] == check


def test_what_concerns_the_connection_stays(world, proxy, serve, wait_for) -> None:
    _, rest = serve(world.replica())
    started = proxy(rest=rest)
    wait_for(lambda: ready(started), "the replica")
    connection = http.client.HTTPConnection(started.at["rest"])
    connection.request("GET", "/v1/models/none", headers={"Connection": "keep-alive", "Proxy-Authorization": "x"})
    answer = connection.getresponse()
    assert len(answer.headers.get_all("date")) == 1
    assert len(answer.headers.get_all("content-length")) == 1
    assert json.loads(answer.read())["error"]
    connection.close()


def test_status_has_three_pages(world, proxy, rest_replica) -> None:
    started = proxy(rest=rest_replica(world.replica()))
    assert started.status("/healthz").text == "ok\n"
    assert started.status("/nothing").status_code == 404
    where = f"http://{started.at['status']}/healthz"
    assert httpx.post(where, trust_env=False).status_code == 405
    assert httpx.get(where, headers={"host": "evil.example"}, trust_env=False).status_code == 421
    assert httpx.get(where, headers={"host": "localhost:1"}, trust_env=False).status_code == 200


@pytest.mark.parametrize(
    ("head", "passed"),
    [
        (b"OPTIONS * HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1\r\n"),
        (b"GET /a#b|c HTTP/1.1\r\n", b"GET /a#b|c HTTP/1.1\r\n"),
        (b"GET http://evil.example/x HTTP/1.1\r\n", b"GET /x HTTP/1.1\r\n"),
        (b"GET / HTTP/1.1\r\nx-a: \xff\xfe\r\n", b"x-a: \xff\xfe\r\n"),
        (b"GET / HTTP/1.1\r\nconnection: x-hop, close\r\nx-hop: 1\r\nx-b: 2\r\n", b"x-b: 2\r\n"),
        (b"GET / HTTP/1.1\r\nupgrade: h2c\r\ntransfer-encoding: chunked\r\n", b"GET / HTTP/1.1\r\n"),
    ],
)
def test_requests_arrive_as_they_came_and_are_never_two(
    world, proxy, recorder, wait_for, head: bytes, passed: bytes
) -> None:
    replica = recorder(world.replica())
    started = proxy(rest=replica.target)
    wait_for(lambda: ready(started), "the replica")
    host, _, port = started.at["rest"].rpartition(":")
    smuggled = b"6\r\nGET /q\r\n0\r\n\r\n" if b"chunked" in head else b""
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head + b"host: localhost\r\n\r\n" + smuggled)
        end = b"\r\n\r\n" + smuggled[3:9]
        wait_for(lambda: bytes(replica.received).endswith(end), "the request")
    arrived, _, body = bytes(replica.received).partition(b"\r\n\r\n")
    assert passed in arrived + b"\r\n"
    assert b"hop" not in arrived
    assert b"upgrade" not in arrived
    assert b"ransfer-" not in arrived
    assert body == smuggled[3:9]
    assert (b"content-length: 6" in arrived) is bool(body)
