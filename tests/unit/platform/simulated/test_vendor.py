"""The vendor as a service, and machines that are born elsewhere: their keys, their certificates, their quotes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.root import SimulatedRoot
from ensconce.errors import EvidenceError, InputError, UnreachableError
from ensconce.evidence.report import Attributes, SgxReport
from ensconce.platform.simulated.enrolment import enrol, root_name_at
from ensconce.platform.simulated.http import serve_http
from ensconce.platform.simulated.pccs import Response
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import machine_quote
from ensconce.platform.simulated.vendor import HEALTH, MACHINES, ROOT, VendorService

NOW = 1_790_000_000
VENDOR = SimulatedVendor(bytes(32), NOW)
OTHER = SimulatedVendor(bytes([1]) * 32, NOW)
SERVICE = VendorService(VENDOR, lambda: NOW)
Serve = Callable[[Callable[[str], Response], Callable[[str, bytes], Response]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves functions in a thread; gives the URL."""
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, threading.Thread]] = []

    def start(get: Callable[[str], Response], post: Callable[[str, bytes], Response]) -> str:
        begun, ports = threading.Event(), []

        async def main() -> None:
            stop = asyncio.Event()
            server = await serve_http("127.0.0.1", 0, get, post)
            ports.append(server.sockets[0].getsockname()[1])
            loops.append((asyncio.get_running_loop(), stop, thread))
            begun.set()
            await stop.wait()
            server.close()

        thread = threading.Thread(target=asyncio.run, args=(main(),))
        thread.start()
        assert begun.wait(30)
        return f"http://127.0.0.1:{ports[0]}"

    yield start
    for loop, stop, thread in loops:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_what_it_tells() -> None:
    assert SERVICE.get(HEALTH).body == b"ok\n"
    assert SERVICE.get(ROOT).body == VENDOR.root.pem.encode()
    assert SERVICE.get("/sgx/certification/v4/rootcacrl").status == 200
    assert SERVICE.get("/nothing").status == 404
    assert SERVICE.post("/nothing", b"").status == 404


@pytest.mark.parametrize("what", ["nothing", "another curve", "rsa", "a signature that is not its own"])
def test_requests_that_are_refused(what: str) -> None:
    body = b"no request"
    if what == "another curve":
        body = request(ec.generate_private_key(ec.SECP384R1()))
    elif what == "rsa":
        body = request(rsa.generate_private_key(65537, 2048))
    elif what != "nothing":
        sound = x509.load_pem_x509_csr(request(ec.generate_private_key(ec.SECP256R1())))
        der = bytearray(sound.public_bytes(Encoding.DER))
        der[-1] ^= 1
        body = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    assert SERVICE.post(MACHINES, body).status == 400


def test_machines_are_born_with_keys_of_their_own_and_quote_under_the_vendors_root(serve: Serve) -> None:
    url = serve(SERVICE.get, SERVICE.post)
    assert root_name_at(url) == VENDOR.root_name
    first, second = enrol(url), enrol(url)
    assert first.root_name == VENDOR.root_name
    assert first.identifier != second.identifier
    report = SgxReport(
        cpu_svn=first.cpu_svn,
        misc_select=0,
        isv_ext_prod_id=bytes(16),
        attributes=Attributes(Attributes.INIT | Attributes.MODE64BIT, 3),
        mr_enclave=b"\x11" * 32,
        mr_signer=b"\x22" * 32,
        config_id=bytes(64),
        isv_prod_id=1,
        isv_svn=1,
        config_svn=0,
        isv_family_id=bytes(16),
        report_data=bytes(64),
    )
    root, papers = SimulatedRoot(VENDOR.root_certificate_der), VENDOR.collateral(NOW)
    verdicts = [verify_quote(machine_quote(each, report), papers, at=NOW, root=root) for each in (first, second)]
    assert verdicts[0].root == VENDOR.root_name
    assert len({verdict.ppid for verdict in verdicts} | {VENDOR.machine().ppid.hex()}) == 3


def test_a_chain_that_is_not_this_machines(serve: Serve) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    answers = {
        "another key's": VENDOR.enrol(key.public_key()).encode(),
        "no chain": VENDOR.root.pem.encode(),
        "no certificates": b"nothing",
        "endless": b"x" * (1 << 17),
    }
    for body in answers.values():
        url = serve(SERVICE.get, lambda _target, _body, body=body: Response(200, "text/plain", body))  # type: ignore[misc]
        with pytest.raises(EvidenceError, match=r"vendor\.chain"):
            enrol(url)

    def mixed(_target: str, body: bytes) -> Response:
        chain = VENDOR.enrol(x509.load_pem_x509_csr(body).public_key())  # type: ignore[arg-type]  # a P-256 key
        leaf = chain.removesuffix(VENDOR.pck_ca().pem + VENDOR.root.pem)
        return Response(200, "text/plain", (leaf + OTHER.pck_ca().pem + OTHER.root.pem).encode())

    with pytest.raises(EvidenceError, match=r"vendor\.chain"):
        enrol(serve(SERVICE.get, mixed))


def test_nobody_there_and_no_vendor(serve: Serve, find_port: Callable[[], int]) -> None:
    class WaitedError(Exception):
        """It would try again."""

    def wait(_seconds: float) -> None:
        raise WaitedError

    nobody = f"http://127.0.0.1:{find_port()}"
    with pytest.raises(WaitedError):
        enrol(nobody, 60.0, wait)
    with pytest.raises(UnreachableError, match=r"vendor\.connect"):
        enrol(nobody, -1.0, wait)
    refusing = serve(lambda _: Response(404, "text/plain", b""), lambda *_: Response(404, "text/plain", b""))
    for ask in (enrol, root_name_at):
        with pytest.raises(UnreachableError, match=r"vendor\.status.*404"):
            ask(refusing)
        with pytest.raises(InputError, match=r"vendor\.url"):
            ask("simulated-vendor:8081")
    several = serve(lambda _: Response(200, "text/plain", (VENDOR.root.pem * 2).encode()), SERVICE.post)
    with pytest.raises(EvidenceError, match=r"vendor\.chain"):
        root_name_at(several)


async def test_long_bodies_and_other_methods() -> None:
    server = await serve_http("127.0.0.1", 0, SERVICE.get, SERVICE.post)
    port = server.sockets[0].getsockname()[1]

    async def status(text: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(text)
        line = await reader.readline()
        writer.close()
        return line.split()[1]

    head = b" /machines HTTP/1.1\r\nHost: a\r\nContent-Length: "
    assert await status(b"POST" + head + b"20000\r\n\r\n" + b"x" * 20000) == b"413"
    assert await status(b"DELETE" + head + b"0\r\n\r\n") == b"405"
    server.close()
