"""What a policy says of TDX trust domains: measurements, registers and attributes.

Source of the attribute bits: Intel TDX Module ABI specification, "ATTRIBUTES".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ensconce.appraisal.policy_check import Check, expect_size
from ensconce.appraisal.policy_mask import Mask
from ensconce.evidence.report import TdReport

__all__ = ["HOST_CHOSEN", "TrustDomain", "td_checks"]

_DEBUG = 1 << 0
_SEPT_VE_DISABLE = 1 << 28
# Judged apart (DEBUG), or defences and instructions of the guest's own that let nobody else in: ICSSD, LASS, PKS, KL,
# PERFMON. What is left over is refused: the profiling bits 4 to 6 open side channels to the host, SERVTD_EXT (17) and
# MIGRATABLE (29) let a service TD take part, TPA (62) is no workload, and the rest is reserved.
_HARMLESS = _DEBUG | 1 << 16 | 1 << 27 | 1 << 30 | 1 << 31 | 1 << 63

_REGISTERS = ("rtmr0", "rtmr1", "rtmr2", "rtmr3", "mr_seam")
HOST_CHOSEN = ("mr_config_id", "mr_owner", "mr_owner_config")
"""Values that the host gives at the start: zero where a policy does not give them."""
_MASKS = ("td_attributes", "xfam")
_MISMATCH = "the policy names no such trust domain"
_ADD = "if this is the guest that you mean, put its value into the policy; otherwise something changed it"


@dataclass(frozen=True, kw_only=True)
class TrustDomain:
    """A trust domain that is accepted. Registers that are not given are not compared.

    Attributes:
        mr_td: MRTD, the initial contents (the firmware), 48 bytes.
        rtmr0: run-time register 0 (firmware configuration), 48 bytes; so are
        rtmr1: (the kernel),
        rtmr2: (command line and initial file system) and
        rtmr3: (the application's own).
        mr_seam: measurement of the TDX module, 48 bytes.
        mr_config_id: MRCONFIGID, 48 bytes. It and the next two are the host's choice, so they must be zero when not
            given.
        mr_owner: MROWNER, 48 bytes.
        mr_owner_config: MROWNERCONFIG, 48 bytes.
        td_attributes: bits that it must have or lack, beside those that none may lack or have.
        xfam: bits of XFAM that it must have or lack.

    Raises:
        InputError: a field is out of its bounds.
    """

    mr_td: bytes
    rtmr0: bytes | None = None
    rtmr1: bytes | None = None
    rtmr2: bytes | None = None
    rtmr3: bytes | None = None
    mr_seam: bytes | None = None
    mr_config_id: bytes | None = None
    mr_owner: bytes | None = None
    mr_owner_config: bytes | None = None
    td_attributes: Mask | None = None
    xfam: Mask | None = None

    def __post_init__(self) -> None:
        for name in ("mr_td", *_REGISTERS, *HOST_CHOSEN):
            expect_size(f"tdx.{name}", getattr(self, name), 48)
        for name in _MASKS:
            mask: Mask | None = getattr(self, name)
            if mask is not None:
                mask.expect_bits(f"tdx.{name}", 64)

    def checks(self, report: TdReport) -> Iterator[Check]:
        """One condition for each field that is given, and for those that must be zero when they are not."""
        for name in ("mr_td", *_REGISTERS, *HOST_CHOSEN):
            expected: bytes | None = getattr(self, name)
            found: bytes = getattr(report, name)
            if expected is not None:
                rule = f"{name}: {expected.hex()}"
                yield Check(
                    field=name, passed=found == expected, found=found.hex(), rule=rule, problem=_MISMATCH, remedy=_ADD
                )
            elif name in HOST_CHOSEN:
                yield Check(
                    field=name,
                    passed=not any(found),
                    found=found.hex(),
                    rule=f"{name} is zero where the policy does not give it",
                    problem="the trust domain was started with a value that its host chose",
                    remedy=f"start it without, or give {name} in the policy",
                )
        for name in _MASKS:
            mask: Mask | None = getattr(self, name)
            if mask is not None:
                yield mask.check(name, int.from_bytes(getattr(report, name), "little"), 64)

    def to_json_object(self) -> dict[str, Any]:
        """The trust domain as the policy file has it, absent fields left out."""
        values = {name: getattr(self, name) for name in ("mr_td", *_REGISTERS, *HOST_CHOSEN, *_MASKS)}
        return {
            name: value.to_json_object(64) if isinstance(value, Mask) else value.hex()
            for name, value in values.items()
            if value is not None
        }


def td_checks(report: TdReport) -> Iterator[Check]:
    """What is asked of every trust domain, whatever the policy says."""
    attributes = int.from_bytes(report.td_attributes, "little")
    yield Check(
        field="td_attributes",
        passed=bool(attributes & _SEPT_VE_DISABLE) and not attributes & ~(_SEPT_VE_DISABLE | _HARMLESS),
        found=f"{attributes:#018x}",
        rule="SEPT_VE_DISABLE set; profiling, SERVTD_EXT, MIGRATABLE, TPA and reserved bits clear",
        problem="the trust domain has attributes that let its host in, or another trust domain",
        remedy="start the trust domain with SEPT_VE_DISABLE, and without profiling or migration",
    )
    seam = report.mr_signer_seam + report.seam_attributes
    yield Check(
        field="mr_signer_seam",
        passed=not any(seam),
        found=seam.hex(),
        rule="MRSIGNERSEAM and SEAMATTRIBUTES are zero: the TDX module is Intel's",
        problem="the TDX module is not Intel's",
        remedy="use a machine with Intel's TDX module",
    )
    service = report.mr_service_td or bytes(48)
    yield Check(
        field="mr_service_td",
        passed=not any(service),
        found=service.hex(),
        rule="MRSERVICETD is zero",
        problem="a service TD is bound to the trust domain, and may change it",
        remedy="start the trust domain without a service TD",
    )
