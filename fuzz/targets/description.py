"""Model descriptions, which lie beside the ciphertext where anybody may change them, and the sealed list of files.

The first byte says what the rest is: a description in its envelope; its payload, signed here; or a list of files.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import random

from ensconce.encfile import encrypted_size
from ensconce.errors import IntegrityError
from ensconce.models.contents import contents_bytes, parse_contents
from ensconce.models.description import FileDescription, ModelDescription, parse_and_verify, sign
from fuzz import world
from fuzz.mutation import by_tree
from fuzz.target import Havoc, Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]

_ENVELOPE, _PAYLOAD = 0, 1
_PUBLIC = world.AUDIT_KEY.public_key()


def check(data: bytes) -> bool:
    """Read what the first byte says; see the module."""
    sort, rest = (data[0] if data else 0), data[1:]
    if sort > _PAYLOAD:
        return _check_contents(rest)
    envelope = rest if sort == _ENVELOPE else _signed(rest)
    description = attempt(lambda: parse_and_verify(envelope, _PUBLIC), IntegrityError)
    if isinstance(description, Refused):
        return False
    holds(sort == _PAYLOAD or description == _sound(), "a description that nobody signed")
    holds(parse_and_verify(sign(description, world.AUDIT_KEY), _PUBLIC) == description, "a round trip changes it")
    holds(all(not file.path.startswith("/") and ".." not in file.path.split("/") for file in description.files), "path")
    return True


def _check_contents(data: bytes) -> bool:
    files = attempt(lambda: parse_contents(data), IntegrityError)
    if isinstance(files, Refused):
        return False
    holds(parse_contents(contents_bytes(tuple(files))) == files, "a round trip changes the list")
    return True


def _signed(payload: bytes) -> bytes:
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "signature": base64.b64encode(world.AUDIT_KEY.sign(b"ensconce/model-description/1\x00" + payload)).decode(),
        "key_id": hashlib.sha256(_PUBLIC.public_bytes_raw()).hexdigest(),
    }
    return json.dumps(envelope).encode()


@functools.cache
def _sound() -> ModelDescription:
    files = tuple(
        FileDescription(path=path, size=size, encrypted_size=encrypted_size(size), fingerprint="ab" * 32)
        for path, size in (("assets/labels.txt", 0), ("model.bin", 100_000), ("model.xml", 3072))
    )
    return ModelDescription(
        name="digits", version=3, engine="openvino", files=files, key_id="model/digits/3", created=world.NOW
    )


def _mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    if not data or rng.random() < 0.05:
        return havoc(data)
    return data[:1] + _by_tree(data[1:], rng, havoc)


_by_tree = by_tree(json.loads, lambda tree: json.dumps(tree).encode())


def seeds() -> dict[str, bytes]:
    """One of each."""
    return {
        "good-envelope": b"\x00" + sign(_sound(), world.AUDIT_KEY),
        "good-payload": b"\x01" + json.dumps(_sound().to_json_object()).encode(),
        "good-contents": b"\x02" + contents_bytes(("model.xml", "model.bin", "signatures.json")),
    }


TARGET = Target("description", check, seeds, _mutate, max_size=8192)
