"""Collateral over HTTP: a client of the caches that speak Intel's provisioning certification API (PCCS), version 4.

Source: Intel SGX and TDX provisioning certification service API, version 4; the PCCS of Intel's DCAP repository, which
adds ``/rootcacrl``. Nothing fetched is trusted because of where it came from: verification checks every signature.
"""

from __future__ import annotations

import json
import re
import ssl
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

import httpx

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.pck import PckCa
from ensconce.errors import InputError, UnreachableError

__all__ = ["fetch_collateral", "parse_fmspc"]

_MAX_BODY = 1024 * 1024
_MAX_CHAIN = 32 * 1024
_PATH = "/sgx/certification/v4"
_FMSPC = re.compile(r"[0-9A-Fa-f]{12}")
_SPACE = re.compile(r"[ \t\r\n]*")
_STATUS = {
    404: "it has nothing for this platform",
    460: "it does not know this platform",
    461: "it cannot reach the vendor's service just now",
    462: "it has no certificates for this platform",
    502: "it cannot reach the vendor's service just now",
}


def fetch_collateral(
    base_url: str, *, fmspc: str, ca: PckCa, ca_certificate: Path | None = None, timeout: float = 30.0
) -> Collateral:
    """Fetch the collateral for one kind of SGX platform.

    Args:
        base_url: where ``/sgx/certification/v4`` is, e.g. ``https://localhost:8081``.
        fmspc: kind of platform, 12 hexadecimal digits.
        ca: which authority issued its PCK certificates.
        ca_certificate: PEM file of the authority to expect the server's TLS certificate from, instead of the system's.
        timeout: for each of the four answers, in seconds.

    Raises:
        UnreachableError: the server cannot be reached, refuses, or answers with something else.
        InputError: ``fmspc`` is malformed, ``base_url`` is no URL, or ``ca_certificate`` cannot be read.
    """
    fmspc = parse_fmspc(fmspc)
    try:
        context = ssl.create_default_context(cafile=ca_certificate)
    except OSError as error:
        raise InputError("pccs.ca_certificate", f"cannot use {ca_certificate}: {error}") from error
    # Without trust_env: a proxy that the environment names is nobody that the owner chose.
    with httpx.Client(verify=context, timeout=timeout, trust_env=False, follow_redirects=False) as client:
        pccs = _Pccs(client, base_url, timeout)
        pck_crl = pccs.get("pckcrl", ca=ca, encoding="der")
        tcb_info = pccs.get("tcb", fmspc=fmspc, update="standard")
        qe_identity = pccs.get("qe/identity", update="standard")
        root_ca_crl = pccs.get("rootcacrl")
    tcb_info_text, tcb_info_signature = pccs.signed(tcb_info, "tcbInfo")
    qe_identity_text, qe_identity_signature = pccs.signed(qe_identity, "enclaveIdentity")
    return Collateral(
        pck_crl_issuer_chain=pccs.chain(pck_crl, "SGX-PCK-CRL-Issuer-Chain"),
        root_ca_crl=pccs.crl(root_ca_crl),
        pck_crl=pccs.crl(pck_crl),
        tcb_info_issuer_chain=pccs.chain(tcb_info, "TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain"),
        tcb_info=tcb_info_text,
        tcb_info_signature=tcb_info_signature,
        qe_identity_issuer_chain=pccs.chain(qe_identity, "SGX-Enclave-Identity-Issuer-Chain"),
        qe_identity=qe_identity_text,
        qe_identity_signature=qe_identity_signature,
    )


def parse_fmspc(text: str) -> str:
    """The kind of a platform, in upper case.

    Raises:
        InputError: not 12 hexadecimal digits.
    """
    if not _FMSPC.fullmatch(text):
        raise InputError("pccs.fmspc", "this is no FMSPC", found=text[:40], rule="12 hexadecimal digits")
    return text.upper()


@dataclass(frozen=True, slots=True)
class _Answer:
    path: str
    headers: httpx.Headers
    body: bytes


