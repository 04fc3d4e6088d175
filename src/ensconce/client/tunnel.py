"""A local socket whose every connection becomes an attested connection of its own.

Clients that cannot judge evidence (gRPC's channel, an HTTP library) connect here, inside this process, in the clear;
what they say leaves the process over TLS to a replica that was accepted. A library opens connections whenever it likes,
on failures, after a server's GOAWAY, to share the load: each is judged, not only the first.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from ensconce.addresses import Address
from ensconce.client.attested import AttestedSocket
from ensconce.client.early import said_early
from ensconce.client.leaf import Accepted
from ensconce.client.pump import End, pump
from ensconce.errors import EnsconceError, InputError, place_of
from ensconce.times import since_boot

__all__ = ["Tunnel", "as_failure"]

_FIRST_KEEPS_S = 3.0
_JOIN_S = 2.0


class Tunnel:
    """A Unix socket in a private folder, for this process alone.

    Args:
        connect: opens an attested connection, or raises why not; called in threads of the tunnel.
        again: the same for connections after the first.
        lost: called in a thread of the tunnel when :attr:`is_lost` becomes true.
    """

    def __init__(
        self,
        connect: Callable[[], AttestedSocket],
        again: Callable[[], AttestedSocket] | None = None,
        lost: Callable[[], object] = lambda: None,
    ) -> None:
        self._connect = connect
        self._again = again or connect
        self._lost = lost
        self._is_lost = False
        self._pumping = 0
        self.ends = 0
        """How many connections the other side has ended, or their time."""
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._number = -1
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._acceptor = threading.Thread(target=self._accept, name="tunnel", daemon=True)
        self._first: tuple[AttestedSocket, float] | None = None
        self._open: dict[threading.Thread, socket.socket] = {}
        self._connections: Counter[str] = Counter()
        self._latest: tuple[Address, Accepted] | None = None
        self._failure: EnsconceError | None = None
        self._closed = False

    @property
    def path(self) -> str:
        """The Unix socket's path, for this process: through its own descriptor of the folder (proc_pid_fd(5)).

        By the folder's name others could be reached: once it is gone from /tmp, anybody can make it again.
        """
        assert self._folder is not None, "the tunnel has not been started"
        return f"/proc/self/fd/{self._number}/{self._folder.name}"

    @property
    def accepted(self) -> Accepted | None:
        """The replica of the newest connection."""
        return self._latest[1] if self._latest is not None else None

    @property
    def address(self) -> Address | None:
        """Where the newest connection leads to."""
        return self._latest[0] if self._latest is not None else None

    @property
    def connections(self) -> dict[str, int]:
        """How many connections were opened to each replica so far, by replica id."""
        with self._lock:
            return dict(self._connections)

    @property
    def failure(self) -> EnsconceError | None:
        """Why the newest attempt to connect failed; ``None`` when it did not.

        The library on the local side sees no more than a connection that was closed; this is the true reason.
        """
        return self._failure

    @property
    def is_lost(self) -> bool:
        """Whether there is no connection because the other side ended the latest, or it could not be made."""
        return self._is_lost

    def start(self) -> None:
        """Open the first attested connection, kept for the first local one, then listen.

        Raises:
            EnsconceError: whatever ``connect`` raises: an unreachable or refused replica is known at once.
            InputError: no folder can be made for the socket.
        """
        self._first = (self._judged(self._connect), since_boot())
        try:
            # Mode 0700.
            self._folder = Path(tempfile.mkdtemp(prefix="ensconce-"))
            self._number = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
            self._server.bind(self.path)
            self._server.listen(64)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise InputError(
                    "tunnel.socket",
                    f"cannot make a local socket: {error.strerror}",
                    remedy="make room in the folder for temporary files, or set TMPDIR",
                ) from error
            raise
        self._acceptor.start()

    def close(self) -> None:
        """Cut every connection and remove the socket. Idempotent."""
        with self._lock:
            already, self._closed = self._closed, True
            first, self._first = self._first, None
            workers = dict(self._open)
        if already:
            return
        # close() alone would leave the acceptor waiting in accept().
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        if first is not None:
            first[0].close()
        for local in workers.values():
            with contextlib.suppress(OSError):
                local.shutdown(socket.SHUT_RDWR)
        for thread in (self._acceptor, *workers):
            if thread.is_alive():
                thread.join(_JOIN_S)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._number >= 0:
            os.close(self._number)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                local, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(local,), name="tunnel connection", daemon=True)
            with self._lock:
                if self._closed or not _is_ours(local):
                    local.close()
                    continue
                try:
                    thread.start()
                except RuntimeError:  # The system has no thread for it.
                    local.close()
                    continue
                self._open[thread] = local

    def attest(self) -> AttestedSocket:
        """A connection for who moves its bytes himself, in this process; :meth:`ended` is to be called at its end.

        Raises:
            EnsconceError: why there is none; also kept in :attr:`failure`. Nothing was sent anywhere.
        """
        try:
            attested = self._take_first() or self._judged(self._again)
        except EnsconceError:
            if not self._pumping:
                self._lose()
            raise
        with self._lock:
            self._pumping += 1
        return attested

    def ended(self, *, is_remote: bool) -> None:
        """A connection is over; ``is_remote`` where the other side ended it, or its time."""
        with self._lock:
            self._pumping -= 1
            self.ends += is_remote
        if is_remote and not self._pumping:
            self._lose()

    def _serve(self, local: socket.socket) -> None:
        try:
            with local:
                # A first connection was kept for a while, and its replica may be about to go.
                for _ in range(2):
                    if self._carry(local):
                        break
        except EnsconceError:
            pass  # The local connection is closed.
        finally:
            with self._lock:
                self._open.pop(threading.current_thread(), None)

    def _carry(self, local: socket.socket) -> bool:
        """Connect for a local connection, until either ends; False if the replica was ending it from the start."""
        with self.attest() as attested:
            end = End.REMOTE
            try:
                said = said_early(attested.tls)
                if said is not None:
                    end = pump(local, attested.tls, attested.deadline, said)
            finally:
                self.ended(is_remote=end is not End.LOCAL)
        return said is not None

    def _lose(self) -> None:
        self._is_lost = True
        if not self._closed:
            self._lost()

    def _take_first(self) -> AttestedSocket | None:
        with self._lock:
            first, self._first = self._first, None
        if first is None:
            return None
        attested, opened = first
        if since_boot() - opened <= _FIRST_KEEPS_S:
            return attested
        # The server may have given up on a client that says nothing.
        attested.close()
        return None

    def _judged(self, connect: Callable[[], AttestedSocket]) -> AttestedSocket:
        try:
            attested = connect()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a judge may be anybody's, and a panic of native code is no Exception
            self._failure = as_failure(error)
            if self._failure is error:
                raise
            raise self._failure from error
        with self._lock:
            self._failure = None
            self._is_lost = False
            self._latest = attested.address, attested.accepted
            self._connections[attested.replica_id] += 1
        return attested


def as_failure(error: BaseException) -> EnsconceError:
    """Why there is no connection: the error itself if it is one of ours, else one that says where it came from."""
    if isinstance(error, EnsconceError):
        return error
    return EnsconceError(
        "client.connect",
        "connecting failed in a way that nobody foresaw",
        found=f"{type(error).__name__} at {place_of(error)}",
    )


def _is_ours(local: socket.socket) -> bool:
    """Whether this very process is on the other side (unix(7), SO_PEERCRED)."""
    credentials = local.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, _, _ = struct.unpack("3i", credentials)
    return bool(pid == os.getpid())
