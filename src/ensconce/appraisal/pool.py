"""Verifies quotes in processes of their own, so that all cores verify and nothing else waits for them.

Each process is begun once and asked over a pipe. When one dies, the request that it had is refused and nobody else's
is: another process takes its place. Results travel as pickles, so a process is trusted like this one; it is there for
speed, not for isolation.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import socket
import struct
import subprocess
import sys
from multiprocessing.connection import Connection

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.root import TrustRoot
from ensconce.appraisal.verdict import Verdict
from ensconce.errors import UnreachableError, restore

__all__ = ["VerifierPool"]

_PATIENCE = 20.0


class VerifierPool:
    """Processes that verify quotes. Safe to share between threads.

    Args:
        workers: how many processes; one for each processor when absent.
        patience: seconds for one quote, after which the process that has it is killed. Verifying takes a millisecond;
            a process that has just begun takes a second before its first.
    """

    def __init__(self, workers: int | None = None, *, patience: float = _PATIENCE) -> None:
        self._patience = patience
        self._workers = [_Worker() for _ in range(workers or os.cpu_count() or 1)]
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def verify(self, quote: bytes, collateral: Collateral, *, at: int, root: TrustRoot) -> Verdict:
        """:func:`ensconce.appraisal.dcap.verify_quote` in the next process that is free.

        Raises:
            UnreachableError: ``appraisal.worker``: the process died, or took too long.
            EnsconceError: whatever ``verify_quote`` raises.
        """
        worker = self._idle.get()
        try:
            answer = worker.ask((quote, collateral, at, root), self._patience)
        finally:
            self._idle.put(worker)
        if isinstance(answer, Verdict):
            return answer
        fields, exit_status = answer
        raise restore(fields, exit_status)

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.close()


class _Worker:
    """One process, and the next in its place when it has died."""

    def __init__(self) -> None:
        self._process, self._connection = _begin()

    def ask(
        self, job: tuple[bytes, Collateral, int, TrustRoot], patience: float
    ) -> Verdict | tuple[dict[str, str], int]:
        try:
            _limit(self._connection, patience)
            self._connection.send(job)
            if not self._connection.poll(patience):
                raise EOFError
            answer: Verdict | tuple[dict[str, str], int] = self._connection.recv()
            return answer
        except BaseException as error:
            # What this process may still say is about this quote: whoever asks next must not hear it.
            self.close()
            self._process, self._connection = _begin()
            if not isinstance(error, EOFError | OSError):
                raise
        # Not asked again: a quote that kills whoever verifies it would kill the next one too.
        raise UnreachableError(
            "appraisal.worker",
            "the process that verifies quotes died, or took too long",
            rule="what cannot be verified is refused",
            remedy="try again",
        )

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.close()
        self._process.kill()
        self._process.wait()


def _limit(connection: Connection, patience: float) -> None:
    """Have reading and writing fail rather than wait longer: whoever stops amid a message must not stop this end."""
    limit = struct.pack("@ll", max(1, math.ceil(patience)), 0)  # struct timeval; zero would be for ever
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        for way in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            same.setsockopt(socket.SOL_SOCKET, way, limit)


def _begin() -> tuple[subprocess.Popen[bytes], Connection]:
    ours, theirs = socket.socketpair()
    with theirs:
        # It ends when this process does, however that ends: its end of the pair is then closed.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ensconce.appraisal.worker", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    return process, Connection(ours.detach())
