"""Reports: what the CPU says about an enclave (SGX) or a trust domain (TDX).

Sources: Intel SDM volume 3D, table "REPORT" (the first 384 bytes, the body that a quote carries); Intel TDX DCAP
quoting library API, "TD Quote body" for TDX 1.0 (584 bytes), 1.5 (648 bytes) and 1.5 extended (885 bytes).
Integers are little-endian. Reserved bytes must be zero: a bit that nobody here understands is not accepted.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from ensconce.errors import EvidenceError

__all__ = [
    "SGX_REPORT_SIZE",
    "TD_REPORT_10_SIZE",
    "TD_REPORT_15_EX_SIZE",
    "TD_REPORT_15_SIZE",
    "Attributes",
    "SgxReport",
    "TdExtension",
    "TdReport",
]

SGX_REPORT_SIZE = 384
TD_REPORT_10_SIZE = 584
TD_REPORT_15_SIZE = 648
TD_REPORT_15_EX_SIZE = 885

_SGX = struct.Struct("<16sI12s16s16s32s32s32s32s64sHHH42s16s64s")
_TD_10 = struct.Struct("<16s48s48s8s8s8s48s48s48s48s48s48s48s48s64s")
_TD_15 = struct.Struct("<16s48s")
_TD_EX = struct.Struct("<B32s48s48s8s16s16s12s48s8s")


@dataclass(frozen=True, slots=True)
class Attributes:
    """ATTRIBUTES of an SGX enclave (Intel SDM volume 3D, "ATTRIBUTES"): 64 flags, then the XFRM mask.

    Attributes:
        flags: the 64 attribute flags.
        xfrm: the 64 bits of XCR0 that the enclave runs with.
    """

    flags: int
    xfrm: int

    INIT = 1 << 0
    DEBUG = 1 << 1
    MODE64BIT = 1 << 2
    PROVISION_KEY = 1 << 4
    EINITTOKEN_KEY = 1 << 5
    CET = 1 << 6
    KSS = 1 << 7
    AEX_NOTIFY = 1 << 10

    @classmethod
    def from_bytes(cls, data: bytes) -> Attributes:
        """Read the 16 bytes of ATTRIBUTES.

        Raises:
            EvidenceError: not 16 bytes.
        """
        _expect_size(data, 16, "report.attributes", "ATTRIBUTES")
        return cls(*struct.unpack("<QQ", data))

    def to_bytes(self) -> bytes:
        """The 16 bytes of ATTRIBUTES."""
        return struct.pack("<QQ", self.flags, self.xfrm)

    @property
    def init(self) -> bool:
        """The enclave was initialised by EINIT."""
        return bool(self.flags & self.INIT)

    @property
    def debug(self) -> bool:
        """Anyone on the host can read and write the enclave's memory."""
        return bool(self.flags & self.DEBUG)

    @property
    def mode64bit(self) -> bool:
        """The enclave runs in 64-bit mode."""
        return bool(self.flags & self.MODE64BIT)

    @property
    def provision_key(self) -> bool:
        """The enclave may derive the provisioning key, which identifies the machine."""
        return bool(self.flags & self.PROVISION_KEY)

    @property
    def einittoken_key(self) -> bool:
        """The enclave may derive the EINIT token key, and so launch others."""
        return bool(self.flags & self.EINITTOKEN_KEY)


