"""The PCCS: requests as Intel's quote provider and our own client make them, and requests of other kinds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import unquote

import pytest
from cryptography import x509

from ensconce.appraisal.collateral import PlatformKind
from ensconce.appraisal.pccs import fetch_collateral
from ensconce.platform.simulated.collateral import CollateralRecipe
from ensconce.platform.simulated.http import serve_http
from ensconce.platform.simulated.pccs import BASE, TDX_BASE, Pccs, Response
from ensconce.platform.simulated.pki import SimulatedVendor

NOW = 1_790_000_000
VENDOR = SimulatedVendor(bytes(32), NOW)
FMSPC = VENDOR.FMSPC.hex()
PCCS = Pccs(VENDOR, lambda: NOW)


def get(target: str, status: int = 200) -> Response:
    response = PCCS.get(BASE + target)
    assert response.status == status
    return response


def chain(response: Response, name: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(unquote(dict(response.headers)[name]).encode())


def test_tcb_info() -> None:
    sound = VENDOR.collateral(NOW)
    response = get(f"/tcb?fmspc={FMSPC}&update=standard")
    assert response.content_type == "application/json"
    assert response.body.decode() == f'{{"tcbInfo":{sound.tcb_info},"signature":"{sound.tcb_info_signature.hex()}"}}'
    assert chain(response, "TCB-Info-Issuer-Chain") == [VENDOR.tcb_signer.certificate, VENDOR.root.certificate]
    assert get(f"/tcb?fmspc={FMSPC.upper()}").body == response.body


def test_qe_identity() -> None:
    response = get("/qe/identity?update=standard")
    assert json.loads(response.body)["enclaveIdentity"]["id"] == "QE"
    issuers = chain(response, "SGX-Enclave-Identity-Issuer-Chain")
    assert issuers == [VENDOR.tcb_signer.certificate, VENDOR.root.certificate]
    assert get("/qe/identity").body == response.body


def test_documents_for_trust_domains() -> None:
    sound = VENDOR.collateral(NOW, CollateralRecipe(tee="tdx"))
    tcb, identity = PCCS.get(f"{TDX_BASE}/tcb?fmspc={FMSPC}"), PCCS.get(f"{TDX_BASE}/qe/identity?update=standard")
    assert tcb.body.decode() == f'{{"tcbInfo":{sound.tcb_info},"signature":"{sound.tcb_info_signature.hex()}"}}'
    assert json.loads(tcb.body)["tcbInfo"]["id"] == "TDX"
    assert json.loads(identity.body)["enclaveIdentity"]["id"] == "TD_QE"
    signer = [VENDOR.tcb_signer.certificate, VENDOR.root.certificate]
    assert chain(tcb, "TCB-Info-Issuer-Chain") == signer
    assert chain(identity, "SGX-Enclave-Identity-Issuer-Chain") == signer


@pytest.mark.parametrize("ca", ["platform", "processor"])
def test_pck_revocation_list(ca: str) -> None:
    der, digits = get(f"/pckcrl?ca={ca}&encoding=der"), get(f"/pckcrl?ca={ca}")
    assert bytes.fromhex(digits.body.decode()) == der.body
    crl = x509.load_der_x509_crl(der.body)
    issuer, root = chain(der, "SGX-PCK-CRL-Issuer-Chain")
    assert (crl.issuer, root) == (issuer.subject, VENDOR.root.certificate)
    assert ca in issuer.subject.rfc4514_string().casefold()


def test_root_revocation_list_is_in_hexadecimal() -> None:
    crl = x509.load_der_x509_crl(bytes.fromhex(get("/rootcacrl").body.decode()))
    assert crl.issuer == VENDOR.root.certificate.subject


def test_pck_certificate() -> None:
    response = get(f"/pckcert?qeid=aa&cpusvn={VENDOR.cpu_svn.hex()}&pcesvn=0d00&pceid=0000")
    headers = dict(response.headers)
    assert x509.load_pem_x509_certificate(response.body) == VENDOR.pck().certificate
    assert headers["SGX-FMSPC"] == FMSPC.upper()
    assert headers["SGX-PCK-Certificate-CA-Type"] == "platform"
    assert headers["SGX-TCBm"] == (VENDOR.cpu_svn.hex() + "0d00").upper()
    assert chain(response, "SGX-PCK-Certificate-Issuer-Chain") == [
        VENDOR.pck_ca().certificate,
        VENDOR.root.certificate,
    ]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (BASE + "/tcb?fmspc=00606A000000", 404),
        (BASE + "/tcb", 404),
        (BASE + "/pckcrl?ca=other", 400),
        (BASE + "/pckcrl", 400),
        (BASE + "/pckcrl?ca", 400),
        (BASE + "/pckcrl?" + "a=1&" * 20 + "ca=platform", 400),
        (BASE + "/pckcert?pceid=0001&qeid=1", 404),
        (BASE + "/pckcert?pceid=0000", 404),
        (BASE + "/qe/identity/", 404),
        (TDX_BASE + "/rootcacrl", 404),
        (TDX_BASE + "/tcb?fmspc=00606A000000", 404),
        (BASE, 404),
        ("/sgx/certification/v3/qe/identity", 404),
        ("/qe/identity", 404),
        ("/", 404),
        ("", 404),
        ("//[", 400),
        ("*", 404),
    ],
)
def test_requests_for_nothing(target: str, status: int) -> None:
    assert PCCS.get(target).status == status


def test_documents_are_made_when_they_are_asked_for() -> None:
    clock = [NOW]
    pccs = Pccs(VENDOR, lambda: clock[0])
    before = pccs.get(f"{BASE}/qe/identity").body
    clock[0] += 100 * 86_400
    after = json.loads(pccs.get(f"{BASE}/qe/identity").body)["enclaveIdentity"]
    assert json.loads(before)["enclaveIdentity"]["nextUpdate"] < after["issueDate"]


def test_a_recipe_is_served_as_it_is() -> None:
    pccs = Pccs(VENDOR, lambda: NOW, CollateralRecipe(tcb_status="OutOfDate"))
    assert json.loads(pccs.get(f"{BASE}/tcb?fmspc={FMSPC}").body)["tcbInfo"]["tcbLevels"][0]["tcbStatus"] == "OutOfDate"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = await serve_http("127.0.0.1", 0, PCCS.get)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("ca", ["platform", "processor"])
async def test_our_own_client_gets_what_the_vendor_signed(port: int, ca: str) -> None:
    fetched = await asyncio.to_thread(
        fetch_collateral, f"http://127.0.0.1:{port}", PlatformKind("sgx", FMSPC, ca), roots=()
    )
    assert fetched == VENDOR.collateral(NOW, CollateralRecipe(ca=ca))


async def exchange(port: int, data: bytes) -> bytes:
    """Send bytes, close that direction, and read what comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    async with asyncio.timeout(10):
        try:
            answer = await reader.read()
        except ConnectionResetError:
            # The server had enough before it had read everything.
            answer = b""
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET /sgx/certification/v4/rootcacrl HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (b"GET /sgx/certification/v4/rootcacrl HTTP/1.0\r\n\r\n", b"200"),
        (b"POST /sgx/certification/v4/rootcacrl HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", b"405"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50) + b"\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 20_000, b"431"),
    ],
    ids=["nothing there", "sound", "HTTP/1.0", "POST", "no host", "no length", "TLS", "endless"],
)
async def test_requests_of_every_kind_get_an_answer(port: int, request_bytes: bytes, status: bytes) -> None:
    answer = await exchange(port, request_bytes)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"\r\n\r\n" in answer


@pytest.mark.parametrize("data", [b"", b"GET ", b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab"])
async def test_requests_that_never_end_get_none(port: int, data: bytes) -> None:
    answer = await exchange(port, data)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


async def test_several_requests_on_one_connection(port: int) -> None:
    one = b"GET /sgx/certification/v4/rootcacrl HTTP/1.1\r\nHost: x\r\n\r\n"
    assert (await exchange(port, one * 3)).count(b"HTTP/1.1 200") == 3


async def test_connections_beyond_the_bound_are_closed_and_others_served(port: int) -> None:
    async with asyncio.timeout(20):
        streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(140)]
        assert await streams[-1][0].read() == b""
    for _, writer in streams:
        writer.close()
    async with asyncio.timeout(10):
        while not (await exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 404"):
            await asyncio.sleep(0.01)
