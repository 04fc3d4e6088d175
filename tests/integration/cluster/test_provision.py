"""``ensconce provision serve`` as a process: under fire, killed at any moment, told to stop, asked how it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from ensconce.cluster.deployment import Deployment
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.policy import apply_policy, sign_policy
from ensconce.errors import EnsconceError, RefusedError, UnreachableError
from ensconce.evidence.report import SgxReport
from ensconce.keys import get_private_key
from ensconce.platform.simulated.http import serve_http
from ensconce.platform.simulated.pccs import Pccs
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import make_quote
from ensconce.provisioning.client import Provisioned, provision
from ensconce.provisioning.frames import read_frame
from ensconce.ratls.context import client_context
from ensconce.ratls.request import make_key_container
from ensconce.ratls.stream import TlsStream

DOMAIN = "digits.example.test"
SERVER_NAME = "provisioning.digits.example.test"


def now() -> int:
    return int(time.time())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@dataclass
class Server:
    """The owner's server, as the process that the command starts."""

    folder: OwnerFolder
    vendor: SimulatedVendor
    report: SgxReport
    environment: dict[str, str]
    port: int
    status: int
    lines: list[dict[str, Any]] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "ensconce", "provision", "serve", "--log-format", "json"),
                *("--owner", str(self.folder.path)),
            ],
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        self.lines.clear()
        listening = threading.Event()
        threading.Thread(target=self._read, args=(self.process, listening), daemon=True).start()
        assert listening.wait(20), self.lines

    def _read(self, process: subprocess.Popen[str], listening: threading.Event) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            if line == "interrupted\n":  # the command's last word, after the server's
                continue
            self.lines.append(json.loads(line))
            if self.lines[-1]["event"] == "listening":
                listening.set()

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()

    def ask(self, *models: tuple[str, int], secrets: tuple[str, ...] = (), timeout: float = 10.0) -> Provisioned:
        return provision(
            [f"127.0.0.1:{self.port}"],
            SERVER_NAME,
            self.folder.ca_file.read_bytes(),
            lambda data: make_quote(self.vendor, replace(self.report, report_data=data)),
            DOMAIN,
            models,
            secrets=secrets,
            timeout=timeout,
        )

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.status}{path}", timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def metric(self, name: str) -> float:
        text = self.get("/metrics")[1].decode()
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))

    def memory(self) -> int:
        """Resident bytes of the process that serves."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(next(line for line in text.splitlines() if line.startswith("VmRSS:")).split()[1])


@pytest.fixture(scope="module")
def vendor() -> SimulatedVendor:
    return SimulatedVendor(bytes(32), now())


@pytest.fixture(scope="module")
def pccs(vendor: SimulatedVendor) -> Iterator[int]:
    """The port of a PCCS that serves the vendor's collateral."""
    port = free_port()
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(serve_http("127.0.0.1", port, Pccs(vendor, now).get))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield port
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


def put_in_force(folder: OwnerFolder, vendor: SimulatedVendor, serial: int, receives: str) -> None:
    folder.policy_file.write_text(
        f"version: 1\nserial: {serial}\nroots: ['{vendor.root_name}']\ntcb_statuses: [UpToDate]\nidentities:\n"
        f"  - name: digits replica\n    mr_enclave: '{'11' * 32}'\n    receives: [{receives}]\n"
    )
    key = get_private_key(folder.keystore(), "signing/owner", "ed25519")
    apply_policy(folder, sign_policy(folder.policy_file, key))


@pytest.fixture
def server(
    tmp_path: Path, vendor: SimulatedVendor, pccs: int, sound_report: Callable[..., SgxReport]
) -> Iterator[Server]:
    port, status = free_port(), free_port()
    deployment = Deployment.check(
        {
            "version": 1,
            "service": {"domain": DOMAIN, "grpc": "127.0.0.1:8500", "rest": "127.0.0.1:8501"},
            "replicas": 1,
            "platform": {"kind": "simulated", "pccs": f"127.0.0.1:{pccs}"},
            "provisioning": {
                "listen": f"127.0.0.1:{port}",
                "servers": [f"127.0.0.1:{port}"],
                "server_name": SERVER_NAME,
                "status": f"127.0.0.1:{status}",
                "limits": {"address_rate": 1000.0, "address_burst": 5000},
            },
            "models": [{"name": "digits"}],
        }
    )
    folder = OwnerFolder.create(tmp_path / "owner", deployment)
    keystore = folder.keystore()
    for version in (1, 2, 3):
        keystore.put(f"model/digits/{version}", os.urandom(16), kind="wrap")
    keystore.put("secret/licence", b"the licence " * 20, kind="secret")
    put_in_force(folder, vendor, 1, "model/digits, secret/licence")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    server = Server(folder, vendor, sound_report(vendor), environment, port, status)
    yield server
    if server.process is not None:
        server.process.kill()
        server.process.wait()


