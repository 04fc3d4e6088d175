"""The daemon's beginning and end: one daemon to a socket, a socket that is there when it works, a parent to follow."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from ensconce.errors import InputError
from ensconce.platform.simulated.wire import short_name

__all__ = ["listening", "publish", "sole_user", "watching"]


@contextlib.contextmanager
def watching(parent: int, gone: Callable[[], None]) -> Iterator[None]:
    """Call ``gone`` when process ``parent`` ends; at once when it has ended already."""
    loop = asyncio.get_running_loop()
    try:
        handle = os.pidfd_open(parent)
    except ProcessLookupError:
        gone()
        yield
        return
    try:
        if os.getppid() != parent:
            gone()
        loop.add_reader(handle, gone)
        yield
    finally:
        loop.remove_reader(handle)
        os.close(handle)


@contextlib.contextmanager
def sole_user(path: Path) -> Iterator[None]:
    """Hold a lock beside the socket, so that two daemons never share one.

    Raises:
        InputError: another daemon holds it, or the folder cannot be written.
    """
    lock = path.with_name(f".{path.name}.lock")
    while True:
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InputError(
                "daemon.socket", f"cannot listen at {path}: {error.strerror}", remedy="check the folder"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise InputError(
                "daemon.running", f"a simulated platform runs at {path} already", remedy="use it, or end it"
            ) from error
        # A daemon that ended may have removed the file between the two steps; then the lock is on nothing.
        with contextlib.suppress(FileNotFoundError):
            if os.stat(lock).st_ino == os.fstat(handle).st_ino:  # noqa: PTH116 - beside fstat
                break
        os.close(handle)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A listening socket that only this user can connect to, under a name of its own until it is published."""
    aside = _aside(path)
    aside.unlink(missing_ok=True)
    with contextlib.ExitStack() as stack:
        for leftover in (path, aside):
            stack.callback(leftover.unlink, missing_ok=True)
        server = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        # The name stays good for as long as the socket: asyncio looks it up again, from Python 3.13 on.
        name = stack.enter_context(short_name(aside))
        before = os.umask(0o177)
        try:
            server.bind(name)
        finally:
            os.umask(before)
        server.listen(128)
        yield server


def publish(path: Path) -> None:
    """Give the socket its name: whoever sees it can connect."""
    _aside(path).rename(path)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")
