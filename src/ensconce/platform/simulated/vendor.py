"""The simulated vendor as a service of its own, as Intel is one: certificates for machines, and a PCCS for all of them.

`GET` what :class:`Pccs` answers, `/root.pem` (the root, PEM) and `/healthz`; `POST /machines` a certificate request
(PKCS #10, PEM) for a machine's PCK key, answered with its certificate chain (PEM, the PCK certificate first). The keys
stay where they were made.

Intel certifies the CPUs that it has made. This vendor certifies whoever asks: it is for tests and demonstrations, where
whoever reaches it is meant to be a machine.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from ensconce.platform.simulated.pccs import Pccs, Response
from ensconce.platform.simulated.pki import SimulatedVendor

__all__ = ["HEALTH", "MACHINES", "ROOT", "VendorService"]

MACHINES = "/machines"
ROOT = "/root.pem"
HEALTH = "/healthz"

_PEM = "application/x-pem-file"


class VendorService:
    """From requests to responses."""

    def __init__(self, vendor: SimulatedVendor, now: Callable[[], int]) -> None:
        """Answer for ``vendor``; ``now`` is the clock, Unix seconds."""
        self._vendor = vendor
        self._pccs = Pccs(vendor, now)

    def get(self, target: str) -> Response:
        """Answer a GET request for ``target`` (path and query)."""
        if target == HEALTH:
            return Response(200, "text/plain", b"ok\n")
        if target == ROOT:
            return Response(200, _PEM, self._vendor.root.pem.encode())
        return self._pccs.get(target)

    def post(self, target: str, body: bytes) -> Response:
        """Answer a POST request: certify a machine."""
        if target != MACHINES:
            return Response(404, "text/plain", b"No such resource.")
        try:
            request = x509.load_pem_x509_csr(body)
            key = request.public_key()
            sound = request.is_signature_valid
        except (ValueError, TypeError, UnsupportedAlgorithm):
            return Response(400, "text/plain", b"Not a certificate request.")
        if not sound or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            return Response(400, "text/plain", b"Not a request for a P-256 key by whoever has it.")
        return Response(200, _PEM, self._vendor.enrol(key).encode())
