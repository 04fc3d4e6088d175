"""Masks: some bits of a field must have a value, the others may have any."""

from __future__ import annotations

from dataclasses import dataclass

from ensconce.appraisal.policy_check import Check, invalid

__all__ = ["Mask"]


@dataclass(frozen=True, slots=True)
class Mask:
    """The bits under ``mask`` must be those of ``value``, as MASK and value of SIGSTRUCT mean it.

    Attributes:
        mask: bits that are compared, at least one.
        value: what they must be; no bit outside the mask.

    Raises:
        InputError: the mask compares nothing, or the value has a bit that is not compared.
    """

    mask: int
    value: int

    def __post_init__(self) -> None:
        if self.mask <= 0:
            raise invalid("mask", hex(self.mask), "at least one bit")
        if self.value < 0 or self.value & ~self.mask:
            raise invalid("value", hex(self.value), f"only bits of the mask, {self.mask:#x}")

    def expect_bits(self, field: str, bits: int) -> None:
        """Refuse a mask for a field that has fewer bits.

        Raises:
            InputError: ``policy.value``.
        """
        if self.mask >> bits:
            raise invalid(f"{field}: mask", hex(self.mask), f"{bits} bits")

    def check(self, field: str, found: int, bits: int) -> Check:
        """The condition that ``found`` is so under the mask."""
        digits = bits // 4
        return Check(
            field=field,
            passed=found & self.mask == self.value,
            found=f"0x{found:0{digits}x}",
            rule=f"{field}: {{mask: 0x{self.mask:0{digits}x}, value: 0x{self.value:0{digits}x}}}",
            problem="the attributes are not those that the policy names",
            remedy="build and start it with these attributes, or change the mask in the policy",
        )

    def to_json_object(self, bits: int) -> dict[str, str]:
        """Mask and value as the policy file has them."""
        digits = bits // 4
        return {"mask": f"0x{self.mask:0{digits}x}", "value": f"0x{self.value:0{digits}x}"}
