"""The messages of wire v2: strict JSON objects, every length bounded, nothing in them believed yet.

Reference: ``docs/reference/wire-v2.md``, section "Messages".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Hashable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, ValidationError, model_validator

from ensconce import strict_json
from ensconce.errors import EnsconceError, EvidenceError, RefusedError, UnreachableError
from ensconce.evidence.quote import MAX_QUOTE_SIZE
from ensconce.provisioning.frames import MAX_FRAME
from ensconce.ratls.binding import NONCE_SIZE
from ensconce.servables import MAX_VERSION, MODEL_NAME, key_id, receivable
from ensconce.strict import StrictModel

__all__ = [
    "MAX_KEYS",
    "Challenge",
    "ErrorFields",
    "Grant",
    "Kind",
    "ModelVersion",
    "Refusal",
    "RefusedKey",
    "Request",
    "SecretId",
    "encode",
    "parse_answer",
    "parse_challenge",
    "parse_request",
]

MAX_KEYS = 64
"""Keys in one request, of models and others together."""

_MAX_COMMAS = 4 * MAX_KEYS  # a request for MAX_KEYS models has half as many
_MAX_REQUEST = 20 * 1024  # with a quote of the greatest length in it
_MAX_SECRET = 16 * 1024  # what a keystore keeps
_MAX_CHAIN = 32 * 1024
_MAX_TEXT = 256

Kind = Literal["evidence", "policy", "protocol", "unavailable"]
"""Why a request is refused: not genuine; genuine and not accepted; not this protocol; the server cannot decide."""


H = TypeVar("H", bound=Hashable)


def _decode(value: object) -> bytes:
    """Base64 as RFC 4648 section 4 has it: with padding, without blanks, and only the canonical spelling."""
    if isinstance(value, bytes):
        return value  # made here; JSON has no bytes
    if not isinstance(value, str):
        raise ValueError("base64 text")
    try:
        data = base64.b64decode(value.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("base64, RFC 4648 section 4") from None
    if base64.b64encode(data).decode() != value:
        raise ValueError("base64 in its canonical form")
    return data


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _unique(keys: tuple[H, ...]) -> tuple[H, ...]:
    if len(set(keys)) != len(keys):
        raise ValueError("each of them once")
    return keys


_SECRET_ID = f"secret/{MODEL_NAME}"

Base64 = Annotated[bytes, BeforeValidator(_decode), PlainSerializer(_encode)]
KeyId = Annotated[str, Field(pattern=f"^(?:{receivable(MODEL_NAME)}/[1-9][0-9]{{0,9}}|{_SECRET_ID})$")]
SecretId = Annotated[str, Field(pattern=f"^{_SECRET_ID}$")]
"""A key that is no model's."""


class Challenge(StrictModel):
    """Server to client, first: a nonce for one connection."""

    type: Literal["challenge"] = "challenge"
    nonce: Annotated[Base64, Field(min_length=NONCE_SIZE, max_length=NONCE_SIZE)]


class ModelVersion(StrictModel):
    """A version of a model whose key is asked for."""

    name: Annotated[str, Field(pattern=f"^{MODEL_NAME}$")]
    version: Annotated[int, Field(ge=1, le=MAX_VERSION)]

    @property
    def key_id(self) -> str:
        """Its key in the keystore."""
        return key_id(self.name, self.version)


