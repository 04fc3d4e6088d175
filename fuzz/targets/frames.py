"""What comes first on a provisioning connection: a frame of wire v2, or the request of wire v1.

A frame is read by as many bytes as it says and no more, none of them when it says too much; both readers, plain and on
an event loop, read alike. Of wire v1 there is one request.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from ensconce.appraisal.policy_identity import Form
from ensconce.errors import RefusedError, UnreachableError
from ensconce.provisioning.frames import MAX_FRAME, read_frame, read_frame_async, write_frame
from ensconce.provisioning.wire_v1 import KEY_SIZE, MAX_TEXT, REQUEST, check_request, encode_answer, to_form
from fuzz.target import Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]

_FORMS: tuple[Form, ...] = ("raw", "hex", "text")


class _Stream:
    """A peer that sent these bytes and nothing more, and keeps what is sent to it."""

    def __init__(self, data: bytes) -> None:
        self.left = data
        self.sent = b""

    def read(self, size: int) -> bytes:
        if size > len(self.left):
            raise UnreachableError("fuzz.end", "the other side is gone")
        part, self.left = self.left[:size], self.left[size:]
        return part

    def write(self, data: bytes) -> None:
        self.sent += data


class _AsyncStream(_Stream):
    """The same for an event loop, which never has to wait."""

    async def read(self, size: int) -> bytes:  # type: ignore[override]  # that is the difference
        return super().read(size)


def check(data: bytes) -> bool:
    """Read a frame, a request of wire v1, and a secret in each form of wire v1."""
    return any([_check_frame(data), _check_request(data), _check_secret(data)])


def _check_frame(data: bytes) -> bool:
    plain, waiting = _Stream(data), _AsyncStream(data)
    message = attempt(lambda: read_frame(plain), UnreachableError)
    other = attempt(lambda: _finish(read_frame_async(waiting)), UnreachableError)  # type: ignore[arg-type]
    holds(plain.left == waiting.left, "the two readers read other amounts")
    if isinstance(message, Refused):
        holds(isinstance(other, Refused), "the two readers disagree")
        # Refused for its length, or for its end: in neither case is anything behind the length taken.
        holds(len(data) < 4 or plain.left == data[4:], "a frame that is refused was read")
        return False
    holds(message == other and 0 < len(message) <= MAX_FRAME, "another message, or one of such a length")
    written = _Stream(b"")
    write_frame(written, message)
    holds(written.sent + plain.left == data, "written again it differs")
    return True


def _check_request(data: bytes) -> bool:
    size = len(REQUEST)
    answer = attempt(lambda: check_request(data[:size], max(len(data) - size, 0)), UnreachableError)
    holds(isinstance(answer, Refused) == (data != REQUEST), "another request than the one that there is")
    return data == REQUEST


def _check_secret(secret: bytes) -> bool:
    given = [attempt(lambda: to_form(secret, form), RefusedError) for form in _FORMS]  # noqa: B023  # called at once
    raw, digits, text = given
    holds(isinstance(raw, Refused) == (len(secret) != KEY_SIZE), "a key of another size")
    if not isinstance(raw, Refused) and not isinstance(digits, Refused):
        holds(raw == secret and bytes.fromhex(digits[:-1].decode()) == secret and digits[-1:] == b"\0", "another key")
    if not isinstance(text, Refused):
        # The library reads up to the first NUL.
        holds(text.split(b"\0")[0] == secret and len(text) <= MAX_TEXT + 1, "another text")
        holds(encode_answer(text)[-len(text) - 4 :] == len(text).to_bytes(4, "big") + text, "another length")
    return not all(isinstance(each, Refused) for each in given)


def _finish(reading: Coroutine[Any, Any, bytes]) -> bytes:
    """The result of a coroutine that never waits."""
    try:
        reading.send(None)
    except StopIteration as done:
        value: bytes = done.value
        return value
    raise AssertionError("it waits")


def seeds() -> dict[str, bytes]:
    """A frame, requests, and lengths at the bounds."""
    return {
        "good-frame": b"\0\0\0\x02{}and more",
        "good-request-v1": REQUEST,
        "good-key": bytes(range(1, 17)),
        "empty": b"\0\0\0\0",
        "too-long": (MAX_FRAME + 1).to_bytes(4, "big") + b"x",
        "cut-off": b"\0\0\0\x09{}\0",
    }


TARGET = Target("frames", check, seeds, max_size=5000, words=(REQUEST, b"\0\1\0\0", b"\0\1\0\1"))
