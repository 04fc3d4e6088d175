"""The signed, public description of a sealed version: what it consists of, and which key opens it.

It lies beside the ciphertext as ``models/<name>/<version>.json`` and is for whoever stores, ships or audits it. Opening
a model does not depend on it: that binding is the version's own key and the path inside each file (invariant I7).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import json
from typing import Annotated, Literal, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field, ValidationError, model_validator

from ensconce.encfile import encrypted_size
from ensconce.errors import IntegrityError
from ensconce.models.importing.record import Origin
from ensconce.models.layout import MAX_ENTRIES, Engine, valid_file_path
from ensconce.servables import MAX_VERSION, MODEL_NAME, key_id
from ensconce.strict import StrictModel

__all__ = ["MAX_DESCRIPTION", "FileDescription", "ModelDescription", "parse_and_verify", "sign"]

MAX_DESCRIPTION = 8 * 1024 * 1024
"""Longest description in bytes, envelope and all."""
_DOMAIN = b"ensconce/model-description/1\x00"

# In these patterns (of Rust's regex, not Python's) $ is the very end of the text, never before a newline.
_Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Size = Annotated[int, Field(ge=0, lt=2**63)]


class FileDescription(StrictModel):
    """One encrypted file.

    Attributes:
        path: relative to the version's folder.
        size: bytes of plaintext.
        encrypted_size: bytes on disk.
        fingerprint: SHA-256 of the file's first 4096 bytes, which commit to all others; hexadecimal.
    """

    path: str
    size: _Size
    encrypted_size: _Size
    fingerprint: _Hex32

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not valid_file_path(self.path):
            raise ValueError("not a path of a file in a version")
        if self.encrypted_size != encrypted_size(self.size):
            raise ValueError("encrypted_size does not follow from size")
        return self


class ModelDescription(StrictModel):
    """One sealed version of one model.

    Attributes:
        format: version of this description.
        name: the model.
        version: its version.
        engine: which engine serves it.
        files: every encrypted file in the version's folder, sorted by path.
        key_id: the keystore's id of the key that opens them, ``model/<name>/<version>``.
        created: when it was sealed, Unix time in seconds.
        origin: what it was imported from, and how far from that it is; None when it was not imported.
    """

    format: Literal["ensconce-model-1"] = "ensconce-model-1"
    name: Annotated[str, Field(pattern=f"^{MODEL_NAME}$")]
    version: Annotated[int, Field(ge=1, le=MAX_VERSION)]
    engine: Engine
    files: Annotated[tuple[FileDescription, ...], Field(min_length=1, max_length=MAX_ENTRIES + 1)]
    key_id: str
    created: Annotated[int, Field(ge=0)]
    origin: Origin | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.key_id != key_id(self.name, self.version):
            raise ValueError("key_id is not that of this version")
        paths = [file.path for file in self.files]
        if any(earlier >= later for earlier, later in itertools.pairwise(paths)):
            raise ValueError("files are not sorted, or one is there twice")
        return self

    def to_json_object(self) -> dict[str, object]:
        """The description as JSON types; without ``origin`` where there is none, as it was before there were any."""
        return self.model_dump(mode="json", exclude={"origin"} if self.origin is None else None)


class _Envelope(StrictModel):
    payload: str
    signature: str
    key_id: str


def sign(description: ModelDescription, key: Ed25519PrivateKey) -> bytes:
    """The description in its envelope, as it is stored: ``payload`` and ``signature`` in base64, and ``key_id``."""
    payload = json.dumps(description.to_json_object(), sort_keys=True, separators=(",", ":")).encode()
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "signature": base64.b64encode(key.sign(_DOMAIN + payload)).decode(),
        "key_id": _signer_id(key.public_key()),
    }
    return json.dumps(envelope, indent=1).encode() + b"\n"


def parse_and_verify(data: bytes, public_key: Ed25519PublicKey) -> ModelDescription:
    """Verify the owner's signature, then parse strictly.

    The caller compares ``name`` and ``version`` with what was asked for: another version's description is just as
    genuine.

    Raises:
        IntegrityError: ``description.format`` (not a description), ``description.key`` (another key signed it),
            ``description.signature`` (changed).
    """
    if len(data) > MAX_DESCRIPTION:
        raise _bad("description.format", "the model's description is too large", f"{len(data)} bytes")
    try:
        envelope = _Envelope.model_validate_json(data)
        payload = base64.b64decode(envelope.payload, validate=True)
        signature = base64.b64decode(envelope.signature, validate=True)
    except (ValidationError, binascii.Error, ValueError) as error:
        raise _bad("description.format", "this is not a model's description", _first(error)) from error
    if envelope.key_id != _signer_id(public_key):
        raise _bad("description.key", "the model's description was signed by another key", ascii(envelope.key_id[:16]))
    try:
        public_key.verify(signature, _DOMAIN + payload)
    except InvalidSignature:
        raise _bad(
            "description.signature", "the model's description was changed: its signature is wrong", None
        ) from None
    try:
        return ModelDescription.model_validate_json(payload)
    except ValidationError as error:
        found = _first(error)
    # Not raised from pydantic's error: a cycle through one that holds an error of ours is never collected.
    raise _bad("description.format", "the model's description does not say what one says", found)


def _signer_id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def _first(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)[:200]
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return ascii(f"{where}: {first['msg']}" if where else first["msg"])[:200]


def _bad(check: str, problem: str, found: str | None) -> IntegrityError:
    return IntegrityError(
        check, problem, found=found, rule="docs/reference/sealed-model.md", remedy="fetch it from the owner again"
    )
