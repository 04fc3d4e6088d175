from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.client.target import Target
from ensconce.errors import InputError


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("127.0.0.1:8500", Target("127.0.0.1", 8500)),
        ("digits.example.test:1", Target("digits.example.test", 1)),
        ("[::1]:65535", Target("::1", 65535)),
    ],
)
def test_addresses(text: str, target: Target) -> None:
    assert Target.parse(text) == target
    assert str(target) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "host", "host:", ":1", "host:0", "host:65536", "host:-1", "host:1x", "host:١", "https://host"),
        *("::1:80", "[::1:80", "::1]:80", "[host]:80", "[]:80", "host:000080"),
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(InputError) as refused:
        Target.parse(text)
    assert refused.value.check == "target.format"


@given(st.text(max_size=30))
def test_fuzz(text: str) -> None:
    try:
        target = Target.parse(text)
    except InputError:
        return
    assert Target.parse(str(target)) == target
