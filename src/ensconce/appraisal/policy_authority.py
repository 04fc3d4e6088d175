"""Which policies may be in force: the decision that one takes the place of another.

The rule is that of TUF's root (The Update Framework, "root rotation"): a policy needs the signatures that the policy in
force asks for, and those that it asks for itself; its serial is higher. Where a policy names no owners, the
deployment's owner alone signs.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass

from ensconce.appraisal.policy import Owners, Policy
from ensconce.appraisal.policy_signing import SignedPolicy
from ensconce.errors import RefusedError

__all__ = ["AdmittedPolicy", "Authority"]

_MINT = object()


@dataclass(frozen=True)
class AdmittedPolicy:
    """A policy that may be in force: signed by those who must. Only an :class:`Authority` makes it.

    Attributes:
        signed: the policy with its signatures.
        signers: names of the keys that signed it and that count.
    """

    mint: InitVar[object]
    signed: SignedPolicy
    signers: tuple[str, ...]

    def __post_init__(self, mint: object) -> None:
        if mint is not _MINT:
            raise TypeError("admitted policies come from Authority only")

    @property
    def policy(self) -> Policy:
        """What it says."""
        return self.signed.policy


@dataclass(frozen=True)
class Authority:
    """Decides which policies may be in force.

    Attributes:
        owner: name of the key of the deployment's owner, which signs where a policy names no owners.
        service: the service's domain; a policy that is for another is refused.
    """

    owner: str
    service: str

    def admit(self, signed: SignedPolicy, in_force: AdmittedPolicy | None) -> AdmittedPolicy:
        """Let a policy take the place of the one in force, or refuse it. The very one in force may be admitted again.

        Raises:
            RefusedError: ``policy.service``; ``policy.serial``: not higher than that of the policy in force;
                ``policy.signatures``: too few of those who must sign did.
        """
        policy = signed.policy
        other = in_force is not None and policy.sha256 != in_force.policy.sha256
        if in_force is not None and other and policy.serial <= in_force.policy.serial:
            raise RefusedError(
                "policy.serial",
                "the policy is not newer than the one in force",
                found=f"serial: {policy.serial}",
                rule=f"higher than {in_force.policy.serial}",
                remedy="raise the serial, and sign the policy anew",
            )
        if policy.service not in (None, self.service):
            raise RefusedError(
                "policy.service",
                "the policy is for another service",
                found=f"service: {policy.service}",
                rule=self.service,
                remedy="write and sign a policy for this service",
            )
        signers = self._signers(signed, policy)
        if in_force is not None:
            signers |= self._signers(signed, in_force.policy)
        return AdmittedPolicy(_MINT, signed, tuple(sorted(signers)))

    def _signers(self, signed: SignedPolicy, deciding: Policy) -> set[str]:
        """The owners that one policy names and that have signed; refuses too few."""
        owners = deciding.owners or Owners(required=1, keys=(self.owner,))
        present = set(signed.signers) & set(owners.keys)
        if owners.missing(present):
            whose = "the policy itself" if deciding is signed.policy else "the policy in force"
            names = "names no owners, so the deployment's owner signs" if deciding.owners is None else "says so"
            raise RefusedError(
                "policy.signatures",
                "too few owners have signed the policy",
                found=f"{len(present)} that count: {', '.join(sorted(present)) or 'none'}",
                rule=f"{owners.required} of {', '.join(owners.keys)} ({whose} {names})",
                remedy="have the others sign it with `ensconce policy sign`, then apply it again",
            )
        return present
