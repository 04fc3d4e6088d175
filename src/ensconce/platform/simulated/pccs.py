"""The provisioning certificate caching service of the simulated vendor, as a function from requests to responses.

API: Intel SGX PCCS, version 4 (`/sgx/certification/v4/...`, and `/tdx/certification/v4/...` for what differs in TDX:
TCB info and QE identity). Documents are signed when they are asked for, so they are
never out of date. Issuer chains travel in headers, as URL-encoded PEM; revocation lists are hexadecimal, as PCCS gives
them, unless DER is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from urllib.parse import parse_qsl, quote, urlsplit

from ensconce.appraisal.collateral import Collateral
from ensconce.evidence.quote import Tee
from ensconce.platform.simulated.collateral import CollateralRecipe, prepare
from ensconce.platform.simulated.pki import CA, SimulatedVendor

__all__ = ["BASE", "TDX_BASE", "Pccs", "Response"]

BASE = "/sgx/certification/v4"
TDX_BASE = "/tdx/certification/v4"

_JSON = "application/json"
_CRL = "application/pkix-crl"
_PEM = "application/x-pem-file"
_CAS: dict[str, CA] = {"processor": "processor", "platform": "platform"}


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response.

    Attributes:
        status: HTTP status code; PCCS has 404 for what it has no data about, 400 for parameters it cannot read.
        content_type: media type of the body.
        body: the body.
        headers: further headers, with names as PCCS writes them.
    """

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Pccs:
    """Answers for one vendor and its one machine."""

    def __init__(self, vendor: SimulatedVendor, now: Callable[[], int], recipe: CollateralRecipe | None = None) -> None:
        """Serve the vendor's documents.

        Args:
            vendor: whose.
            now: the clock, Unix seconds.
            recipe: in which condition the documents are; sound when absent.
        """
        self._vendor = vendor
        self._now = now
        self._recipe = recipe or CollateralRecipe()
        self._calls: dict[str, Callable[[dict[str, str]], Response]] = {
            f"{BASE}/tcb": partial(self._tcb, "sgx"),
            f"{BASE}/qe/identity": partial(self._qe_identity, "sgx"),
            f"{BASE}/pckcrl": self._pck_crl,
            f"{BASE}/rootcacrl": self._root_crl,
            f"{BASE}/pckcert": self._pck_certificate,
            f"{TDX_BASE}/tcb": partial(self._tcb, "tdx"),
            f"{TDX_BASE}/qe/identity": partial(self._qe_identity, "tdx"),
        }

    def get(self, target: str) -> Response:
        """Answer a GET request for ``target`` (path and query)."""
        try:
            parts = urlsplit(target)
            query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query), max_num_fields=8))
        except ValueError:
            return _nothing(400, "Invalid request parameters.")
        call = self._calls.get(parts.path)
        if call is None:
            return _nothing(404, "No such resource.")
        return call(query)

    def _documents(self, tee: Tee = "sgx") -> Collateral:
        return prepare(self._vendor, self._now(), self._recipe.of_tee(tee))

    def _tcb(self, tee: Tee, query: dict[str, str]) -> Response:
        if query.get("fmspc", "").upper() != self._vendor.FMSPC.hex().upper():
            return _nothing(404, "No cache data for this platform.")
        made = self._documents(tee)
        body = f'{{"tcbInfo":{made.tcb_info},"signature":"{made.tcb_info_signature.hex()}"}}'
        return Response(200, _JSON, body.encode(), (("TCB-Info-Issuer-Chain", quote(made.tcb_info_issuer_chain)),))

    def _qe_identity(self, tee: Tee, _query: dict[str, str]) -> Response:
        made = self._documents(tee)
        body = f'{{"enclaveIdentity":{made.qe_identity},"signature":"{made.qe_identity_signature.hex()}"}}'
        chain = ("SGX-Enclave-Identity-Issuer-Chain", quote(made.qe_identity_issuer_chain))
        return Response(200, _JSON, body.encode(), (chain,))

    def _pck_crl(self, query: dict[str, str]) -> Response:
        ca = _CAS.get(query.get("ca", ""))
        if ca is None:
            return _nothing(400, "Invalid request parameters.")
        made = prepare(self._vendor, self._now(), self._recipe.of_ca(ca))
        chain = ("SGX-PCK-CRL-Issuer-Chain", quote(made.pck_crl_issuer_chain))
        body = made.pck_crl if query.get("encoding") == "der" else made.pck_crl.hex().encode()
        return Response(200, _CRL, body, (chain,))

    def _root_crl(self, _query: dict[str, str]) -> Response:
        return Response(200, _CRL, self._documents().root_ca_crl.hex().encode())

    def _pck_certificate(self, query: dict[str, str]) -> Response:
        vendor, ca = self._vendor, self._recipe.ca
        if query.get("pceid", "").upper() != vendor.PCE_ID.hex().upper() or not query.get("qeid"):
            return _nothing(404, "No cache data for this platform.")
        tcbm = vendor.cpu_svn.hex() + vendor.PCE_SVN.to_bytes(2, "little").hex()
        headers = (
            ("SGX-TCBm", tcbm.upper()),
            ("SGX-FMSPC", vendor.FMSPC.hex().upper()),
            ("SGX-PCK-Certificate-CA-Type", ca),
            ("SGX-PCK-Certificate-Issuer-Chain", quote(vendor.pck_ca(ca).pem + vendor.root.pem)),
        )
        return Response(200, _PEM, vendor.pck(ca).pem.encode(), headers)


def _nothing(status: int, text: str) -> Response:
    return Response(status, "text/plain", text.encode())