class TestLife:
    def test_it_releases_and_says_so(self, server: Server) -> None:
        server.start()
        granted = server.ask(("digits", 1), secrets=("secret/licence",))
        assert granted.secrets["secret/licence"] == b"the licence " * 20
        assert server.get("/healthz")[0] == server.get("/readyz")[0] == 200
        assert server.metric('ensconce_provisioning_releases_total{wire="v2"}') == 1
        head = json.loads(server.get("/log/head")[1])
        size = head["size"]
        proof = json.loads(server.get(f"/log/consistency?first=1&second={size}")[1])
        assert (proof["first"], proof["second"]) == (1, size)
        for path in ("/log/consistency?first=0&second=1", "/log/consistency?first=x&second=1", "/log/consistency"):
            assert server.get(path)[0] == 400
        assert server.get("/nothing")[0] == 404
        assert server.end() == 0
        text = json.dumps(server.lines)
        assert "the licence" not in text
        assert granted.secrets["model/digits/1"].hex() not in text
        assert "key.released" in {line["event"] for line in server.lines}
        assert all({"time", "level", "logger", "event"} <= set(line) for line in server.lines)

    def test_ctrl_c_is_an_interruption(self, server: Server) -> None:
        server.start()
        assert server.end(signal.SIGINT) == 130

    def test_it_lets_requests_end_before_it_does(self, server: Server) -> None:
        server.start()
        with ThreadPoolExecutor(4) as clients:
            asked = [clients.submit(server.ask, ("digits", 1)) for _ in range(4)]
            time.sleep(0.05)
            assert server.end() == 0
        answered = [each.result() for each in asked if each.exception() is None]
        recorded = released(server)
        assert all(serial(each) in recorded for each in answered)
        assert all(isinstance(each.exception(), UnreachableError) for each in asked if each.exception() is not None)

    def test_a_new_policy_is_taken_without_a_moment_without_one(self, server: Server, wait_for: Any) -> None:
        server.start()
        going, failures = threading.Event(), []
        going.set()

        def ask_on() -> None:
            while going.is_set():
                try:
                    server.ask(("digits", 1))
                except EnsconceError as error:
                    failures.append(error)

        client = threading.Thread(target=ask_on)
        client.start()
        try:
            assert server.ask(secrets=("secret/licence",)).secrets
            put_in_force(server.folder, server.vendor, 2, "model/digits")
            assert server.process is not None
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda: server.metric("ensconce_provisioning_policy_serial") == 2, "the new policy")
            assert server.metric("ensconce_provisioning_collateral_refused") == 0
            assert server.metric("ensconce_provisioning_revocations_left_out") == 0
            with pytest.raises(RefusedError) as caught:
                server.ask(secrets=("secret/licence",))
            assert caught.value.check == "policy.receives"
            # And without being told to look.
            put_in_force(server.folder, server.vendor, 3, "model/digits, secret/licence")
            wait_for(lambda: server.metric("ensconce_provisioning_policy_serial") == 3, "the third policy")
            assert server.ask(secrets=("secret/licence",)).secrets
        finally:
            going.clear()
            client.join(10)
        assert failures == []
        assert [line["serial"] for line in server.lines if line["event"] == "policy.taken"] == [2, 3]
        assert server.end() == 0


def serial(granted: Provisioned) -> str:
    return f"{x509.load_pem_x509_certificate(granted.certificate_chain).serial_number:x}"


def released(server: Server) -> dict[str, int]:
    """Position in the log, once all of it was verified, by the serial number of the certificate that was issued."""
    # As the next writer does: what was written and has no head yet is taken in, or cut off.
    server.folder.audit_log(server.folder.keystore())
    _, entries = server.folder.verified_log()
    return {str(entry.fields["certificate_serial"]): entry.seq for entry in entries if entry.event == "key.released"}


