"""The messages of wire v2: what is accepted says one thing, to us and to any other reader of JSON, and is bounded.

Oracle: Python's own JSON, with each member allowed once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ensconce.errors import EvidenceError, RefusedError, UnreachableError
from ensconce.provisioning import messages
from ensconce.provisioning.frames import MAX_FRAME
from ensconce.provisioning.messages import ErrorFields, Grant, ModelVersion, RefusedKey, Request
from fuzz import world
from fuzz.mutation import by_tree
from fuzz.target import Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]

_REFUSALS = (UnreachableError, EvidenceError, RefusedError)


def check(data: bytes) -> bool:
    """Read one message as each side would."""
    read = [
        _check(data, messages.parse_challenge, _REFUSALS),
        _check(data, messages.parse_request, (UnreachableError,)),
        _check(data, messages.parse_answer, _REFUSALS),
    ]
    holds(sum(read) <= 1, "two kinds of message in one")
    return any(read)


def _check(data: bytes, parse: Callable[[bytes], Any], kinds: tuple[Any, ...]) -> bool:
    message = attempt(lambda: parse(data), *kinds)
    if isinstance(message, Refused):
        return False
    value = json.loads(data)
    holds(value["type"] == message.type, "another type to another reader")
    written = message.model_dump_json(exclude_none=True).encode()
    # What was read in another spelling (blanks, escapes) may be longer when written; no more than that.
    holds(len(data) > MAX_FRAME or len(written) <= 6 * MAX_FRAME, "it grows without bound")
    again = parse(written)
    holds(again == message, "a round trip changes it")
    holds(_without_nulls(value) == _without_nulls(json.loads(written)), "another reader sees another message")
    return True


def _without_nulls(value: Any) -> Any:
    """The value without members that are null, or empty lists: they say as much as absent ones."""
    if isinstance(value, dict):
        return {name: _without_nulls(member) for name, member in value.items() if member not in (None, [])}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def seeds() -> dict[str, bytes]:
    """A message of every type."""
    error = ErrorFields(check="policy.mr_enclave", problem="the policy names no such enclave", found="11" * 32)
    made: dict[str, messages.Challenge | Request | Grant | messages.Refusal] = {
        "good-challenge": messages.Challenge(nonce=bytes(range(32))),
        "good-request": Request(
            quote=world.quote()[:600],
            certificate_request=world.request()[:300],
            models=(ModelVersion(name="digits", version=1), ModelVersion(name="digits", version=2)),
        ),
        "good-request-empty": Request(quote=b"q", certificate_request=b"r", models=()),
        "good-grant": Grant(
            secrets={"model/digits/1": bytes(range(16))},
            certificate_chain=world.VENDOR.root.pem,
            refused=(RefusedKey(key_id="model/digits/2", error=error),),
        ),
        "refusal": messages.Refusal(kind="policy", error=error),
    }
    return {name: messages.encode(message) for name, message in made.items()}


TARGET = Target(
    "messages",
    check,
    seeds,
    by_tree(json.loads, lambda tree: json.dumps(tree).encode()),
    words=(b'"type":', b'"\\ud800"', b"NaN", b"1e400", b'"nonce"', b'"quote"', b'"models"', b'"secrets"'),
)
