"""Signed policies: the text, and who signed it; whether those had to is for :mod:`ensconce.appraisal.policy_authority`.

A signature is Ed25519 (RFC 8032) over a domain and the policy's SHA-256, so it outlives any change of layout.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, ValidationError

from ensconce import strict_json
from ensconce.appraisal.policy import Policy
from ensconce.appraisal.policy_file import parse_policy
from ensconce.appraisal.policy_owners import MAX_OWNERS, key_name, public_key
from ensconce.appraisal.strict_yaml import MAX_BYTES
from ensconce.errors import InputError, IntegrityError
from ensconce.strict import StrictModel

__all__ = ["MAX_SIGNATURES_FILE", "SignedPolicy"]

_DOMAIN = b"ensconce/policy/1\x00"

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


def _unpacked(entries: Iterable[_SignatureEntry]) -> tuple[tuple[str, bytes], ...]:
    return tuple((entry.key, bytes.fromhex(entry.signature)) for entry in entries)


def _json(value: object, indent: int | None = None) -> bytes:
    return json.dumps(value, indent=indent).encode() + b"\n"
