"""A spy in the line: records every byte that passes between two parties.

This is what a host can do to the traffic that it carries, and nothing less: it owns the wires. The demonstration puts
it in front of the gateway and afterwards searches the recording for what must not be in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from ensconce.addresses import Address
from ensconce.errors import EnsconceError, InputError
from ensconce.gateway.relay import CHUNK, Stream, close, join

__all__ = ["Tap"]


class Tap:
    """A TCP relay, in a thread of its own, that writes down both directions of every connection.

    Each direction of each connection has its own file, ``0001.to-server`` and ``0001.to-client`` and so on, so that a
    search meets every stream in one piece, never cut by another's bytes.

    Args:
        target: host and port that connections are passed on to.
        folder: where the recording goes; made if need be.
        limit: most bytes that are recorded altogether. Beyond it nothing passes any more, and ``stop`` fails: a
            recording with a hole would prove nothing.
        host: address to listen on; the port is any free one.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(self, target: Address, folder: Path, *, limit: int = 1 << 30, host: str = "127.0.0.1") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._target = target
        self._folder = folder
        self._left = limit
        self._limit = limit
        self._host = host
        self._error: EnsconceError | None = None
        self._address: Address | None = None
        self._count = 0
        self._open: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tap", daemon=True)

    @property
    def address(self) -> Address:
        """Host and port that it listens on; known once it has started."""
        assert self._address is not None, "the tap has not been started"
        return self._address

    @property
    def recorded(self) -> int:
        """Bytes recorded so far, both directions together."""
        return self._limit - self._left

    def start(self) -> None:
        """Listen.

        Raises:
            InputError: the address is not to be had.
        """
        self._thread.start()
        self._listening.wait()
        if self._address is None:
            self._thread.join()
            raise self._error or InputError("tap.address", "the tap cannot listen", found=self._host)

    def stop(self) -> None:
        """Cut every connection and close the recording. Idempotent.

        Raises:
            InputError: the recording is not complete: the limit was reached, or the disk is full.
        """
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
        else:
            with contextlib.suppress(EnsconceError):
                self.stop()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        try:
            server = await asyncio.start_server(self._accepted, self._host, 0, limit=CHUNK)
        except OSError as error:
            self._error = InputError("tap.address", f"the tap cannot listen: {error.strerror}", found=self._host)
            return
        else:
            self._address = Address(*server.sockets[0].getsockname()[:2])
        finally:
            self._listening.set()
        await self._end.wait()
        server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Stream(reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self._count += 1
        name = f"{self._count:04d}"
        try:
            with self._file(f"{name}.to-server") as to_server, self._file(f"{name}.to-client") as to_client:
                server = Stream(*await asyncio.open_connection(*self._target, limit=CHUNK))
                try:
                    await join(client, server, self._recorder(to_server), self._recorder(to_client))
                finally:
                    await close(server)
        except* (OSError, EnsconceError, asyncio.CancelledError):
            # The target is away, or the recording failed, which `stop` will report, or `stop` has cut it.
            pass
        finally:
            await close(client)
            self._open.discard(task)

    def _file(self, name: str) -> IO[bytes]:
        try:
            return (self._folder / name).open("wb", buffering=0)
        except OSError as error:
            raise self._failed("tap.write", f"cannot record: {error.strerror}", name) from error

    def _recorder(self, file: IO[bytes]) -> Callable[[bytes], None]:
        """Writes a chunk down before it is passed on, or else fails, so that nothing passes unrecorded."""

        def record(chunk: bytes) -> None:
            if len(chunk) > self._left:
                raise self._failed("tap.limit", "more passed than the tap may record", f"over {self._limit} bytes")
            try:
                written = file.write(chunk)
            except OSError as error:
                raise self._failed("tap.write", f"cannot record: {error.strerror}", file.name) from error
            if written != len(chunk):
                raise self._failed("tap.write", "cannot record: the disk is full", file.name)
            self._left -= len(chunk)

        return record

    def _failed(self, check: str, problem: str, found: str) -> EnsconceError:
        self._error = InputError(check, problem, found=found, remedy="give the tap more room and run again")
        return self._error
