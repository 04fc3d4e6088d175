"""The daemon's protocol: frames of a 4-byte big-endian length and a JSON object, one answer to each request.

Light on purpose: the enclave's side imports it, and so it belongs to the trusted code base.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ensconce import strict_json
from ensconce.errors import InputError, UnreachableError, restore

__all__ = ["HEADER_SIZE", "MAX_FRAME", "ask", "body_size", "decode", "encode", "short_name"]

MAX_FRAME = 64 * 1024
"""Longest message, in bytes without its length."""

HEADER_SIZE = 4

_LENGTH = struct.Struct(">I")


def encode(message: Mapping[str, Any]) -> bytes:
    """One frame.

    Raises:
        InputError: the message is too long.
    """
    body = json.dumps(message, separators=(",", ":")).encode()
    _check_size(len(body))
    return _LENGTH.pack(len(body)) + body


def body_size(header: bytes) -> int:
    """How many bytes follow a frame's header.

    Raises:
        InputError: more than a message may have.
    """
    size: int = _LENGTH.unpack(header)[0]
    _check_size(size)
    return size


def decode(body: bytes) -> dict[str, Any]:
    """The object in a frame's body.

    Raises:
        InputError: it is not one JSON object in UTF-8, or names a field twice.
    """
    try:
        message = strict_json.loads(body)
    except ValueError as error:
        raise InputError("door.message", "a message is not JSON", found=str(error)[:100]) from error
    if not isinstance(message, dict):
        raise InputError("door.message", "a message is not a JSON object", found=type(message).__name__)
    return message


def ask(path: str, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """Send one request to the daemon and wait for its answer.

    Args:
        path: of the socket.
        request: the message.
        timeout: seconds without progress after which the daemon counts as gone.

    Raises:
        UnreachableError: nobody answers there, or not in this protocol.
        InputError: the request is too long.
        EnsconceError: what the daemon refused with.
    """
    frame = encode(request)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(timeout)
            stream.connect(path)
            stream.sendall(frame)
            answer = decode(_receive(stream, body_size(_receive(stream, HEADER_SIZE))))
    except (OSError, InputError) as error:
        raise _silent(str(error)) from error
    refusal = answer.get("error")
    if refusal is None:
        return answer
    status = answer.get("exit_status")
    # The enclave trusts the host with nothing, not even with the form of a refusal.
    if (
        not isinstance(refusal, dict)
        or not all(isinstance(v, str) for v in refusal.values())
        or type(status) is not int
    ):
        raise _silent("a refusal in an unknown form")
    raise restore(refusal, status)


@contextlib.contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A name for a socket that fits `sun_path` (108 bytes, unix(7)) however long the path of its folder is.

    Raises:
        OSError: there is no such folder.
    """
    handle = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{path.name}"
    finally:
        os.close(handle)


def _check_size(size: int) -> None:
    if size > MAX_FRAME:
        raise InputError(
            "door.frame", "a message is too long", found=f"{size} bytes", rule=f"at most {MAX_FRAME} bytes"
        )


def _silent(found: str) -> UnreachableError:
    return UnreachableError(
        "platform.daemon",
        "the simulated platform does not answer",
        found=found,
        remedy="check that its daemon runs (python -m ensconce.platform.simulated.daemon)",
    )


def _receive(stream: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = stream.recv(size - len(data))
        if not part:
            raise ConnectionError("the connection was closed in the middle of a message")
        data += part
    return bytes(data)