@dataclass(frozen=True, slots=True)
class SgxReport:
    """The body of an SGX report, 384 bytes.

    Attributes:
        cpu_svn: security version of the CPU, 16 bytes, opaque.
        misc_select: MISCSELECT, 32 flags.
        isv_ext_prod_id: extended product id, 16 bytes (KSS; zero without).
        attributes: ATTRIBUTES.
        mr_enclave: measurement of the enclave, 32 bytes.
        mr_signer: SHA-256 of the signer's modulus, 32 bytes.
        config_id: 64 bytes chosen at launch (KSS; zero without).
        isv_prod_id: product id, 16 bits.
        isv_svn: security version of the enclave, 16 bits.
        config_svn: security version of the configuration, 16 bits (KSS; zero without).
        isv_family_id: 16 bytes (KSS; zero without).
        report_data: 64 bytes that the enclave chose.
    """

    cpu_svn: bytes
    misc_select: int
    isv_ext_prod_id: bytes
    attributes: Attributes
    mr_enclave: bytes
    mr_signer: bytes
    config_id: bytes
    isv_prod_id: int
    isv_svn: int
    config_svn: int
    isv_family_id: bytes
    report_data: bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> SgxReport:
        """Read a report body.

        Raises:
            EvidenceError: not 384 bytes, or a reserved byte is not zero.
        """
        _expect_size(data, SGX_REPORT_SIZE, "report.size", "an SGX report body")
        parts = _SGX.unpack(data)
        for at in (2, 6, 8, 13):
            if any(parts[at]):
                raise EvidenceError(
                    "report.reserved",
                    "reserved bytes of the SGX report body are not zero",
                    found=parts[at].hex(),
                    rule="Intel SDM volume 3D, REPORT: reserved bytes are zero",
                    remedy="ask the enclave for a new quote; if its CPU is newer than this release, update Ensconce",
                )
        return cls(
            cpu_svn=parts[0],
            misc_select=parts[1],
            isv_ext_prod_id=parts[3],
            attributes=Attributes.from_bytes(parts[4]),
            mr_enclave=parts[5],
            mr_signer=parts[7],
            config_id=parts[9],
            isv_prod_id=parts[10],
            isv_svn=parts[11],
            config_svn=parts[12],
            isv_family_id=parts[14],
            report_data=parts[15],
        )

    def to_bytes(self) -> bytes:
        """The 384 bytes of the report body; the inverse of :meth:`from_bytes`.

        Raises:
            ValueError: a field has the wrong length.
        """
        sized = (
            (self.cpu_svn, 16),
            (self.isv_ext_prod_id, 16),
            (self.mr_enclave, 32),
            (self.mr_signer, 32),
            (self.config_id, 64),
            (self.isv_family_id, 16),
            (self.report_data, 64),
        )
        # struct pads short values and cuts long ones without a word, so lengths are checked here.
        if any(len(value) != size for value, size in sized):
            raise ValueError("a field of the SGX report has the wrong length")
        return _SGX.pack(
            self.cpu_svn,
            self.misc_select,
            b"",
            self.isv_ext_prod_id,
            self.attributes.to_bytes(),
            self.mr_enclave,
            b"",
            self.mr_signer,
            b"",
            self.config_id,
            self.isv_prod_id,
            self.isv_svn,
            self.config_svn,
            b"",
            self.isv_family_id,
            self.report_data,
        )

    @property
    def debug(self) -> bool:
        """Anyone on the host can read and write the enclave's memory."""
        return self.attributes.debug

    def measurements(self) -> dict[str, str | int]:
        """What says which code this is, and how it was started; bytes in lower-case hexadecimal.

        Two quotes of one enclave agree in all of it, whenever and wherever they were made.
        """
        return {
            "mr_enclave": self.mr_enclave.hex(),
            "mr_signer": self.mr_signer.hex(),
            "isv_prod_id": self.isv_prod_id,
            "isv_svn": self.isv_svn,
            "attributes": self.attributes.to_bytes().hex(),
        }

    def to_json_object(self) -> dict[str, str | int | bool]:
        """The fields under their names, bytes in lower-case hexadecimal."""
        return {
            "mr_enclave": self.mr_enclave.hex(),
            "mr_signer": self.mr_signer.hex(),
            "isv_prod_id": self.isv_prod_id,
            "isv_svn": self.isv_svn,
            "debug": self.debug,
            "attributes": self.attributes.to_bytes().hex(),
            "misc_select": f"{self.misc_select:08x}",
            "cpu_svn": self.cpu_svn.hex(),
            "isv_ext_prod_id": self.isv_ext_prod_id.hex(),
            "isv_family_id": self.isv_family_id.hex(),
            "config_id": self.config_id.hex(),
            "config_svn": self.config_svn,
            "report_data": self.report_data.hex(),
        }


@dataclass(frozen=True, slots=True)
class TdExtension:
    """What TDX 1.5 extended reports add, 237 bytes: virtual machine, device and service TD history."""

    vm_id: int
    td_id: bytes
    dev_info: bytes
    init_service_td_hash: bytes
    init_service_td_attributes: bytes
    init_cpu_svn: bytes
    init_tee_tcb_svn: bytes
    init_tee_fmspc: bytes
    cur_service_td_hash: bytes
    cur_service_td_attributes: bytes