def test_whatever_was_released_is_in_the_log_after_any_crash(server: Server) -> None:
    chance = random.Random(20261123)
    received: list[Provisioned] = []
    retired = False
    for round_ in range(4):
        server.start()
        going = threading.Event()
        going.set()

        def ask_on(going: threading.Event = going) -> None:
            while going.is_set():
                with contextlib.suppress(UnreachableError, RefusedError):
                    received.append(server.ask(("digits", 1), ("digits", 2), timeout=3.0))

        clients = [threading.Thread(target=ask_on) for _ in range(4)]
        for client in clients:
            client.start()
        before, deadline = len(received), time.monotonic() + 10
        while len(received) < before + 3 and time.monotonic() < deadline:
            time.sleep(0.002)
        if round_ == 2:
            server.folder.retire_model("digits", 1)
            retired = True
        time.sleep(chance.uniform(0.0, 0.3))
        server.end(signal.SIGKILL)
        going.clear()
        for client in clients:
            client.join(10)
        recorded = released(server)
        assert len(received) > before
        # What a client has is in the log: no release without its entry, and no entry lost.
        assert {serial(each) for each in received} <= set(recorded)
    assert retired
    _, entries = server.folder.verified_log()
    end = next(entry.seq for entry in entries if entry.event == "key.retired")
    later = [entry for entry in entries if entry.event == "key.released" and entry.seq > end]
    assert later
    # What was being released while the key was retired may have been logged right after; nothing that began later.
    settled = [entry for entry in later if entry.seq > end + 8]
    assert all("model/digits/1" not in entry.fields["key_ids"] for entry in settled)
    server.start()
    with pytest.raises(RefusedError) as caught:
        server.ask(("digits", 1))
    assert caught.value.check == "key.retired"
    assert server.ask(("digits", 2)).secrets
    assert server.end() == 0


class Crowd:
    """Strangers from a thousand addresses, each of whom behaves badly in one way."""

    def __init__(self, server: Server, size: int) -> None:
        self._server = server
        self._key = ec.generate_private_key(ec.SECP256R1())
        authority = x509.load_pem_x509_certificate(server.folder.ca_file.read_bytes())
        self._context = client_context(self._key, make_key_container(self._key), authority)
        self._hello = self._first_words()
        self.sockets: list[socket.socket] = []
        self._streams: list[TlsStream] = []
        self._slow: list[tuple[socket.socket, int]] = []
        ways = (self.silent, self.half_a_hello, self.slowly, self.noise, self.idle, self.half_a_frame, self.deaf)
        for number in range(size):
            self._address = f"127.{1 + number % 4}.{number // 250}.{1 + number % 250}"
            ways[number % len(ways)]()

    def connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self._server.port), 10, source_address=(self._address, 0))
        self.sockets.append(sock)
        return sock

    def shaken(self) -> TlsStream:
        stream = TlsStream(self._context, self.connect(), deadline=time.monotonic() + 10, server_name=SERVER_NAME)
        self._streams.append(stream)
        with contextlib.suppress(UnreachableError):
            stream.handshake()
            read_frame(stream)
        return stream

    def silent(self) -> None:
        self.connect()

    def half_a_hello(self) -> None:
        self.connect().sendall(self._hello[:100])

    def slowly(self) -> None:
        self._slow.append((self.connect(), 0))

    def noise(self) -> None:
        self.connect().sendall(os.urandom(2000))

    def idle(self) -> None:
        self.shaken()

    def half_a_frame(self) -> None:
        with contextlib.suppress(UnreachableError):
            self.shaken().write((65536).to_bytes(4, "big") + b"x" * 65000)

    def deaf(self) -> None:
        """Sends what is too long again and again, and never reads."""
        stream = self.shaken()
        with contextlib.suppress(UnreachableError):
            stream.write(b"\xff" * 50_000)

    def drip(self) -> None:
        """Another byte of each slow hello."""
        for number, (sock, sent) in enumerate(self._slow):
            with contextlib.suppress(OSError):
                sock.send(self._hello[sent : sent + 1])
            self._slow[number] = (sock, sent + 1)

    def _first_words(self) -> bytes:
        connection = SSL.Connection(self._context, None)
        connection.set_tlsext_host_name(SERVER_NAME.encode())
        connection.set_connect_state()
        with contextlib.suppress(SSL.WantReadError):
            connection.do_handshake()
        return connection.bio_read(4096)

    def close(self) -> None:
        for stream in self._streams:
            stream.close()
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if wanted < 1200:
        pytest.skip("this machine allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_honest_client_is_served_among_a_thousand_others(server: Server, many_files: None) -> None:
    server.start()
    assert server.ask(("digits", 1)).secrets
    before = server.memory()
    crowd = Crowd(server, 1000)
    try:
        times = []
        for _ in range(5):
            crowd.drip()
            began = time.monotonic()
            assert server.ask(("digits", 1)).secrets
            times.append(time.monotonic() - began)
        assert max(times) < 2, times
        assert server.get("/readyz")[0] == 200
        assert server.metric("ensconce_provisioning_connections") >= 500
        grown = server.memory() - before
        # A connection in its handshake, OpenSSL's buffers included, takes some 60 kB; a frame that is not whole 64.
        assert grown < 150_000_000, grown
        # None of them is left out of the log for good, and none of them grew it beyond its budget.
        _, entries = server.folder.verified_log()
        assert len(entries) < 250
    finally:
        crowd.close()
    assert server.end() == 0
