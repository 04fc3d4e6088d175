"""The SGX extension of a PCK certificate: which machine this is, and at which TCB.

Source: Intel SGX PCK Certificate and Certificate Revocation List Profile Specification, 1.5, section 1.3.5
(OID 1.2.840.113741.1.13.1 and its children).
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509

__all__ = ["OID_SGX", "PckIdentity"]

OID_SGX = x509.ObjectIdentifier("1.2.840.113741.1.13.1")

_OID_SGX_CONTENT = bytes.fromhex("2a864886f84d010d01")
_BOOLEAN, _INTEGER, _OCTET_STRING, _OID, _ENUMERATED, _SEQUENCE = 0x01, 0x02, 0x04, 0x06, 0x0A, 0x30


@dataclass(frozen=True, slots=True)
class PckIdentity:
    """What the vendor says about one machine.

    Attributes:
        ppid: platform provisioning id, 16 bytes.
        components: the 16 SGX TCB component SVNs, each 0 to 255.
        pce_svn: security version of the provisioning certification enclave, 16 bits.
        cpu_svn: 16 bytes, as reports carry it.
        pce_id: 2 bytes.
        fmspc: family, model, stepping, platform and custom SKU, 6 bytes.
        platform: a multi-package machine: adds the platform instance id and the three configuration flags that
            certificates of the Platform CA have and those of the Processor CA have not.
    """

    ppid: bytes
    components: tuple[int, ...]
    pce_svn: int
    cpu_svn: bytes
    pce_id: bytes
    fmspc: bytes
    platform: bool

    def extension(self) -> x509.UnrecognizedExtension:
        """The X.509 extension, in DER inside."""
        tcb = [_entry((2, number), _integer(svn)) for number, svn in enumerate(self.components, 1)]
        tcb += [_entry((2, 17), _integer(self.pce_svn)), _entry((2, 18), _octets(self.cpu_svn))]
        parts = [
            _entry((1,), _octets(self.ppid)),
            _entry((2,), _tlv(_SEQUENCE, b"".join(tcb))),
            _entry((3,), _octets(self.pce_id)),
            _entry((4,), _octets(self.fmspc)),
            # 0 is a standard, single-package machine; 1 is a scalable one.
            _entry((5,), _tlv(_ENUMERATED, bytes([1 if self.platform else 0]))),
        ]
        if self.platform:
            # dynamicPlatform, cachedKeys and smtEnabled as on practically every real server.
            flags = b"".join(_entry((7, number), _tlv(_BOOLEAN, b"\xff")) for number in (1, 2, 3))
            parts += [_entry((6,), _octets(self.ppid[::-1])), _entry((7,), _tlv(_SEQUENCE, flags))]
        return x509.UnrecognizedExtension(OID_SGX, _tlv(_SEQUENCE, b"".join(parts)))


def _entry(arcs: tuple[int, ...], value: bytes) -> bytes:
    """SEQUENCE of an OID below the SGX one, and its value; every arc is below 128 and so takes one byte."""
    return _tlv(_SEQUENCE, _tlv(_OID, _OID_SGX_CONTENT + bytes(arcs)) + value)


def _integer(value: int) -> bytes:
    return _tlv(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _octets(value: bytes) -> bytes:
    return _tlv(_OCTET_STRING, value)


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
