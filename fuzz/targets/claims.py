"""The CBOR of Interoperable RA-TLS: evidence and claims.

Oracle: a reader of all of definite-length CBOR (RFC 8949), written for this and sharing nothing with ours. What ours
accepts, it must read alike; what it reads as evidence in the shortest form, ours must accept.
"""

from __future__ import annotations

from typing import Any

from ensconce.errors import EvidenceError
from ensconce.evidence.claims import HASHES, Claims, encode_claims, encode_evidence, parse_claims, parse_evidence
from ensconce.evidence.quote import MAX_QUOTE_SIZE
from ensconce.evidence.spki import spki_of
from fuzz import world
from fuzz.mutation import by_parts
from fuzz.target import Refused, Target, attempt, holds

__all__ = ["TARGET", "check", "generic"]

_SIZES = {1: 32, 7: 48, 8: 64}


def check(data: bytes) -> bool:
    """Read evidence, and claims within it or alone."""
    evidence = attempt(lambda: parse_evidence(data), EvidenceError)
    seen = generic(data)
    if isinstance(evidence, Refused):
        shaped = isinstance(seen, tuple) and seen[0] == 60000 and _are_bytes(seen[1], 2)
        if shaped and len(seen[1][0]) <= MAX_QUOTE_SIZE and len(seen[1][1]) <= 1024:
            holds(encode_evidence(*seen[1]) != data, "evidence in its shortest form is refused")
        return not isinstance(_claims(data), Refused)
    holds(seen == (60000, list(evidence)), "another reader sees other evidence")
    holds(parse_evidence(encode_evidence(*evidence)) == evidence, "a round trip changes the evidence")
    return not isinstance(_claims(evidence[1]), Refused)


def _claims(data: bytes) -> Claims | Refused:
    claims = attempt(lambda: parse_claims(data), EvidenceError)
    if isinstance(claims, Refused):
        return claims
    holds(claims.encoded == data, "the claims that are hashed are not those that were read")
    seen = generic(data)
    holds(isinstance(seen, dict) and set(seen) <= {"pubkey-hash", "nonce"}, "another reader sees other claims")
    holds(
        generic(seen["pubkey-hash"]) == [claims.hash_algorithm, claims.pubkey_hash], "another reader sees another hash"
    )
    holds(seen.get("nonce") == claims.nonce, "another reader sees another nonce")
    holds(claims.hash_algorithm in HASHES and len(claims.pubkey_hash) == _SIZES[claims.hash_algorithm], "no such hash")
    return claims


def _are_bytes(value: object, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(isinstance(item, bytes) for item in value)


class _Not(Exception):  # noqa: N818  # it says what the data is, not what went wrong
    """Not definite-length CBOR."""


def generic(data: bytes) -> Any:
    """One item of CBOR: int, bytes, str, list, dict, or a tag as (number, value); None for anything else."""
    try:
        value, at = _item(data, 0, 0)
    except (_Not, IndexError, UnicodeDecodeError, TypeError):
        return None
    return value if at == len(data) else None


def _item(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    major, information = data[at] >> 5, data[at] & 31
    at += 1
    if information > 27 or depth > 8:
        raise _Not
    argument = information
    if information > 23:
        width = 1 << information - 24
        argument = int.from_bytes(data[at : at + width], "big")
        at += width
    if at > len(data):
        raise _Not
    if major in (0, 1):
        return (argument if major == 0 else -1 - argument), at
    if major in (2, 3):
        if argument > len(data) - at:
            raise _Not
        raw = data[at : at + argument]
        return (raw if major == 2 else raw.decode()), at + argument
    if major == 6:
        value, at = _item(data, at, depth + 1)
        return (argument, value), at
    if major == 7 or argument > len(data):
        raise _Not
    items = []
    for _ in range(argument * (major - 3)):
        value, at = _item(data, at, depth + 1)
        items.append(value)
    if major == 4:
        return items, at
    pairs = dict(zip(items[::2], items[1::2], strict=True))
    if len(pairs) != argument:
        raise _Not
    return pairs, at


def split(data: bytes) -> list[bytes] | None:
    """Quote and claims of evidence."""
    try:
        return list(parse_evidence(data))
    except EvidenceError:
        return None


def seeds() -> dict[str, bytes]:
    """Evidence as ours and as Gramine's writers make it, and claims alone, with every hash."""
    spki = spki_of(world.LEAF.public_key())
    claims, with_nonce = encode_claims(spki), encode_claims(spki, b"nonce" * 4)
    made = {
        "good-evidence": encode_evidence(b"quote" * 20, claims),
        "good-evidence-nonce": encode_evidence(b"", with_nonce),
        "good-claims": claims,
        "good-claims-nonce": with_nonce,
        # A length in two bytes where one would do: not the shortest form, and still CBOR.
        "good-claims-long-head": b"\xa1\x78\x0bpubkey-hash\x59\x00\x24\x82\x01\x58\x20" + bytes(32),
        "no-key-hash": b"\xa1\x65nonce\x41\x00",
        "twice": b"\xa2" + (b"\x6bpubkey-hash\x58\x24\x82\x01\x58\x20" + bytes(32)) * 2,
        "indefinite": b"\xbf\x6bpubkey-hash\x58\x24\x82\x01\x58\x20" + bytes(32) + b"\xff",
    }
    for algorithm, size in _SIZES.items():
        key_hash = b"\x82" + bytes([algorithm]) + b"\x58" + bytes([size]) + bytes(size)
        made[f"good-hash-{algorithm}"] = b"\xa1\x6bpubkey-hash\x58" + bytes([len(key_hash)]) + key_hash
    return made


TARGET = Target(
    "claims",
    check,
    seeds,
    by_parts(split, lambda parts: encode_evidence(*parts)),
    max_size=2048,
    words=(b"\xd9\xea\x60\x82", b"\x6bpubkey-hash", b"\x65nonce", b"\x58", b"\x59"),
)
