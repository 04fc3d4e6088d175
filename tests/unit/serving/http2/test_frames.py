from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.serving.http2 import frames
from ensconce.serving.http2.frames import ErrorCode, Http2Error, Setting

NUMBER = st.integers(0, (1 << 31) - 1)
FRAME = st.tuples(st.integers(0, 255), st.integers(0, 255), NUMBER, st.binary(max_size=300))


def written(frame: frames.Frame, reserved: int = 0) -> bytes:
    kind, flags, stream, payload = frame
    return len(payload).to_bytes(3) + bytes((kind, flags)) + (stream | reserved << 31).to_bytes(4) + payload


@given(st.lists(FRAME, max_size=6), st.integers(0, 1), st.binary(max_size=8))
def test_frames_are_read_as_they_were_written(sent: list[frames.Frame], reserved: int, rest: bytes) -> None:
    data = b"x" + b"".join(written(frame, reserved) for frame in sent)
    read, at = frames.read_frames(data + rest, 1, 300)
    assert read[: len(sent)] == sent
    assert at >= len(data)


@given(st.binary(max_size=200), st.integers(0, 50))
def test_any_bytes(data: bytes, longest: int) -> None:
    try:
        read, at = frames.read_frames(data, 0, longest)
    except Http2Error as error:
        assert error.code == ErrorCode.FRAME_SIZE_ERROR  # noqa: PT017  # some bytes are frames
        assert int.from_bytes(data[:3]) > longest
        return
    assert sum(9 + len(payload) for *_, payload in read) == at <= len(data)
    assert all(len(payload) <= longest for *_, payload in read)


def test_frames_before_one_that_is_too_long_are_given_first() -> None:
    data = written((6, 0, 0, bytes(8))) + written((0, 0, 1, bytes(20)))
    read, at = frames.read_frames(data, 0, 10)
    assert [frame[0] for frame in read] == [6]
    with pytest.raises(Http2Error):
        frames.read_frames(data, at, 10)


PART = st.tuples(
    st.sampled_from((0, 0, 0, 0, 0, 1)), st.sampled_from((0, 0, 0, 0, 1, 2, 8)), st.sampled_from((3, 3, 3, 5)),
    st.binary(max_size=30),
)  # fmt: skip


@given(st.lists(PART, max_size=8), st.integers(0, 20), st.sampled_from((bytes, memoryview)))
def test_a_body_is_what_its_frames_are(sent: list[frames.Frame], cut: int, kept: Callable[[bytes], Any]) -> None:
    data = b"".join(map(written, sent))
    data = data[: len(data) - cut]
    expected: list[frames.Frame] = []
    for kind, flags, stream, payload in frames.read_frames(data, 0, 30)[0]:
        if kind or flags & frames.PADDED or stream != 3 or not 0 < len(payload) <= 25:
            break
        expected.append((kind, flags, stream, payload))
        if flags & frames.END_STREAM:
            break
    parts, total, ended, at = frames.read_body(kept(data), 0, 25, 3)
    assert [bytes(part) for part in parts] == [payload for *_, payload in expected]
    assert total == sum(map(len, parts))
    assert at == total + 9 * len(parts)
    assert ended == bool(expected and expected[-1][1] & frames.END_STREAM)


def test_behind_a_long_frame_of_a_body_others_may_be_read_in_another_way() -> None:
    sent = [(1, 4, 1, bytes(200)), (0, 0, 1, bytes(99)), (0, 1, 1, bytes(100)), (0, 0, 3, bytes(100)), (6, 0, 0, b"")]
    data = b"".join(map(written, sent))
    read, at = frames.read_frames(data, 0, 200, long=100)
    assert read == sent[:4]
    assert frames.read_frames(data, at, 200, long=100) == (sent[4:], len(data))


@given(st.binary(max_size=300), st.integers(0, 255))
def test_padding(body: bytes, padding: int) -> None:
    assert frames.unpad(bytes((padding,)) + body + bytes(padding)) == body


@pytest.mark.parametrize("payload", [b"", b"\1", b"\5abc", b"\xff" * 255])
def test_more_padding_than_payload(payload: bytes) -> None:
    with pytest.raises(Http2Error):
        frames.unpad(payload)


@given(st.dictionaries(st.sampled_from(Setting), st.integers(0, 1), max_size=6))
def test_settings(values: dict[Setting, int]) -> None:
    values.pop(Setting.MAX_FRAME_SIZE, None)
    data = frames.settings(values)
    assert frames.read_settings(data[9:]) == values


def test_what_we_write() -> None:
    assert frames.settings_ack() == b"\0\0\0\4\1\0\0\0\0"
    assert frames.window_update(5, 258) == b"\0\0\4\x08\0\0\0\0\5\0\0\1\2"
    assert frames.reset_stream(3, ErrorCode.CANCEL) == b"\0\0\4\3\0\0\0\0\3\0\0\0\x08"
    assert frames.go_away(7, ErrorCode.NO_ERROR, "é") == b"\0\0\x09\7\0\0\0\0\0\0\0\0\7\0\0\0\0?"
    assert frames.ping(b"abcdefgh", ack=True) == b"\0\0\x08\6\1\0\0\0\0abcdefgh"
    assert frames.headers(1, b"\x88", frames.END_STREAM) == b"\0\0\1\1\5\0\0\0\1\x88"
    assert frames.data_header(1, 65537) == b"\1\0\1\0\0\0\0\0\1"
