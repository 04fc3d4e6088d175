from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ensconce.ratls.binding import channel_binding, sealing_binding

PARTS = {
    "nonce": bytes(range(32)),
    "exporter": bytes(range(32, 64)),
    "server_spki": b"server key",
    "client_spki": b"client key",
    "certificate_request": b"request",
}


def test_the_vector_of_the_reference() -> None:
    # docs/reference/wire-v2.md, section "Channel binding"
    assert channel_binding(**PARTS).hex() == VECTOR


def test_it_is_sha512_over_length_and_value_of_each_part() -> None:
    data = b"".join(struct.pack(">I", len(part)) + part for part in (b"ensconce/1 channel binding", *PARTS.values()))
    assert channel_binding(**PARTS) == hashlib.sha512(data).digest()


@pytest.mark.parametrize("name", PARTS)
def test_every_part_counts(name: str) -> None:
    changed = bytes([PARTS[name][0] ^ 1]) + PARTS[name][1:]
    assert channel_binding(**(PARTS | {name: changed})) != channel_binding(**PARTS)


@pytest.mark.parametrize(("name", "value"), [(n, b"") for n in PARTS] + [("nonce", b"x" * 31), ("exporter", b"x" * 33)])
def test_a_part_that_is_missing_is_a_bug(name: str, value: bytes) -> None:
    with pytest.raises(ValueError):
        channel_binding(**(PARTS | {name: value}))


texts = st.binary(min_size=1, max_size=20)


@given(st.tuples(texts, texts, texts), st.tuples(texts, texts, texts))
def test_no_two_splits_of_the_same_bytes_are_alike(
    one: tuple[bytes, bytes, bytes], other: tuple[bytes, bytes, bytes]
) -> None:
    assume(one != other)
    names = ("server_spki", "client_spki", "certificate_request")
    assert channel_binding(**(PARTS | dict(zip(names, one, strict=True)))) != channel_binding(
        **(PARTS | dict(zip(names, other, strict=True)))
    )


VECTOR = (
    "a29a2c2c03de057017fc4fc7f4525eec5f28a2480c1ec232414e4eb90e328624"
    "8848c81115f3dda3e00ff1f10113a08d9e719fd8d1872b317d08414c1cc020ff"
)


def test_the_binding_of_a_sealing_key_is_the_documents() -> None:
    """docs/reference/serving.md, "Sealed bodies"."""
    parts = (b"ensconce/1 fresh sealing key", bytes(64), b"k" * 32, b"spki")
    whole = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    assert sealing_binding(nonces=bytes(64), key=b"k" * 32, server_spki=b"spki") == hashlib.sha512(whole).digest()