class Request(StrictModel):
    """Client to server: fresh evidence, a request for a certificate, and which keys are wanted."""

    type: Literal["request"] = "request"
    quote: Annotated[Base64, Field(min_length=1, max_length=MAX_QUOTE_SIZE)]
    certificate_request: Annotated[Base64, Field(min_length=1, max_length=_MAX_REQUEST)]
    models: Annotated[tuple[ModelVersion, ...], Field(max_length=MAX_KEYS), AfterValidator(_unique)]
    secrets: Annotated[tuple[SecretId, ...], Field(max_length=MAX_KEYS), AfterValidator(_unique)] = ()

    @model_validator(mode="after")
    def _not_too_many(self) -> Request:
        if len(self.models) + len(self.secrets) > MAX_KEYS:
            raise ValueError(f"at most {MAX_KEYS} keys in all")
        return self

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Every key that is asked for: those of models, then others."""
        return (*(model.key_id for model in self.models), *self.secrets)


class ErrorFields(StrictModel):
    """An :class:`EnsconceError` on the wire."""

    check: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}(?:\.[a-z0-9_]{1,32}){0,4}$")]
    problem: Annotated[str, Field(max_length=_MAX_TEXT)]
    found: Annotated[str, Field(max_length=_MAX_TEXT)] | None = None
    rule: Annotated[str, Field(max_length=_MAX_TEXT)] | None = None
    remedy: Annotated[str, Field(max_length=_MAX_TEXT)] | None = None

    @classmethod
    def of(cls, error: EnsconceError) -> ErrorFields:
        """The fields of an error, each cut to what a message may hold."""
        fields = {name: _one_line(value) for name, value in error.fields().items()}
        return cls(**(fields | {"check": error.check}))

    def error(self, kind: Kind) -> EnsconceError:
        """The error again, on the other side."""
        raised = {"evidence": EvidenceError, "policy": RefusedError}.get(kind, UnreachableError)
        return raised(self.check, self.problem, found=self.found, rule=self.rule, remedy=self.remedy)


class RefusedKey(StrictModel):
    """A key that is not given although others are."""

    key_id: KeyId
    error: ErrorFields


class Grant(StrictModel):
    """Server to client: keys, and a certificate chain for the key in the certificate request."""

    type: Literal["grant"] = "grant"
    secrets: Annotated[
        dict[KeyId, Annotated[Base64, Field(min_length=1, max_length=_MAX_SECRET)]],
        Field(max_length=MAX_KEYS, repr=False),
    ]
    certificate_chain: Annotated[str, Field(min_length=1, max_length=_MAX_CHAIN)]
    refused: Annotated[tuple[RefusedKey, ...], Field(max_length=MAX_KEYS)] = ()


class Refusal(StrictModel):
    """Server to client: nothing is given, and why."""

    type: Literal["refusal"] = "refusal"
    kind: Kind
    error: ErrorFields


M = TypeVar("M", bound=StrictModel)


def encode(message: Challenge | Request | Grant | Refusal) -> bytes:
    """The message as it is framed: JSON, UTF-8, absent fields left out.

    Raises:
        ValueError: it does not fit into a frame.
    """
    # A field that is empty in most requests is left out: servers before it knew it refuse it.
    left_out = {"secrets"} if isinstance(message, Request) and not message.secrets else None
    data = message.model_dump_json(exclude_none=True, exclude=left_out).encode()
    if len(data) > MAX_FRAME:
        raise ValueError("the message does not fit into a frame")
    return data


def parse_challenge(data: bytes) -> Challenge:
    """Read the server's challenge, or the refusal that it sends instead.

    Raises:
        UnreachableError: ``provisioning.message``.
        EnsconceError: the refusal.
    """
    message = _parse(data, {"challenge": Challenge, "refusal": Refusal})
    if isinstance(message, Refusal):
        raise message.error.error(message.kind)
    return _expect(message, Challenge)


def parse_request(data: bytes) -> Request:
    """Read the client's request.

    Raises:
        UnreachableError: ``provisioning.message``.
    """
    kinds: dict[str, type[Any]] = {"request": Request}
    # Nothing in a request but its structure has commas. Before any parser: strangers could put 20,000 members into one,
    # and pydantic, which makes an error of each, would take a tenth of a second.
    if data.count(b",") > _MAX_COMMAS:
        raise _malformed(f"more than {_MAX_COMMAS} commas", kinds)
    return _expect(_parse(data, kinds), Request)


def parse_answer(data: bytes) -> Grant:
    """Read the server's answer, which is a grant.

    Raises:
        UnreachableError: ``provisioning.message``.
        EnsconceError: the refusal that it is instead.
    """
    message = _parse(data, {"grant": Grant, "refusal": Refusal})
    if isinstance(message, Refusal):
        raise message.error.error(message.kind)
    return _expect(message, Grant)


def _expect(message: StrictModel, kind: type[M]) -> M:
    assert isinstance(message, kind)
    return message


def _parse(data: bytes, kinds: dict[str, type[Any]]) -> StrictModel:
    try:
        value = strict_json.loads(data)
    except ValueError:
        raise _malformed("it is not a JSON object", kinds) from None
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise _malformed("it is of another type", kinds)
    try:
        message = kinds[kind].model_validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part)[:40] for part in first["loc"])
        found = f"{place}: {first['msg']}"[:200]
    else:
        assert isinstance(message, StrictModel)
        return message
    # Raised only here, so that nothing leads from it to pydantic's error: that one leads to frames that hold the
    # message, which may be a grant with secrets; and a cycle through it is never collected, so strangers could fill
    # the memory.
    raise _malformed(found, kinds)


def _malformed(found: str, kinds: dict[str, type[Any]]) -> UnreachableError:
    return UnreachableError(
        "provisioning.message",
        "the other side sent a message that is not of this protocol",
        found=found,
        rule=f"a message of type {' or '.join(kinds)}, docs/reference/wire-v2.md",
        remedy="check the versions of both sides",
    )


def _one_line(text: str) -> str:
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."
