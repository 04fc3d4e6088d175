"""How the host's commands talk to the supervisor: one JSON request and one JSON answer over a Unix socket."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

from ensconce import strict_json
from ensconce.errors import EnsconceError, InputError, UnreachableError, restore
from ensconce.platform.simulated.wire import short_name

__all__ = ["INTERRUPTIONS", "MAX_MESSAGE", "ask", "connect", "listen", "read_message", "refusal", "take_lock"]

MAX_MESSAGE = 1 << 20

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)
"""Signals that undo a start."""

_SOCKET = "control.sock"
_TIMEOUT_S = 10.0


def take_lock(run: Path) -> int | None:
    """The lock that a supervisor holds for as long as its process lives; None if it is held.

    Returns:
        A file descriptor. The supervisor never closes it: the kernel does, when nothing of the process is left.
    """
    lock = os.open(run / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def listen(run: Path) -> socket.socket:
    """The supervisor's end; only the same user can connect."""
    (run / _SOCKET).unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with short_name(run / _SOCKET) as path:
        before = os.umask(0o177)
        try:
            server.bind(path)
        finally:
            os.umask(before)
    server.listen(16)
    return server


def connect(run: Path) -> socket.socket:
    """A connection to the supervisor of this folder.

    Raises:
        UnreachableError: no supervisor runs.
    """
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(_TIMEOUT_S)
    try:
        with short_name(run / _SOCKET) as path:
            client.connect(path)
    except OSError as error:
        client.close()
        raise UnreachableError(
            "host.supervisor", f"nothing runs in {run.parent}", remedy="start it with `ensconce up`"
        ) from error
    return client


def read_message(stream: socket.socket) -> dict[str, Any]:
    """One JSON object on a line of at most ``MAX_MESSAGE`` bytes.

    Raises:
        InputError: it is longer, cut short, or not an object.
    """
    data = b""
    while not data.endswith(b"\n"):
        part = stream.recv(65536)
        data += part
        if not part or len(data) > MAX_MESSAGE:
            raise InputError("host.control", "a control message was cut short or too long", found=f"{len(data)} bytes")
    message = strict_json.loads(data)
    if not isinstance(message, dict):
        raise InputError("host.control", "a control message must be a JSON object", found=type(message).__name__)
    return message


def ask(host: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Send ``request`` to the supervisor of the host's folder and return its answer.

    Raises:
        UnreachableError: no supervisor runs, or it does not answer.
        InputError: the supervisor refused the request.
    """
    with connect(host / "run") as stream:
        try:
            stream.sendall(json.dumps(request).encode() + b"\n")
            answer = read_message(stream)
        except (OSError, ValueError) as error:
            raise UnreachableError("host.supervisor", "the supervisor did not answer", found=str(error)) from error
    if "error" in answer:
        raise restore(answer["error"], answer.get("exit_status", InputError.exit_status))
    return answer


def refusal(error: EnsconceError) -> dict[str, Any]:
    """The answer that carries an error."""
    return {"error": error.fields(), "exit_status": error.exit_status}
