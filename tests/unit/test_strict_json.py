"""JSON with one meaning only."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.strict_json import loads

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(_values)
def test_reads_what_json_writes(value: object) -> None:
    assert loads(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": 1, "a": 1}',
        b'{"a": 1, "\\u0061": 2}',
        b'[{"b": {"a": 1, "a": 2}}]',
    ],
)
def test_refuses_a_member_that_is_there_twice(text: bytes) -> None:
    with pytest.raises(ValueError, match="twice"):
        loads(text)


@pytest.mark.parametrize("text", [b"NaN", b'{"a": Infinity}', b"[-Infinity]"])
def test_refuses_numbers_that_json_does_not_have(text: bytes) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        loads(text)


@pytest.mark.parametrize("text", [b"1e400", b'{"a": [-1e999]}', b"1" + b"0" * 400 + b".0"])
def test_refuses_numbers_beyond_a_double(text: bytes) -> None:
    with pytest.raises(ValueError, match="too large"):
        loads(text)


@pytest.mark.parametrize("text", [b"", b"{", b"1 2", b"\xff", b"\xef\xbb\xbf{}", "{}".encode("utf-16")])
def test_refuses_what_is_not_json_in_utf_8(text: bytes) -> None:
    with pytest.raises(ValueError):
        loads(text)


def test_refuses_what_is_nested_too_deeply() -> None:
    with pytest.raises(ValueError):
        loads(b"[" * 200_000)
