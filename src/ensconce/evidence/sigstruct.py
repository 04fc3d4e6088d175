"""SIGSTRUCT: what the owner of an enclave signs before any CPU starts it.

Source: Intel SDM volume 3D, "Enclave Signature Structure (SIGSTRUCT)": 1808 bytes, integers little-endian, an RSA-3072
key with exponent 3, and a PKCS #1 v1.5 signature with SHA-256 over bytes 0 to 127 and 900 to 1027.
Reading checks the format; whether the signature holds is for whoever launches.
"""

from __future__ import annotations

import datetime
import hashlib
import struct
from dataclasses import dataclass

from ensconce.errors import EvidenceError
from ensconce.evidence.report import Attributes

__all__ = ["SIGSTRUCT_SIZE", "Sigstruct", "parse_sigstruct", "quotients"]

SIGSTRUCT_SIZE = 1808

_HEADER_1 = bytes.fromhex("06000000e10000000000010000000000")
_HEADER_2 = bytes.fromhex("01010000600000006000000001000000")
_LAYOUT = struct.Struct("<16sII16sI84s384sI384sIIBB2s16s16s16s32s16s16sHH12s384s384s")
_RESERVED = (5, 13, 18, 22)


@dataclass(frozen=True, slots=True)
class Sigstruct:
    """The fields of a SIGSTRUCT.

    Attributes:
        vendor: 0 for anyone, 0x8086 for Intel.
        date: day of signing.
        sw_defined: 32 bits for the software's own use.
        modulus: of the signer's RSA-3072 key, 384 bytes little-endian.
        exponent: 3.
        signature: 384 bytes little-endian.
        misc_select: MISCSELECT that the enclave must have where ``misc_mask`` has a 1.
        misc_mask: see ``misc_select``.
        cet_attributes: CET features, 8 bits, under ``cet_attributes_mask``.
        cet_attributes_mask: see ``cet_attributes``.
        isv_family_id: 16 bytes.
        attributes: ATTRIBUTES that the enclave must have where ``attribute_mask`` has a 1.
        attribute_mask: see ``attributes``.
        mr_enclave: the enclave's measurement, 32 bytes (ENCLAVEHASH).
        isv_ext_prod_id: 16 bytes.
        isv_prod_id: product id, 16 bits.
        isv_svn: security version, 16 bits.
        q1: quotient that helps the CPU check the signature, 384 bytes little-endian.
        q2: the second such quotient.
    """

    vendor: int
    date: datetime.date
    sw_defined: int
    modulus: bytes
    exponent: int
    signature: bytes
    misc_select: int
    misc_mask: int
    cet_attributes: int
    cet_attributes_mask: int
    isv_family_id: bytes
    attributes: Attributes
    attribute_mask: Attributes
    mr_enclave: bytes
    isv_ext_prod_id: bytes
    isv_prod_id: int
    isv_svn: int
    q1: bytes
    q2: bytes

    @property
    def mr_signer(self) -> bytes:
        """MRSIGNER: SHA-256 of the modulus in little-endian order, 32 bytes."""
        return hashlib.sha256(self.modulus).digest()

    @property
    def debug(self) -> bool:
        """The enclave will run as a debug enclave."""
        return self.attributes.debug

    @property
    def signed(self) -> bytes:
        """The 256 bytes under the signature."""
        data = self.to_bytes()
        return data[0:128] + data[900:1028]

    def to_bytes(self) -> bytes:
        """The 1808 bytes; the inverse of :func:`parse_sigstruct`.

        Raises:
            ValueError: a field has the wrong length.
        """
        long = (self.modulus, self.signature, self.q1, self.q2)
        short = (self.isv_family_id, self.isv_ext_prod_id)
        if {len(v) for v in long} != {384} or {len(v) for v in short} != {16} or len(self.mr_enclave) != 32:
            raise ValueError("a field of the SIGSTRUCT has the wrong length")
        return _LAYOUT.pack(
            _HEADER_1,
            self.vendor,
            int(f"{self.date:%Y%m%d}", 16),
            _HEADER_2,
            self.sw_defined,
            b"",
            self.modulus,
            self.exponent,
            self.signature,
            self.misc_select,
            self.misc_mask,
            self.cet_attributes,
            self.cet_attributes_mask,
            b"",
            self.isv_family_id,
            self.attributes.to_bytes(),
            self.attribute_mask.to_bytes(),
            self.mr_enclave,
            b"",
            self.isv_ext_prod_id,
            self.isv_prod_id,
            self.isv_svn,
            b"",
            self.q1,
            self.q2,
        )


def quotients(signature: int, modulus: int) -> tuple[int, int]:
    """What spares the CPU divisions (SDM, EINIT): q1 = floor(s^2 / m), q2 = floor((s^3 - q1 * s * m) / m)."""
    q1, remainder = divmod(signature * signature, modulus)
    return q1, remainder * signature // modulus


def parse_sigstruct(data: bytes) -> Sigstruct:
    """Read a SIGSTRUCT.

    Raises:
        EvidenceError: not 1808 bytes, wrong headers, an exponent other than 3, a date that is none, or reserved
            bytes that are not zero.
    """
    if len(data) != SIGSTRUCT_SIZE:
        raise _malformed("sigstruct.size", "the length is wrong", f"{len(data)} bytes", f"{SIGSTRUCT_SIZE} bytes")
    fields = _LAYOUT.unpack(data)
    if fields[0] != _HEADER_1 or fields[3] != _HEADER_2:
        raise _malformed("sigstruct.header", "a header constant is wrong", (fields[0] + fields[3]).hex(), None)
    if any(any(fields[at]) for at in _RESERVED):
        raise _malformed("sigstruct.reserved", "reserved bytes are not zero", None, "reserved bytes are zero")
    if fields[7] != 3:
        raise _malformed("sigstruct.exponent", "the exponent is wrong", str(fields[7]), "3")
    try:
        # The date is in binary-coded decimal: its hexadecimal digits read as yyyymmdd.
        date = datetime.datetime.strptime(f"{fields[2]:08x}", "%Y%m%d").replace(tzinfo=datetime.UTC).date()
    except ValueError:
        raise _malformed("sigstruct.date", "the date is none", f"{fields[2]:08x}", "yyyymmdd") from None
    return Sigstruct(
        vendor=fields[1],
        date=date,
        sw_defined=fields[4],
        modulus=fields[6],
        exponent=fields[7],
        signature=fields[8],
        misc_select=fields[9],
        misc_mask=fields[10],
        cet_attributes=fields[11],
        cet_attributes_mask=fields[12],
        isv_family_id=fields[14],
        attributes=Attributes.from_bytes(fields[15]),
        attribute_mask=Attributes.from_bytes(fields[16]),
        mr_enclave=fields[17],
        isv_ext_prod_id=fields[19],
        isv_prod_id=fields[20],
        isv_svn=fields[21],
        q1=fields[23],
        q2=fields[24],
    )


def _malformed(check: str, problem: str, found: str | None, rule: str | None) -> EvidenceError:
    return EvidenceError(
        check,
        f"this is no SIGSTRUCT: {problem}",
        found=found,
        rule=rule or "Intel SDM volume 3D, SIGSTRUCT",
        remedy="check that this is the .sig file that was made when the enclave was signed",
    )
