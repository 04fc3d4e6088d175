from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.errors import EnsconceError, EvidenceError, InputError, RefusedError, UnreachableError
from ensconce.provisioning.frames import MAX_FRAME, read_frame, write_frame
from ensconce.provisioning.messages import (
    Challenge,
    ErrorFields,
    Grant,
    ModelVersion,
    Refusal,
    RefusedKey,
    Request,
    encode,
    parse_answer,
    parse_challenge,
    parse_request,
)

names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)
models = st.builds(ModelVersion, name=names, version=st.integers(1, 2**31 - 1))
texts = st.text(max_size=300)
errors = st.builds(
    lambda found, rule: ErrorFields.of(RefusedError("key.retired", "gone", found=found, rule=rule)),
    st.none() | texts,
    st.none() | texts,
)
requests = st.builds(
    Request,
    quote=st.binary(min_size=1, max_size=6000),
    certificate_request=st.binary(min_size=1, max_size=6000),
    models=st.lists(models, max_size=32, unique=True).map(tuple),
)
grants = st.builds(
    Grant,
    secrets=st.dictionaries(models.map(lambda m: m.key_id), st.binary(min_size=1, max_size=256), max_size=4),
    certificate_chain=st.text(min_size=1, max_size=100),
    refused=st.lists(st.builds(RefusedKey, key_id=models.map(lambda m: m.key_id), error=errors), max_size=3).map(tuple),
)


@given(st.binary(min_size=32, max_size=32))
def test_challenges_survive_the_wire(nonce: bytes) -> None:
    assert parse_challenge(encode(Challenge(nonce=nonce))).nonce == nonce


@given(requests)
def test_requests_survive_the_wire(request: Request) -> None:
    assert parse_request(encode(request)) == request


@given(grants)
def test_grants_survive_the_wire(grant: Grant) -> None:
    assert parse_answer(encode(grant)) == grant


@given(st.sampled_from(["evidence", "policy", "protocol", "unavailable"]), errors)
def test_refusals_survive_the_wire(kind: Any, error: ErrorFields) -> None:
    with pytest.raises(EnsconceError) as caught:
        parse_answer(encode(Refusal(kind=kind, error=error)))
    assert ErrorFields.of(caught.value) == error
    expected = {"evidence": EvidenceError, "policy": RefusedError}.get(kind, UnreachableError)
    assert type(caught.value) is expected


@given(st.binary(max_size=300) | st.text('{}[]":,typenoc0123 \\u', max_size=80).map(str.encode))
def test_whatever_else_comes_is_refused(data: bytes) -> None:
    for parse in (parse_challenge, parse_request, parse_answer):
        with pytest.raises(UnreachableError) as caught:
            parse(data)
        assert caught.value.check == "provisioning.message"


def test_the_examples_of_the_reference() -> None:
    challenge = b'{"type":"challenge","nonce":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}'
    assert encode(parse_challenge(challenge)) == challenge
    request = b'{"type":"request","quote":"AwAC","certificate_request":"MIIB","models":[{"name":"digits","version":1}]}'
    assert encode(parse_request(request)) == request


def test_texts_are_cut_to_one_printable_line() -> None:
    fields = ErrorFields.of(InputError("a.b", "line\none\x00" + "x" * 400, found="ü" * 257))
    assert fields.problem.startswith("line one ")
    assert len(fields.problem) == 256
    assert (len(fields.found or ""), (fields.found or "")[-3:]) == (256, "...")


def test_secrets_show_in_no_representation_and_no_error() -> None:
    grant = Grant(secrets={"model/a/1": b"0123456789abcdef"}, certificate_chain="x")
    assert "0123456789" not in repr(grant) + str(grant)
    message = json.loads(encode(grant)) | {"surplus": "c3VycGx1cw=="}
    with pytest.raises(UnreachableError) as caught:
        parse_answer(json.dumps(message).encode())
    assert "MDEyMzQ1" not in str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is None


def test_the_greatest_request_fits_into_a_frame() -> None:
    request = Request(
        quote=b"q" * 16384,
        certificate_request=b"c" * 20 * 1024,
        models=tuple(ModelVersion(name="n" * 63, version=2**31 - 1 - i) for i in range(64)),
    )
    assert len(encode(request)) <= MAX_FRAME


class Memory:
    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    def read(self, size: int) -> bytes:
        if size > len(self.data):
            raise UnreachableError("tls.closed", "closed")
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def write(self, data: bytes) -> None:
        self.data += data


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=5))
def test_frames_keep_messages_apart(messages: list[bytes]) -> None:
    stream = Memory()
    for message in messages:
        write_frame(stream, message)
    assert [read_frame(stream) for _ in messages] == messages
    assert stream.data == b""


@given(st.binary(max_size=50))
def test_any_bytes_are_a_frame_or_refused(data: bytes) -> None:
    size = int.from_bytes(data[:4], "big")
    if len(data) >= 4 and 0 < size <= len(data) - 4:
        assert read_frame(Memory(data)) == data[4 : 4 + size]
    else:
        with pytest.raises(UnreachableError):
            read_frame(Memory(data))


def test_the_length_of_a_frame_is_bounded_on_both_sides() -> None:
    largest = b"x" * MAX_FRAME
    stream = Memory()
    write_frame(stream, largest)
    assert stream.data[:4] == b"\x00\x01\x00\x00"
    assert read_frame(stream) == largest
    for size in (0, MAX_FRAME + 1):
        with pytest.raises(UnreachableError):
            read_frame(Memory(size.to_bytes(4, "big") + b"x" * size))
        with pytest.raises(ValueError):
            write_frame(stream, b"x" * size)


def test_a_refusal_leads_to_no_error_that_holds_the_message() -> None:
    # pydantic's error holds frames that hold the message, and a cycle through it is never collected.
    with pytest.raises(UnreachableError) as refused:
        parse_request(b'{"type": "request", "quote": "=", "certificate_request": "AA==", "models": []}')
    assert refused.value.__context__ is None
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "members",
    [
        b'"models":[' + b",".join([b"{}"] * 20_000) + b"]",
        b'"models":[' + b",".join([b"1e0"] * 15_000) + b"]",
        b",".join(b'"%x":1' % number for number in range(7_000)),
        b'"models":[{' + b",".join(b'"%x":1' % number for number in range(7_000)) + b"}]",
    ],
)
def test_a_request_with_thousands_of_members_costs_next_to_nothing(members: bytes) -> None:
    data = b'{"type":"request",' + members + b"}"
    assert len(data) <= MAX_FRAME
    began = time.process_time()
    for _ in range(10):
        with pytest.raises(UnreachableError) as caught:
            parse_request(data)
    # It took 0.4 s for the first of them: one address could keep a server busy.
    assert time.process_time() - began < 0.05
    assert caught.value.check == "provisioning.message"
