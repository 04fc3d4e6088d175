"""Signed policies: who signed, who had to, and the decision that a policy takes the place of another.

A signature is Ed25519 (RFC 8032) over a domain and the policy's SHA-256, so it outlives any change of layout. The rule
is that of TUF's root (The Update Framework, "root rotation"): a policy needs the signatures that the policy in force
asks for, and those that it asks for itself; its serial is higher. Where a policy names no owners, the deployment's
owner alone signs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import InitVar, dataclass
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, ValidationError

from ensconce import strict_json
from ensconce.appraisal.policy import Owners, Policy
from ensconce.appraisal.policy_file import parse_policy
from ensconce.appraisal.policy_owners import MAX_OWNERS, key_name, public_key
from ensconce.appraisal.strict_yaml import MAX_BYTES
from ensconce.errors import InputError, IntegrityError, RefusedError
from ensconce.strict import StrictModel

__all__ = ["MAX_SIGNATURES_FILE", "AdmittedPolicy", "Authority", "Record", "SignedPolicy"]

_DOMAIN = b"ensconce/policy/1\x00"
_MINT = object()

MAX_SIGNATURES_FILE = 1 << 16
"""Longest file of signatures in bytes."""


class _SignatureEntry(StrictModel):
    key: Annotated[str, Field(pattern=r"^ed25519:[0-9a-f]{64}$")]
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


_Signatures = Annotated[tuple[_SignatureEntry, ...], Field(max_length=4 * MAX_OWNERS)]


class _SignaturesFile(StrictModel):
    version: Literal[1]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    signatures: _Signatures


class _Document(StrictModel):
    version: Literal[1]
    policy: Annotated[str, Field(max_length=MAX_BYTES)]
    signatures: _Signatures


@dataclass(frozen=True)
class SignedPolicy:
    """A policy's text, what it says, and the signatures that came with it, good or not.

    Attributes:
        text: the policy file, as it was signed or laid out anew since.
        policy: what it says.
        signatures: by the name of the key that each claims to be of; 64 bytes.
    """

    text: str
    policy: Policy
    signatures: tuple[tuple[str, bytes], ...] = ()

    @classmethod
    def parse(cls, text: bytes, name: str, signatures: bytes | None = None) -> SignedPolicy:
        """A policy file and the file of signatures beside it.

        Args:
            text: the policy file.
            name: what messages call it.
            signatures: the other file, None when there is none.

        Raises:
            InputError: the policy is wrong, as :func:`~ensconce.appraisal.policy_file.parse_policy` says;
                ``policy.signatures_file``: the other file is no such file, or is about another policy.
        """
        policy = parse_policy(text, name)
        if signatures is None:
            return cls(text.decode(), policy)
        try:
            file = _SignaturesFile.model_validate_json(json.dumps(strict_json.loads(signatures)))
        except (ValueError, ValidationError):
            raise InputError(
                "policy.signatures_file",
                f"{name}.signatures is no file of signatures",
                remedy="remove it, and sign the policy anew with `ensconce policy sign`",
            ) from None
        if file.sha256 != policy.sha256:
            raise InputError(
                "policy.signatures_file",
                f"{name}.signatures is about another policy: this one was changed after it was signed",
                found=file.sha256,
                rule=policy.sha256,
                remedy="have every owner sign it anew with `ensconce policy sign`",
            )
        return cls(text.decode(), policy, _unpacked(file.signatures))

    @classmethod
    def from_document(cls, document: bytes) -> SignedPolicy:
        """The policy in a document of the store, as :meth:`to_document` made it.

        Raises:
            IntegrityError: ``policy.document``: it is no such document.
        """
        try:
            value = _Document.model_validate_json(json.dumps(strict_json.loads(document)))
            policy = parse_policy(value.policy.encode(), "the stored policy")
        except (ValueError, InputError):
            raise IntegrityError(
                "policy.document",
                "the stored policy is damaged",
                remedy="apply the policy again with `ensconce policy apply`",
            ) from None
        return cls(value.policy, policy, _unpacked(value.signatures))

    @property
    def signers(self) -> tuple[str, ...]:
        """Names of the keys whose signature is good, each once, sorted."""
        return tuple(sorted({name for name, signature in self.signatures if self._is_good(name, signature)}))

    def signed_with(self, key: Ed25519PrivateKey) -> SignedPolicy:
        """This policy with the signature of one more key; one that the key gave before is replaced."""
        name = key_name(key.public_key())
        others = tuple((each, signature) for each, signature in self.signatures if each != name)
        return SignedPolicy(self.text, self.policy, (*others, (name, key.sign(self._message))))

    def signatures_file(self) -> bytes:
        """The file of signatures for beside the policy file: the good ones."""
        return _json({"version": 1, "sha256": self.policy.sha256, "signatures": self._packed()}, indent=2)

    def to_document(self) -> bytes:
        """Text and good signatures as one document of the store."""
        return _json({"version": 1, "policy": self.text, "signatures": self._packed()})

    @property
    def _message(self) -> bytes:
        return _DOMAIN + bytes.fromhex(self.policy.sha256)

    def _is_good(self, name: str, signature: bytes) -> bool:
        try:
            public_key(name).verify(signature, self._message)
        except (InputError, InvalidSignature, ValueError):
            return False
        return True

    def _packed(self) -> list[dict[str, str]]:
        good = {name: signature for name, signature in self.signatures if self._is_good(name, signature)}
        return [{"key": name, "signature": signature.hex()} for name, signature in sorted(good.items())]


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
class Record:
    """What the log says of a policy that was applied.

    Attributes:
        serial: its serial.
        sha256: its fingerprint, hexadecimal.
    """

    serial: int
    sha256: str


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

    def owners_of(self, policy: Policy) -> Owners:
        """Who must sign this policy and the one after it."""
        return policy.owners or Owners(required=1, keys=(self.owner,))

    def _signers(self, signed: SignedPolicy, deciding: Policy) -> set[str]:
        """The owners that one policy names and that have signed; refuses too few."""
        owners = self.owners_of(deciding)
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


def _unpacked(entries: Iterable[_SignatureEntry]) -> tuple[tuple[str, bytes], ...]:
    return tuple((entry.key, bytes.fromhex(entry.signature)) for entry in entries)


def _json(value: object, indent: int | None = None) -> bytes:
    return json.dumps(value, indent=indent).encode() + b"\n"
