"""A simulated machine: the keys that quotes are signed with, and the vendor's certificates for them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from ensconce.platform.simulated.certificates import label_bytes, point

if TYPE_CHECKING:
    from ensconce.platform.simulated.pki import SimulatedVendor

__all__ = ["Machine"]


@dataclass(frozen=True, slots=True, repr=False)
class Machine:
    """What a machine signs quotes with.

    Attributes:
        root_name: the vendor's root as policies name it, `simulated:<sha256>`.
        attestation_key: the quoting enclave's.
        pck_key: the key that certifies the quoting enclave.
        pck_chain: its certificate and those above, PEM one after the other, the PCK certificate first.
        identifier: 16 bytes that quotes carry as QE identity (user data); no two machines have the same.
        cpu_svn: 16 bytes.
        pce_svn: of the provisioning certification enclave.
    """

    root_name: str
    attestation_key: ec.EllipticCurvePrivateKey
    pck_key: ec.EllipticCurvePrivateKey
    pck_chain: str
    identifier: bytes
    cpu_svn: bytes
    pce_svn: int

    @classmethod
    def of(cls, vendor: SimulatedVendor) -> Machine:
        """The machine whose keys derive from the vendor's seed: vendor and machine are one here."""
        chain = (vendor.pck(), vendor.pck_ca(), vendor.root)
        return cls(
            vendor.root_name,
            vendor.attestation_key,
            vendor.pck().key,
            "".join(party.pem for party in chain),
            label_bytes("machine " + vendor.root_name, 16),
            vendor.cpu_svn,
            vendor.PCE_SVN,
        )

    @staticmethod
    def identifier_of(attestation_key: ec.EllipticCurvePrivateKey) -> bytes:
        """The identifier of a machine with keys of its own."""
        return label_bytes("machine " + hashlib.sha256(point(attestation_key)).hexdigest(), 16)
