from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.appraisal.policy_identity import Form
from ensconce.errors import RefusedError, UnreachableError
from ensconce.provisioning.wire_v1 import MAX_TEXT, REQUEST, RESPONSE, check_request, encode_answer, to_form


def test_the_bytes_are_gramines() -> None:
    assert REQUEST.hex() == "5345435245545f50524f564953494f4e5f52415f544c535f524551554553545f563100"
    assert (len(REQUEST), len(RESPONSE)) == (35, 37)
    assert encode_answer(b"secret") == b"SECRET_PROVISION_RA_TLS_RESPONSE_V1:\x00\x00\x00\x00\x06secret"


def test_the_one_request_is_taken() -> None:
    check_request(REQUEST)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        REQUEST[:-1],
        REQUEST[:-1] + b"\n",
        REQUEST.lower(),
        b"SECRET_PROVISION_RA_TLS_REQUEST_V2\x00",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[:35],
    ],
)
def test_everything_else_is_refused(data: bytes) -> None:
    with pytest.raises(UnreachableError) as caught:
        check_request(data)
    assert caught.value.check == "provisioning.request"


def test_nothing_may_follow_the_request() -> None:
    with pytest.raises(UnreachableError, match="and 1 more bytes"):
        check_request(REQUEST, 1)


@given(st.binary(max_size=100).filter(lambda data: data != REQUEST))
def test_no_bytes_make_it_fail_otherwise(data: bytes) -> None:
    with pytest.raises(UnreachableError):
        check_request(data)


KEY = bytes(range(0xF0, 0x100))


@pytest.mark.parametrize(
    ("secret", "form", "expected"),
    [
        (KEY, "raw", KEY),
        (bytes(16), "raw", bytes(16)),
        (KEY, "hex", b"f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff\x00"),
        (b"a licence", "text", b"a licence\x00"),
        (b"x" * MAX_TEXT, "text", b"x" * MAX_TEXT + b"\x00"),
    ],
)
def test_forms(secret: bytes, form: Form, expected: bytes) -> None:
    assert to_form(secret, form) == expected


@pytest.mark.parametrize(
    ("secret", "form"),
    [
        (KEY + b"x", "raw"),
        (KEY[1:], "raw"),
        (b"", "raw"),
        (KEY[1:], "hex"),
        (KEY * 2, "hex"),
        (b"", "text"),
        (b"a\x00b", "text"),
        (b"a\x00", "text"),
        (b"x" * (MAX_TEXT + 1), "text"),
    ],
)
def test_what_the_library_would_drop_is_not_sent(secret: bytes, form: Form) -> None:
    with pytest.raises(RefusedError) as caught:
        to_form(secret, form)
    assert caught.value.check == "policy.wire_v1"


@given(st.binary(min_size=17, max_size=64), st.sampled_from(["raw", "hex"]))
def test_no_refusal_tells_the_secret(secret: bytes, form: Form) -> None:
    with pytest.raises(RefusedError) as caught:
        to_form(secret, form)
    assert caught.value.found == f"{len(secret)} bytes"
    assert secret.hex() not in str(caught.value)
