"""Frames: the nine bytes before each, and the few that we write (RFC 9113, sections 4 and 6).

A frame that was read is a tuple (type, flags, stream, payload), and not an object: there are three for every request.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final

from ensconce.errors import EnsconceError

__all__ = [
    "ACK",
    "END_HEADERS",
    "END_STREAM",
    "HEADER_SIZE",
    "LARGEST_FRAME",
    "LARGEST_WINDOW",
    "PADDED",
    "PREFACE",
    "PRIORITY_FLAG",
    "SMALLEST_FRAME",
    "ErrorCode",
    "Frame",
    "Http2Error",
    "Setting",
    "Type",
    "data_header",
    "go_away",
    "headers",
    "ping",
    "read_body",
    "read_frames",
    "read_settings",
    "reset_stream",
    "settings",
    "settings_ack",
    "unpad",
    "window_update",
]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_SIZE: Final = 9
SMALLEST_FRAME: Final = 1 << 14
"""Least that may be chosen for SETTINGS_MAX_FRAME_SIZE, and what holds before anything is chosen."""
LARGEST_FRAME: Final = (1 << 24) - 1
LARGEST_WINDOW: Final = (1 << 31) - 1

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20

Frame = tuple[int, int, int, Any]
"""Type, flags, stream, payload: bytes; for DATA what was read from, sliced."""

_HEADER: Final = struct.Struct(">HBBBL")
_SETTING: Final = struct.Struct(">HL")
_STREAM_MASK: Final = 0x7FFFFFFF


class Type(IntEnum):
    """Types of frames (section 6)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Setting(IntEnum):
    """Settings (section 6.5.2)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ErrorCode(IntEnum):
    """Why a stream or a connection ends (section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Http2Error(EnsconceError):
    """The peer broke a rule, or our patience, so that the connection must end (section 5.4.1)."""

    exit_status = 1

    def __init__(self, code: ErrorCode, problem: str) -> None:
        super().__init__(f"http2.{code.name.lower()}", problem)
        self.code = code


def read_frames(
    data: bytes | memoryview, at: int, longest: int, *, long: int = LARGEST_FRAME + 1
) -> tuple[list[Frame], int]:
    """Whole frames at the beginning of what has arrived, and where the first one begins that was not read.

    Args:
        data: what has arrived; the payloads of DATA are views of it where it is one.
        at: where the first frame begins.
        longest: most bytes of a payload; frames before one that says more are given first.
        long: stop behind a frame of DATA, without flags, of at least so many bytes: the next are likely to be of the
            same body, which :func:`read_body` reads quicker.

    Raises:
        Http2Error: FRAME_SIZE_ERROR: the first frame says that it is longer.
    """
    frames: list[Frame] = []
    size = len(data)
    while size - at >= HEADER_SIZE:
        high, low, kind, flags, stream = _HEADER.unpack_from(data, at)
        length = high << 8 | low
        if length > longest:
            if frames:
                break
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes, where {longest} are allowed")
        start = at + HEADER_SIZE
        end = start + length
        if end > size:
            break
        payload = data[start:end]
        frames.append((kind, flags, stream & _STREAM_MASK, bytes(payload) if kind else payload))
        at = end
        if length >= long and not kind and not flags:
            break
    return frames, at


def read_body(data: bytes | memoryview, at: int, longest: int, number: int) -> tuple[list[Any], int, bool, int]:
    """Whole frames of DATA of one stream, one upon the other; anything else about them is :func:`read_frames`'s.

    An image comes in 37 frames; to judge each by itself took a tenth of the time that the event loop has for it.

    Args:
        data: what has arrived.
        at: where the first frame begins.
        longest: most bytes of a payload.
        number: the stream's.

    Returns:
        the payloads, as slices of ``data``; the bytes in them; whether the last one ends the stream; and where the
        first frame begins that is not whole, padded, empty, longer than allowed, of another type or another stream.
    """
    parts: list[Any] = []
    total, size, unpack = 0, len(data), _HEADER.unpack_from
    while size - at >= HEADER_SIZE:
        high, low, kind, flags, stream = unpack(data, at)
        length = high << 8 | low
        end = at + HEADER_SIZE + length
        if kind or end > size or stream & _STREAM_MASK != number or flags & PADDED or not 0 < length <= longest:
            break
        parts.append(data[at + HEADER_SIZE : end])
        total += length
        at = end
        if flags & END_STREAM:
            return parts, total, True, at
    return parts, total, False, at


def unpad(payload: bytes | memoryview) -> Any:
    """The payload of a frame with the PADDED flag, without its padding (section 6.1).

    Raises:
        Http2Error: PROTOCOL_ERROR: there is more padding than payload; FRAME_SIZE_ERROR: there is no payload.
    """
    if not payload:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without a length of its padding")
    padding = payload[0]
    if padding >= len(payload):
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a frame has more padding than payload")
    return payload[1 : len(payload) - padding]


def read_settings(payload: bytes) -> dict[int, int]:
    """The settings in a SETTINGS frame, unknown ones too; the last of each counts (section 6.5).

    Raises:
        Http2Error: a value is not allowed, or the frame is cut off.
    """
    if len(payload) % _SETTING.size:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "a SETTINGS frame is cut off")
    values = dict(_SETTING.iter_unpack(payload))
    if values.get(Setting.ENABLE_PUSH, 0) > 1:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
    if values.get(Setting.INITIAL_WINDOW_SIZE, 0) > LARGEST_WINDOW:
        raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large")
    if not SMALLEST_FRAME <= values.get(Setting.MAX_FRAME_SIZE, SMALLEST_FRAME) <= LARGEST_FRAME:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of bounds")
    return values


def _header(kind: int, flags: int, stream: int, length: int) -> bytes:
    return _HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream)


def data_header(stream: int, length: int, flags: int = 0) -> bytes:
    """What comes before ``length`` bytes of DATA."""
    return _HEADER.pack(length >> 8, length & 0xFF, 0, flags, stream)


def headers(stream: int, block: bytes, flags: int = 0) -> bytes:
    """A whole header block of at most SMALLEST_FRAME bytes, which every peer takes in one frame."""
    length = len(block)
    return _HEADER.pack(length >> 8, length & 0xFF, 1, flags | END_HEADERS, stream) + block


def settings(values: Mapping[Setting, int]) -> bytes:
    """Our settings."""
    payload = b"".join(_SETTING.pack(name, value) for name, value in values.items())
    return _header(Type.SETTINGS, 0, 0, len(payload)) + payload


def settings_ack() -> bytes:
    """The peer's settings are in force."""
    return _header(Type.SETTINGS, ACK, 0, 0)


def ping(payload: bytes, *, ack: bool) -> bytes:
    """A PING with eight bytes, or the answer to one."""
    return _header(Type.PING, ACK if ack else 0, 0, 8) + payload


def window_update(stream: int, increment: int) -> bytes:
    """The peer may send ``increment`` bytes more on the stream, or (0) on the connection."""
    return _header(Type.WINDOW_UPDATE, 0, stream, 4) + increment.to_bytes(4)


def reset_stream(stream: int, code: ErrorCode) -> bytes:
    """The stream ends here."""
    return _header(Type.RST_STREAM, 0, stream, 4) + code.to_bytes(4)


def go_away(last_stream: int, code: ErrorCode, text: str = "") -> bytes:
    """Streams after ``last_stream`` are not answered; the connection ends when the others are."""
    payload = last_stream.to_bytes(4) + code.to_bytes(4) + text.encode("ascii", "replace")[:128]
    return _header(Type.GOAWAY, 0, 0, len(payload)) + payload
