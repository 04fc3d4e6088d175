"""What a policy says of SGX enclaves beside their measurement: attributes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ensconce.appraisal.policy_check import Check
from ensconce.appraisal.policy_mask import Mask
from ensconce.errors import InputError
from ensconce.evidence.report import Attributes, SgxReport

__all__ = ["AttributeMasks", "sgx_checks"]

_BITS = {"flags": 64, "xfrm": 64, "misc_select": 32}

_REQUIRED = Attributes.INIT | Attributes.MODE64BIT
# DEBUG is judged apart, by name. The others change nothing that the measurement promises: control-flow enforcement, the
# exit notification, and key separation, whose host-chosen values must be zero (see _HOST_CHOSEN).
_HARMLESS = Attributes.DEBUG | Attributes.CET | Attributes.AEX_NOTIFY | Attributes.KSS
_HOST_CHOSEN = ("config_id", "config_svn", "isv_ext_prod_id", "isv_family_id")


@dataclass(frozen=True, kw_only=True)
class AttributeMasks:
    """Bits that an enclave must have or lack, beside those that none may lack or have.

    Attributes:
        flags: the 64 attribute flags.
        xfrm: the 64 bits of XFRM.
        misc_select: the 32 bits of MISCSELECT.

    Raises:
        InputError: no mask is given, or one has too many bits.
    """

    flags: Mask | None = None
    xfrm: Mask | None = None
    misc_select: Mask | None = None

    def __post_init__(self) -> None:
        if not any(getattr(self, name) for name in _BITS):
            raise InputError(
                "policy.attributes",
                "the attributes compare nothing",
                rule="at least one of flags, xfrm and misc_select",
                remedy="give one of them, or remove attributes:",
            )
        for name, bits in _BITS.items():
            mask: Mask | None = getattr(self, name)
            if mask is not None:
                mask.expect_bits(f"attributes.{name}", bits)

    def checks(self, report: SgxReport) -> Iterator[Check]:
        """One condition for each mask that is given."""
        found = {"flags": report.attributes.flags, "xfrm": report.attributes.xfrm, "misc_select": report.misc_select}
        for name, bits in _BITS.items():
            mask: Mask | None = getattr(self, name)
            if mask is not None:
                yield mask.check(f"attributes.{name}", found[name], bits)

    def to_json_object(self) -> dict[str, Any]:
        """The masks as the policy file has them, absent ones left out."""
        masks = {name: getattr(self, name) for name in _BITS}
        return {name: mask.to_json_object(_BITS[name]) for name, mask in masks.items() if mask is not None}


def sgx_checks(report: SgxReport) -> Iterator[Check]:
    """What is asked of every enclave, whatever the policy says."""
    flags = report.attributes.flags
    yield Check(
        field="attributes",
        passed=flags & _REQUIRED == _REQUIRED and not flags & ~(_REQUIRED | _HARMLESS),
        found=f"flags {flags:#018x}",
        rule="INIT and MODE64BIT set, PROVISION_KEY and EINITTOKEN_KEY clear, reserved bits zero",
        problem="the enclave has attributes that a server of models does not have",
        remedy="build the enclave without access to provisioning or launch keys",
    )
    chosen = [name for name in _HOST_CHOSEN if any(_as_bytes(getattr(report, name)))]
    yield Check(
        field="attributes",
        passed=not chosen,
        found=", ".join(chosen) or f"{', '.join(_HOST_CHOSEN)} zero",
        rule="config_id, config_svn, isv_ext_prod_id and isv_family_id are zero",
        problem="the enclave was started with values that its host chose and nobody measured",
        remedy="start the enclave without key separation and sharing (KSS)",
    )


def _as_bytes(value: bytes | int) -> bytes:
    return value.to_bytes(2, "little") if isinstance(value, int) else value