class _Pccs:
    """One server: asks, bounds the answers, and names it in every error."""

    def __init__(self, client: httpx.Client, base_url: str, timeout: float) -> None:
        self._client = client
        self._base = base_url.rstrip("/") + _PATH
        self._timeout = timeout

    def get(self, path: str, **parameters: str) -> _Answer:
        deadline = time.monotonic() + self._timeout
        try:
            with self._client.stream("GET", f"{self._base}/{path}", params=parameters) as response:
                status = response.status_code
                if status != 200:
                    problem = _STATUS.get(status, "it refuses")
                    raise self._error("pccs.status", path, problem, f"HTTP status {status}")
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > _MAX_BODY:
                        raise self._error("pccs.size", path, "its answer is too long", f"over {_MAX_BODY} bytes")
                    # The client's own timeout is for each read, and a server that trickles would never meet it.
                    if time.monotonic() > deadline:
                        raise self._error("pccs.connect", path, "it is too slow", f"over {self._timeout} s")
                return _Answer(path, response.headers, bytes(body))
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise InputError(
                "pccs.url",
                "this is no URL of a PCCS",
                found=self._base.removesuffix(_PATH)[:200],
                rule="http or https, a host, and a port if need be",
                remedy="for example https://localhost:8081",
            ) from error
        except httpx.HTTPError as error:
            found = str(error)[:200] or type(error).__name__
            raise self._error("pccs.connect", path, "it cannot be reached", found) from error

    def chain(self, answer: _Answer, *names: str) -> str:
        """The issuer chain in one of these headers, PEM out of URL encoding."""
        value = next((answer.headers[name] for name in names if name in answer.headers), None)
        if value is None or len(value) > _MAX_CHAIN:
            raise self._error("pccs.issuer_chain", answer.path, f"its answer has no usable header {names[0]}", None)
        return urllib.parse.unquote(value)

    def crl(self, answer: _Answer) -> bytes:
        """A revocation list in DER; many PCCSs give hexadecimal digits instead, which begin with the digit 3."""
        if answer.body.startswith(b"\x30"):
            return answer.body
        try:
            return bytes.fromhex(answer.body.decode("ascii").strip().strip('"'))
        except ValueError:
            raise self._error("pccs.crl", answer.path, "its answer is no revocation list", None) from None

    def signed(self, answer: _Answer, member: str) -> tuple[str, bytes]:
        """The exact text of a signed member, and the signature over it."""
        try:
            text = answer.body.decode()
            value = _member_text(text, member)
            return value, bytes.fromhex(json.loads(text)["signature"])
        except (ValueError, KeyError, TypeError, RecursionError):
            problem = f"its answer is not a signed {member}"
            raise self._error("pccs.document", answer.path, problem, None) from None

    def _error(self, check: str, path: str, problem: str, found: str | None) -> UnreachableError:
        return UnreachableError(
            check,
            f"{self._base}/{path} gave no collateral: {problem}",
            found=found,
            rule="Intel PCS API version 4",
            remedy="check the URL and that the PCCS runs, knows this FMSPC, and can reach the vendor's service",
        )


def _member_text(text: str, member: str) -> str:
    """The text of one member of a JSON object, as it stands there, byte for byte.

    What was signed is these bytes, and no serialiser promises to write them again.

    Raises:
        ValueError: not a JSON object that has the member, an object, exactly once.
    """
    decoder = json.JSONDecoder()

    def past(at: int, token: str = "") -> int:
        """Where the text goes on after this token and the space around it."""
        at = _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches the empty string too
        if not text.startswith(token, at):
            raise ValueError(f"expected {token}")
        return _SPACE.match(text, at + len(token)).end()  # type: ignore[union-attr]  # likewise

    found: list[str] = []
    at = past(0, "{")
    while True:
        name, at = decoder.raw_decode(text, at)
        start = past(at, ":")
        value, end = decoder.raw_decode(text, start)
        if name == member and isinstance(value, dict):
            found.append(text[start:end])
        at = past(end)
        if text.startswith("}", at):
            break
        at = past(at, ",")
    if len(found) != 1 or past(at, "}") != len(text):
        raise ValueError("not there once, or not alone")
    return found[0]
