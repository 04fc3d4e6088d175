"""The enclaves that run on the simulated CPU: started, known by process id, signalled, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from ensconce.errors import InputError
from ensconce.platform.simulated.launcher import Launchable, check

__all__ = ["Enclave", "Enclaves"]

_MAX_RUNNING = 128
_MAX_REMEMBERED = 128
_SPAWN = Path(__file__).with_name("spawn.py")
_PR_SET_CHILD_SUBREAPER = 36
_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP})

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Enclave:
    """One enclave.

    Attributes:
        launchable: what was checked before it started.
        process: its process.
        handle: pidfd of the process; closed when it has ended.
        exit_status: None while it runs; negative when a signal ended it.
    """

    launchable: Launchable
    process: subprocess.Popen[bytes]
    handle: int
    exit_status: int | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def running(self) -> bool:
        """It has not ended."""
        return self.exit_status is None


class Enclaves:
    """All enclaves of one daemon. Use from one event loop, in the main thread: the kernel ties children to threads."""

    def __init__(self, door: Path) -> None:
        """Prepare for launches.

        Args:
            door: the daemon's socket; every enclave gets a descriptor of it.
        """
        self._door = door
        self._enclaves: dict[int, Enclave] = {}
        self._stopping = False
        # Whatever an enclave leaves behind becomes this process's child, and is found there.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), *[ctypes.c_ulong(0)] * 3)

    async def launch(self, manifest: Path, sigstruct: Path, cwd: Path, stdout: Path, stderr: Path) -> int:
        """Check an enclave and start it; returns its process id once its program runs.

        Raises:
            InputError: it cannot be started.
            EnsconceError: as :func:`ensconce.platform.simulated.launcher.check`.
        """
        launchable = await asyncio.to_thread(check, manifest, sigstruct, cwd)
        if self._stopping or sum(enclave.running for enclave in self._enclaves.values()) >= _MAX_RUNNING:
            raise InputError(
                "launcher.busy",
                "the simulated platform is stopping" if self._stopping else "too many enclaves run already",
                rule=f"at most {_MAX_RUNNING}",
            )
        enclave, failures = self._spawn(launchable, stdout, stderr)
        try:
            # End of file on the pipe means that the program was executed.
            problem = await asyncio.to_thread(os.read, failures, 4096)
        finally:
            os.close(failures)
        pid = enclave.process.pid
        if problem:
            await enclave.ended.wait()
            self._enclaves.pop(pid, None)
            raise InputError(
                "launcher.start",
                "the enclave's program cannot be executed",
                found=f"{launchable.program}: {problem.decode(errors='replace')}",
                remedy="check that libos.entrypoint is an executable for this machine",
            )
        _log.info("launched %d, MRENCLAVE %s", pid, launchable.mr_enclave.hex())
        return pid

    def find(self, pid: int) -> Enclave | None:
        """The running enclave with that process id."""
        enclave = self._enclaves.get(pid)
        return enclave if enclave is not None and enclave.running else None

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to an enclave; one that has ended is past hearing, and that is no error.

        Raises:
            InputError: no enclave with that process id, or a signal that is not for stopping.
        """
        enclave = self._enclaves.get(pid)
        if enclave is None:
            raise InputError("daemon.pid", "there is no such enclave", found=str(pid), rule="a pid that launch gave")
        if number not in _SIGNALS:
            names = ", ".join(sorted(signal.Signals(known).name for known in _SIGNALS))
            raise InputError("daemon.signal", "enclaves do not get this signal", found=str(number), rule=names)
        if enclave.running:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(enclave.handle, number)

    def all(self) -> list[Enclave]:
        """The enclaves that run, and the last ones that ended."""
        return list(self._enclaves.values())

    async def stop(self, grace: float) -> None:
        """Ask all enclaves to end, kill those that have not within ``grace`` seconds, and let none start any more."""
        self._stopping = True
        running = [enclave for enclave in self._enclaves.values() if enclave.running]
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, None)):
            for enclave in running:
                self.signal(enclave.process.pid, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await asyncio.gather(*(enclave.ended.wait() for enclave in running))
        self._kill_strays()

    def _spawn(self, launchable: Launchable, stdout: Path, stderr: Path) -> tuple[Enclave, int]:
        """Start the process and register it in one step; returns it and the reading end of its failure pipe."""
        with contextlib.ExitStack() as passed:

            def passing(handle: int) -> int:
                passed.callback(os.close, handle)
                return handle

            try:
                # Enough to connect to the daemon wherever the socket's name goes, and for nothing else.
                door = passing(os.open(self._door, os.O_PATH | os.O_CLOEXEC))
                outputs = [passing(_open_output(path)) for path in (stdout, stderr)]
                start = passing(_start_file(launchable))
                failures, failures_end = os.pipe2(os.O_CLOEXEC)
                passing(failures_end)
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-B", str(_SPAWN), str(door), str(failures_end), str(os.getpid())],
                    stdin=start,
                    stdout=outputs[0],
                    stderr=outputs[1],
                    cwd=launchable.cwd,
                    env={},
                    pass_fds=(door, failures_end),
                    start_new_session=True,
                )
            except OSError as error:
                raise InputError(
                    "launcher.start",
                    f"the enclave cannot be started: {error.strerror}",
                    found=str(error.filename) if error.filename else None,
                    remedy="check the working directory and the output files",
                ) from error
        enclave = Enclave(launchable, process, os.pidfd_open(process.pid))
        self._enclaves.pop(process.pid, None)
        self._enclaves[process.pid] = enclave
        asyncio.get_running_loop().add_reader(enclave.handle, self._ended, enclave)
        return enclave, failures

    def _ended(self, enclave: Enclave) -> None:
        asyncio.get_running_loop().remove_reader(enclave.handle)
        # Before it is reaped, its id cannot belong to anybody else.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(enclave.process.pid, signal.SIGKILL)
        enclave.exit_status = enclave.process.wait()
        os.close(enclave.handle)
        self._kill_strays()
        enclave.ended.set()
        _log.info("enclave %d ended with status %d", enclave.process.pid, enclave.exit_status)
        over = [pid for pid, known in self._enclaves.items() if not known.running]
        for pid in over[:-_MAX_REMEMBERED]:
            del self._enclaves[pid]

    def _kill_strays(self) -> None:
        """Kill what enclaves forked and left behind; more may surface as its parents die, so look again."""
        for _ in range(64):
            strays = [pid for pid in _children() if self.find(pid) is None]
            if not strays:
                return
            for pid in strays:
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)


def _children() -> list[int]:
    """Process ids of this process's children (proc(5), `children`; empty where the kernel does not offer it)."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


def _open_output(path: Path) -> int:
    """Open for appending, without waiting for anybody at the other end of a pipe."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    os.set_blocking(handle, True)
    return handle


def _start_file(launchable: Launchable) -> int:
    """What `spawn.py` reads as its standard input; a file in memory, which no amount of environment can block."""
    fields = {"program": str(launchable.program), "argv": launchable.argv, "env": dict(launchable.env)}
    handle = os.memfd_create("ensconce-start", os.MFD_CLOEXEC)
    with open(handle, "wb", closefd=False) as file:
        file.write(json.dumps(fields).encode())
    os.lseek(handle, 0, os.SEEK_SET)
    return handle