@dataclass(frozen=True, slots=True)
class TdReport:
    """The body of a TDX quote, version 1.0, 1.5 or 1.5 extended.

    Attributes:
        tee_tcb_svn: security version of the TDX module, 16 bytes.
        mr_seam: measurement of the TDX module, 48 bytes.
        mr_signer_seam: signer of the TDX module, 48 bytes; zero for Intel's.
        seam_attributes: 8 bytes.
        td_attributes: 8 bytes; bit 0 is DEBUG.
        xfam: 8 bytes.
        mr_td: measurement of the trust domain's initial contents, 48 bytes.
        mr_config_id: 48 bytes.
        mr_owner: 48 bytes.
        mr_owner_config: 48 bytes.
        rtmr0: run-time measurement register, 48 bytes; so are ``rtmr1`` to ``rtmr3``.
        report_data: 64 bytes that the trust domain chose.
        tee_tcb_svn2: 16 bytes, or ``None`` in version 1.0.
        mr_service_td: 48 bytes, or ``None`` in version 1.0.
        extension: only in version 1.5 extended.
    """

    tee_tcb_svn: bytes
    mr_seam: bytes
    mr_signer_seam: bytes
    seam_attributes: bytes
    td_attributes: bytes
    xfam: bytes
    mr_td: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rtmr0: bytes
    rtmr1: bytes
    rtmr2: bytes
    rtmr3: bytes
    report_data: bytes
    tee_tcb_svn2: bytes | None = None
    mr_service_td: bytes | None = None
    extension: TdExtension | None = None

    @classmethod
    def from_bytes(cls, data: bytes) -> TdReport:
        """Read a TD report body; its length tells the version.

        Raises:
            EvidenceError: not 584, 648 or 885 bytes.
        """
        if len(data) not in (TD_REPORT_10_SIZE, TD_REPORT_15_SIZE, TD_REPORT_15_EX_SIZE):
            raise EvidenceError(
                "report.size",
                "a TD report body has the wrong length",
                found=f"{len(data)} bytes",
                rule=f"{TD_REPORT_10_SIZE}, {TD_REPORT_15_SIZE} or {TD_REPORT_15_EX_SIZE} bytes",
                remedy="ask the trust domain for a new quote",
            )
        report = cls(*_TD_10.unpack_from(data))
        if len(data) == TD_REPORT_10_SIZE:
            return report
        tee_tcb_svn2, mr_service_td = _TD_15.unpack_from(data, TD_REPORT_10_SIZE)
        extension = None
        if len(data) == TD_REPORT_15_EX_SIZE:
            extension = TdExtension(*_TD_EX.unpack_from(data, TD_REPORT_15_SIZE))
        return replace(report, tee_tcb_svn2=tee_tcb_svn2, mr_service_td=mr_service_td, extension=extension)

    def to_bytes(self) -> bytes:
        """The bytes of the report body, 584, 648 or 885 of them; the inverse of :meth:`from_bytes`.

        Raises:
            ValueError: a field has the wrong length, or only one of a later version's is there.
        """
        values = [getattr(self, field.name) for field in fields(self)]
        data = _packed(_TD_10, values[:15])
        if values[15:] == [None, None, None]:
            return data
        data += _packed(_TD_15, values[15:17])
        if self.extension is None:
            return data
        return data + _packed(_TD_EX, [getattr(self.extension, field.name) for field in fields(self.extension)])

    @property
    def debug(self) -> bool:
        """Anyone on the host can read and write the trust domain's memory (TD attributes, bit 0)."""
        return bool(self.td_attributes[0] & 1)

    def measurements(self) -> dict[str, str | int]:
        """What says which code this is, and how it was started; bytes in lower-case hexadecimal.

        Two quotes of one trust domain agree in all of it, unless it extended a run-time register in between or its
        host updated the TDX module.
        """
        names = ("mr_td", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "td_attributes", "xfam", "mr_seam")
        return {name: getattr(self, name).hex() for name in (*names, "mr_config_id", "mr_owner", "mr_owner_config")}

    def to_json_object(self) -> dict[str, str | int | bool]:
        """The fields under their names, bytes in lower-case hexadecimal; those of a later version only if there."""
        value: dict[str, str | int | bool] = {"mr_td": self.mr_td.hex(), "debug": self.debug}
        for holder in (self, self.extension):
            for field in fields(holder) if holder else ():
                member = getattr(holder, field.name)
                if isinstance(member, bytes):
                    value[field.name] = member.hex()
                elif isinstance(member, int):
                    value[field.name] = member
        return value


def _packed(layout: struct.Struct, values: Sequence[object]) -> bytes:
    # struct pads short values and cuts long ones without a word, so lengths are checked by reading back.
    try:
        data = layout.pack(*values)
    except struct.error as error:
        raise ValueError("a field of the TD report has another type") from error
    if layout.unpack(data) != tuple(values):
        raise ValueError("a field of the TD report has the wrong length")
    return data


def _expect_size(data: bytes, size: int, check: str, what: str) -> None:
    if len(data) != size:
        raise EvidenceError(
            check,
            f"{what} has the wrong length",
            found=f"{len(data)} bytes",
            rule=f"{size} bytes",
            remedy="ask for a new quote",
        )
