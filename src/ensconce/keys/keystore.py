"""What every keystore promises, and the rules for ids, kinds and sizes that all of them share.

Key ids are paths: ``model/<name>/<version>`` (the 16-byte wrap key of one model version), ``ca/root``,
``signing/owner`` (Ed25519), ``signing/enclave`` (RSA-3072), ``tls/provisioning``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from ensconce.errors import InputError, RefusedError
from ensconce.times import utc_text

__all__ = [
    "KINDS",
    "MAX_KEY_ID",
    "MAX_SECRET",
    "WRAP_KEY_SIZE",
    "KeyEntry",
    "Keystore",
    "Kind",
    "check_new_key",
    "key_exists",
    "key_retired",
    "key_unknown",
]

Kind = Literal["wrap", "ed25519", "rsa", "ec", "secret"]
"""``wrap``: 16 raw bytes; ``ed25519``, ``rsa``, ``ec``: a private key, PKCS #8 DER; ``secret``: anything else."""

KINDS: tuple[Kind, ...] = get_args(Kind)
MAX_KEY_ID = 255
"""Longest key id, in characters."""
MAX_SECRET = 16 * 1024
"""Longest secret, in bytes; an RSA-16384 key fits."""
WRAP_KEY_SIZE = 16
"""Size of a wrap key in bytes: AES-128, as Gramine's encrypted files want it."""

_KEY_ID = re.compile(r"[a-z0-9][a-z0-9._-]*(?:/[a-z0-9][a-z0-9._-]*)*")


@dataclass(frozen=True)
class KeyEntry:
    """What may be told about a key; never the secret itself.

    Attributes:
        key_id: e.g. ``model/digits/1``.
        kind: what the secret is.
        created: when it was put, Unix time in seconds.
        retired: when it was retired, Unix time in seconds; None while it is live.
    """

    key_id: str
    kind: Kind
    created: int
    retired: int | None


class Keystore(Protocol):
    """Secrets by id. An id is used once: after ``retire`` its secret is gone and the id stays taken (invariant I7).

    Secrets are returned as ``bytes``. Python can neither zero them nor keep the garbage collector from having copied
    them; hold them for as short as possible.
    """

    def put(self, key_id: str, secret: bytes, *, kind: Kind) -> None:
        """Store a new secret durably before returning.

        Raises:
            InputError: ``key.id``, ``key.kind``, ``key.size``; ``key.exists`` when the id is taken, live or retired.
            IntegrityError: the keystore is damaged.
        """

    def get(self, key_id: str) -> bytes:
        """The secret of a live key.

        Raises:
            InputError: ``key.unknown``.
            RefusedError: ``key.retired``.
            IntegrityError: the keystore is damaged.
        """

    def retire(self, key_id: str) -> None:
        """Destroy the secret for good and keep the id taken; retiring a retired key changes nothing.

        Raises:
            InputError: ``key.unknown``.
            IntegrityError: the keystore is damaged.
        """

    def entries(self) -> tuple[KeyEntry, ...]:
        """Every key, live and retired, sorted by id.

        Raises:
            IntegrityError: the keystore is damaged.
        """


def check_new_key(key_id: str, secret: bytes | memoryview, kind: str) -> None:
    """Refuse an id, kind or size that no keystore accepts.

    Raises:
        InputError: ``key.id``, ``key.kind`` or ``key.size``.
    """
    if len(key_id) > MAX_KEY_ID or _KEY_ID.fullmatch(key_id) is None:
        raise InputError(
            "key.id",
            "this is not a key id",
            found=ascii(key_id[:MAX_KEY_ID]),
            rule=f"names of a-z 0-9 . _ - that begin with a letter or digit, joined by /, at most {MAX_KEY_ID} in all",
            remedy="use an id such as model/digits/1",
        )
    if kind not in KINDS:
        raise InputError("key.kind", "unknown kind of key", found=ascii(kind)[:64], rule=f"one of {', '.join(KINDS)}")
    size_is_right = len(secret) == WRAP_KEY_SIZE if kind == "wrap" else 0 < len(secret) <= MAX_SECRET
    if not size_is_right:
        raise InputError(
            "key.size",
            f"the secret for {key_id} has the wrong size",
            found=f"{len(secret)} bytes",
            rule=f"{WRAP_KEY_SIZE} bytes" if kind == "wrap" else f"1 to {MAX_SECRET} bytes",
        )


def key_exists(entry: KeyEntry) -> InputError:
    """The error for putting a key whose id is taken."""
    return InputError(
        "key.exists",
        f"the key id {entry.key_id} is taken",
        found="a live key" if entry.retired is None else "a retired key",
        rule="an id is used once and never again, so that an old ciphertext can never be opened by a new key",
        remedy="choose another id; for a model, the next version number",
    )


def key_unknown(key_id: str) -> InputError:
    """The error for a key that was never put."""
    return InputError(
        "key.unknown",
        "there is no such key",
        found=ascii(key_id[:MAX_KEY_ID]),
        remedy="check the id; a model's key is made when the model is sealed",
    )


def key_retired(entry: KeyEntry) -> RefusedError:
    """The error for asking for a key that was retired."""
    return RefusedError(
        "key.retired",
        f"the key {entry.key_id} was retired and its bytes were destroyed",
        found=f"retired at {utc_text(entry.retired)}" if entry.retired is not None else None,
        rule="a retired key opens nothing any more",
        remedy="use a live version of the model, or seal a new one",
    )
