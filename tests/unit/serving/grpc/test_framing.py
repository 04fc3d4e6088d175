from __future__ import annotations

import gzip
from urllib.parse import unquote

import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from ensconce.serving.grpc.framing import read_prefix, read_timeout, unzip, unzipped_size, write_prefix
from ensconce.serving.grpc.status import trailers, trailers_only
from ensconce.tfserving.messages import POOL
from ensconce.tfserving.refusal import Code, RequestError


@given(st.binary(max_size=100))
def test_frames(message: bytes) -> None:
    data = write_prefix(len(message), 100) + message
    prefix = read_prefix(data, 100, encoding=b"")
    assert (prefix.is_compressed, prefix.length, data[5:]) == (False, len(message), message)
    with pytest.raises(RequestError):
        write_prefix(101 + len(message), 100)


@given(st.binary(max_size=300))
def test_gzip(message: bytes) -> None:
    data = gzip.compress(message)
    assert unzipped_size(data, 300) == len(message)
    assert unzip(data, len(message)) == message


@given(st.binary(max_size=100))
def test_what_is_no_gzip(data: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        unzip(data, unzipped_size(data, 10**6))
    assert caught.value.code is Code.INTERNAL


def test_a_bomb_is_stopped_at_the_bound() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    with pytest.raises(RequestError) as caught:
        unzipped_size(bomb, 1000)
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    for size in (0, 1000, 9_999_999, 10_000_001):
        with pytest.raises(RequestError) as caught:
            unzip(bomb[:-4] + size.to_bytes(4, "little"), size)
        assert caught.value.code is Code.INTERNAL


def test_a_size_that_cannot_be_is_no_claim_on_memory() -> None:
    with pytest.raises(RequestError) as caught:
        unzipped_size(gzip.compress(b"short")[:-4] + b"\xff\xff\xff\x07", 2**31)
    assert caught.value.code is Code.INTERNAL


@pytest.mark.parametrize(
    ("text", "seconds"), [(b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"99999999m", 99999.999), (b"5u", 5e-6), (b"0n", 0)]
)
def test_timeouts(text: bytes, seconds: float) -> None:
    assert read_timeout(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [b"", b"S", b"1", b"-1S", b"1.5S", b"123456789S", b"1s", "٣S".encode()])
def test_what_is_no_timeout(text: bytes) -> None:
    with pytest.raises(RequestError):
        read_timeout(text)


@given(st.text(max_size=1500))
def test_texts(text: str) -> None:
    fields = dict(Decoder().decode(trailers(Code.NOT_FOUND, text)))
    assert fields["grpc-status"] == "5"
    sent = fields.get("grpc-message", "")
    assert sent.isascii()
    assert sent.isprintable()
    whole = text.encode("utf-8", "replace").decode()
    assert unquote(sent) == (whole if len(text) <= 1024 else whole[:1024] + "...TRUNCATED")
    assert len(trailers_only(Code.NOT_FOUND, text)) < 1 << 14


@pytest.mark.parametrize("module", [health_pb2, reflection_pb2])
def test_our_descriptors_are_grpcs_own(module: object) -> None:
    theirs = module.DESCRIPTOR  # type: ignore[attr-defined]
    names = list(theirs.message_types_by_name)
    for package in {theirs.package, theirs.package.replace("v1alpha", "v1")}:
        for name in names:
            ours = POOL.FindMessageTypeByName(f"{package}.{name}")
            fields = theirs.message_types_by_name[name].fields
            assert [(f.name, f.number, f.type) for f in ours.fields] == [(f.name, f.number, f.type) for f in fields]
        for name, service in theirs.services_by_name.items():
            ours = POOL.FindServiceByName(f"{package}.{name}")
            assert [m.name for m in ours.methods] == [m.name for m in service.methods]
