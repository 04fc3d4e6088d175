"""A launched service behind a real nginx that ends TLS: every call is answered while replicas renew, roll and die.

It takes three minutes: ``make balancer-test``. What nginx could see is recorded, in both directions, and searched.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ensconce.addresses import Address
from ensconce.client import Client, Service, sealed_channel, sealed_transport
from ensconce.client.channel import OPTIONS
from ensconce.client.codec import PREDICT, encode_request
from ensconce.demo.data import digits_folder
from ensconce.demo.stage import DOMAIN, Stage
from ensconce.demo.tap import Tap
from ensconce.errors import EnsconceError, UnreachableError
from ensconce.gateway.nginx_program import Nginx, find_nginx

pytestmark = [
    pytest.mark.skipif("ENSCONCE_BALANCER_TEST" not in os.environ, reason="takes three minutes: make balancer-test"),
    pytest.mark.timeout(400),
]

LIFETIME_S = 30
NAME = "balancer.example.test"
# Nothing else on this machine has these pixels.
PIXELS = np.frombuffer(random.Random(7).randbytes(256), np.uint8).astype(np.float32).reshape(4, 8, 8, 1) / 17
SHORT_LIVED = (
    "from ensconce.provisioning.server import ProvisioningServer as S;"
    f"S.__init__.__kwdefaults__['lifetime'] = {LIFETIME_S};"
    "from ensconce.cli.main import main; main()"
)


@pytest.fixture(scope="module")
def launched(wait_for: Callable[[Callable[[], object], str], None]) -> Iterator[Stage]:
    """Three replicas that take sealed predictions only, with certificates that live for seconds."""
    with Stage.open() as stage:
        stage.init(stage.owner)
        file = stage.owner / "ensconce.yaml"
        text, count = re.subn(r"(?m)^replicas: \d+$", "replicas: 3", file.read_text())
        assert (count, "serving:" in text) == (1, False)
        file.write_text(text + "\nserving:\n  sealed_bodies: required\n")
        owner = ("--owner", str(stage.owner))
        stage.run("model", "seal", str(digits_folder() / "openvino"), "--name", "digits", "--version", "1", *owner)
        stage.run("enclave", "build", *owner)
        stage.run("policy", "write", *owner)
        for name in ("policy.yaml", "ca.pem"):
            shutil.copy(stage.owner / name, stage.client)
        shutil.copytree(stage.owner / "bundle", stage.host)
        said = stage.root / "provisioning.log"
        with said.open("wb") as log:
            stage.servers.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-c", SHORT_LIVED, "provision", "serve", *owner],
                    env=dict(stage._environment("owner")),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    text=True,
                )
            )
        wait_for(lambda: "provisioning server" in said.read_text(), "the provisioning server")
        stage.run("up", "--host", str(stage.host), "--json", party="host")
        yield stage


def replicas_of(stage: Stage) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stage.run("status", "--host", str(stage.host), "--json", party="host")["replicas"]
    return found


class Balancer:
    """nginx with a certificate of its own, in two halves with a spy between, who so sees what nginx sees."""

    def __init__(self, program: Path, folder: Path, ports: list[int]) -> None:
        folder.mkdir()
        self.folder, self._program = folder, program
        self.grpc, self.rest, self._inner_grpc, self._inner_rest = ports
        self.pem = _identify(folder / "nginx.pem")
        self._taps = [
            Tap(Address("127.0.0.1", port), folder / name)
            for port, name in ((self._inner_grpc, "spied"), (self._inner_rest, "spied-rest"))
        ]
        self._upstreams = ""
        self._process: subprocess.Popen[bytes] | None = None

    def point(self, replicas: list[dict[str, Any]]) -> None:
        """As a balancer learns of replicas: new connections go to these."""
        pools = "".join(
            f"upstream {name} {{ "
            + "".join(f"server 127.0.0.1:{each[name + '_port']}; " for each in replicas)
            + "hash $http_ensconce_route consistent; keepalive 16; }\n"
            for name in ("grpc", "rest")
        )
        if pools == self._upstreams or not replicas:
            return
        self._upstreams = pools
        spy_grpc, spy_rest = (str(Address(*tap.address)) for tap in self._taps)
        (self.folder / "nginx.conf").write_text(f"""daemon off; pid nginx.pid; error_log error.log; worker_processes 2;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi; client_max_body_size 64m;
  ssl_certificate nginx.pem; ssl_certificate_key nginx.pem;
  proxy_http_version 1.1; proxy_set_header Connection "";
  {pools}
  server {{ listen 127.0.0.1:{self.grpc} ssl http2; location / {{ grpc_pass grpc://{spy_grpc}; }} }}
  server {{ listen 127.0.0.1:{self.rest} ssl; location / {{ proxy_pass http://{spy_rest}; }} }}
  server {{ listen 127.0.0.1:{self._inner_grpc} http2; location / {{ grpc_pass grpcs://grpc; }} }}
  server {{ listen 127.0.0.1:{self._inner_rest}; location / {{ proxy_pass https://rest; }} }}
}}
""")
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def start(self, replicas: list[dict[str, Any]]) -> None:
        for tap in self._taps:
            tap.start()
        self.point(replicas)
        command = [self._program, "-p", str(self.folder), "-c", "nginx.conf", "-e", "error.log"]
        self._process = subprocess.Popen(command)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
        for tap in self._taps:
            tap.stop()

    def spied(self) -> bytes:
        return b"".join(path.read_bytes() for path in sorted(self.folder.glob("spied*/*")))


def _identify(path: Path) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.DNSName(NAME), x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
    )
    pem = builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
    path.write_bytes(pem + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return pem


@pytest.fixture(scope="module")
def balancer(
    launched: Stage, tmp_path_factory: pytest.TempPathFactory, find_port: Callable[[], int]
) -> Iterator[Balancer]:
    found = find_nginx()
    if not isinstance(found, Nginx):
        pytest.skip(found.reason)
    made = Balancer(found.program, tmp_path_factory.mktemp("nginx") / "nginx", [find_port() for _ in range(4)])
    stop = threading.Event()

    def follow() -> None:
        while not stop.wait(0.3):
            with contextlib.suppress(EnsconceError):
                made.point([each for each in replicas_of(launched) if each["state"] == "ready"])

    made.start(replicas_of(launched))
    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield made
    finally:
        stop.set()
        thread.join()
        made.stop()


def test_the_commands(launched: Stage, balancer: Balancer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(balancer.folder / "nginx.pem"))
    np.save(tmp_path / "digits.npy", PIXELS)
    where = (f"127.0.0.1:{balancer.grpc}", *launched._client_options("policy.yaml"), "--model", "digits", "--sealed")
    said = launched.run("predict", *where, "--input", str(tmp_path / "digits.npy"), "--json", party="client")
    assert len(said["outputs"]["classes"]) == len(PIXELS)
    report = launched.run("bench", *where, "--requests", "20", "--json", "-", party="client")
    assert "requests" in report


class Callers:
    """Never stop asking; what became of it."""

    def __init__(self, *calls: Callable[[], object]) -> None:
        self.answers: Counter[int] = Counter()
        self.failures: dict[int, list[Exception]] = {number: [] for number in range(len(calls))}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=each) for each in enumerate(calls)]
        for thread in self._threads:
            thread.start()

    def _call(self, number: int, call: Callable[[], object]) -> None:
        while not self._stop.is_set():
            try:
                call()
                self.answers[number] += 1
            except Exception as error:
                self.failures[number].append(error)
            time.sleep(0.01)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


def outer(balancer: Balancer) -> grpc.Channel:
    options = [*OPTIONS, ("grpc.ssl_target_name_override", NAME)]
    return grpc.secure_channel(f"127.0.0.1:{balancer.grpc}", grpc.ssl_channel_credentials(balancer.pem), options)


def test_nobody_notices_and_nobody_reads(
    launched: Stage, balancer: Balancer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    service = Service.open(
        f"127.0.0.1:{balancer.grpc}",
        launched.client / "policy.yaml",
        authority=launched.client / "ca.pem",
        collateral=f"http://127.0.0.1:{launched.ports.pccs}",
        server_name=DOMAIN,
        freshness=True,
    )
    base = f"https://127.0.0.1:{balancer.rest}"
    inner = httpx.HTTPTransport(verify=False)
    rest = httpx.Client(transport=sealed_transport(inner, service, base), base_url=base, timeout=30)
    document = {"instances": PIXELS.tolist()}
    with Client(sealed_channel(outer(balancer), service, routes=6)) as client, rest:
        expected = client.predict("digits", {"images": PIXELS})

        def over_grpc() -> None:
            got = client.predict("digits", {"images": PIXELS})
            assert all(np.array_equal(got[name], expected[name]) for name in expected)

        def over_rest() -> None:
            response = rest.post("/v1/models/digits:predict", json=document)
            assert response.status_code == 200, response.text
            assert len(response.json()["predictions"]) == len(PIXELS)

        callers = Callers(over_grpc, over_grpc, over_rest)
        try:
            # Every replica renews its certificate, and with it its key, twice and more.
            time.sleep(2 * LIFETIME_S)
            renewed = {name: list(each) for name, each in callers.failures.items()}
            launched.run("roll", "--host", str(launched.host), "--json", party="host")
            rolled = {name: list(each) for name, each in callers.failures.items()}
            victim = next(each for each in replicas_of(launched) if each["state"] == "ready")
            os.kill(victim["pid"], signal.SIGKILL)
            deadline = time.monotonic() + 60
            while victim["pid"] in (now := [each["pid"] for each in replicas_of(launched) if each["state"] == "ready"]):
                assert time.monotonic() < deadline
            while len([each for each in replicas_of(launched) if each["state"] == "ready"]) < 3:
                assert time.monotonic() < deadline, now
                time.sleep(0.2)
            time.sleep(2)
        finally:
            callers.stop()
        assert min(callers.answers.values()) > 100
        assert renewed == {0: [], 1: [], 2: []}
        assert rolled == {0: [], 1: [], 2: []}
        # The client for arrays asks again. httpx does not: what was under way over REST when its replica was killed is
        # said to have failed, and is no more than there was.
        assert (callers.failures[0], callers.failures[1]) == ([], [])
        assert len(callers.failures[2]) <= 1
        assert all(isinstance(each, UnreachableError) for each in callers.failures[2])
        # Three of the beginning, three of the roll, one in the place of the killed; and as many keys as they renewed.
        assert len(client.accepted) >= 7

    control = PIXELS[::-1].copy() + 1
    request = encode_request("digits", {"images": control})
    with outer(balancer) as bare, pytest.raises(grpc.RpcError) as refused:
        bare.unary_unary(PREDICT, None, None)(request, timeout=30)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    spied = balancer.spied()
    # What was sent in the clear on purpose is there, and so would be the others.
    assert control[0].tobytes()[:64] in spied
    for image in PIXELS:
        assert image.tobytes()[:64] not in spied
        assert not any(str(float(pixel)).encode() in spied for pixel in image.flat if len(str(float(pixel))) > 6)
    for name, array in expected.items():
        assert name.encode() not in spied
        if array.dtype.kind == "f":
            assert array[0].tobytes() not in spied
