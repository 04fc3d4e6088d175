from __future__ import annotations

import asyncio
import datetime
import importlib.util
import ipaddress
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ensconce.serving.manager import ModelManager
from ensconce.serving.server import ModelServer, Ports

DIGITS = Path(__file__).parents[3] / "examples" / "digits"
NAME = "models.example"


class Issuer:
    """A certificate authority that lives as long as a test."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test issuer")])
        self.root_pem = self._certify(self._name, self._key.public_key(), ca=True).public_bytes(Encoding.PEM)

    def issue(self, common_name: str) -> tuple[bytes, bytes]:
        """A new private key and its chain, in PEM, for NAME."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
        leaf = self._certify(subject, key.public_key(), ca=False).public_bytes(Encoding.PEM)
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), leaf + self.root_pem

    def _certify(self, subject: x509.Name, public_key: Any, *, ca: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )


@dataclass
class Running:
    """A server, its ports, and who issued its certificate."""

    server: ModelServer
    ports: Ports
    issuer: Issuer


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="session")
def manager() -> ModelManager:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    from ensconce.serving.engines.openvino import OpenVinoServable

    files = {path.name: path.read_bytes() for path in (DIGITS / "openvino").iterdir()}
    manager = ModelManager()
    manager.add("digits", 1, OpenVinoServable(files))
    manager.add("digits", 3, OpenVinoServable(files))
    return manager


@pytest.fixture(scope="session")
def held_out() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    with np.load(DIGITS / "heldout.npz") as file:
        return file["images"].astype(np.float32)[..., None], file["labels"]


Serve = Callable[..., Coroutine[Any, Any, Running]]


async def _serve(manager: ModelManager, issuer: Issuer, **options: Any) -> Running:
    key, chain = issuer.issue("first")
    addresses = {"grpc_address": "127.0.0.1:0", "rest_address": "127.0.0.1:0", **options}
    server = ModelServer(manager, private_key_pem=key, certificate_chain_pem=chain, **addresses)
    return Running(server, await server.start(), issuer)


@pytest.fixture(scope="session")
def running(manager: ModelManager, issuer: Issuer) -> Iterator[Running]:
    """One server for many tests, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    running = asyncio.run_coroutine_threadsafe(_serve(manager, issuer), loop).result(30)
    yield running
    asyncio.run_coroutine_threadsafe(running.server.stop(0), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
async def serve(manager: ModelManager, issuer: Issuer) -> AsyncIterator[Serve]:
    """Start servers in the test's event loop; they are stopped at its end."""
    started: list[Running] = []

    async def start(another: ModelManager | None = None, **options: Any) -> Running:
        running = await _serve(another or manager, issuer, **options)
        started.append(running)
        return running

    yield start
    await asyncio.gather(*(running.server.stop(0) for running in started))
