"""Starting an enclave in a container: by the simulated platform's daemon, or by Gramine."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from ensconce.cluster.machine import MachinePlatform, start_platform
from ensconce.enclave.build import MANIFEST, SIGSTRUCT
from ensconce.enclave.manifest import FOLDER
from ensconce.enclave.tensorflow_serving import SSL_CONFIG
from ensconce.errors import EnsconceError, InputError

__all__ = ["Enclave", "Kind", "Started", "start"]

Kind = Literal["simulated", "gramine"]

_TAIL = 8192


class Enclave(Protocol):
    """A running enclave, as its container sees it."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    def signal(self, number: int) -> None:
        """Send it a signal; one that has ended is past hearing, and that is no error."""
        ...

    def status(self) -> int:
        """Its exit status, once its process has ended."""
        ...

    def close(self) -> None:
        """Free what the platform holds, and wait until everything that was written is passed on."""
        ...


@dataclass
class Relay:
    """Passes what the enclave writes on to this process's own output, and remembers the end of it."""

    source: int
    target: BinaryIO
    tail: bytes = b""
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        while data := os.read(self.source, 65536):
            self.tail = (self.tail + data)[-_TAIL:]
            with contextlib.suppress(OSError):
                self.target.write(data)
                self.target.flush()
        os.close(self.source)

    def finish(self) -> None:
        """Wait until all of it is passed on; not for ever, should somebody still hold the other end."""
        self._thread.join(5.0)


@dataclass(frozen=True)
class Started:
    """An enclave, and what passes its standard output and standard error on."""

    enclave: Enclave
    outputs: tuple[Relay, ...]

    @property
    def last_words(self) -> bytes:
        """The end of all that it has written: Gramine's console is standard output, whatever a program writes to."""
        return b"\n".join(relay.tail for relay in self.outputs)


@dataclass
class _Simulated:
    pid: int
    platform: MachinePlatform
    relays: tuple[Relay, ...]

    def signal(self, number: int) -> None:
        with contextlib.suppress(EnsconceError):
            self.platform.control.signal(self.pid, number)

    def status(self) -> int:
        try:
            entries = self.platform.control.list()
        except EnsconceError:
            return EnsconceError.exit_status  # The daemon has gone, and with it every enclave.
        return next((entry.exit_status for entry in entries if entry.pid == self.pid), None) or 0

    def close(self) -> None:
        self.platform.close()
        for relay in self.relays:
            relay.finish()


@dataclass
class _Gramine:
    process: subprocess.Popen[bytes]
    relays: tuple[Relay, ...]

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def status(self) -> int:
        return self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for relay in self.relays:
            relay.finish()


def start(kind: Kind, bundle: Path, run: Path, vendor: str | None, outputs: tuple[BinaryIO, BinaryIO]) -> Started:
    """Start the enclave in a fresh working folder, ``run/replica``, with links to what it may open.

    Args:
        kind: what runs it.
        bundle: the folder with ``enclave/`` and ``models/``.
        run: a folder that can be written.
        vendor: URL of the simulated vendor; this machine is its own when None.
        outputs: where its standard output and standard error are passed on to.

    Raises:
        InputError: it cannot be started.
        IntegrityError: something differs from what was signed.
        UnreachableError: ``platform.daemon``.
    """
    work = run / "replica"
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(parents=True)
        (work / "models").symlink_to(bundle / "models")
        _lay_out(bundle / FOLDER, work / FOLDER)
    except OSError as error:
        raise InputError(
            "replica.run", f"cannot write to {run}: {error.strerror}", remedy="mount a volume there"
        ) from error
    return _START[kind](bundle, run, work, vendor, outputs)


def _lay_out(source: Path, target: Path) -> None:
    ciphertext = Path(SSL_CONFIG).name
    if not (source / ciphertext).exists():
        target.symlink_to(source)
        return
    # Gramine opens what is encrypted for writing, even to read it (libos_fs_encrypted.c), and a ConfigMap is read-only.
    target.mkdir()
    for path in source.iterdir():
        if path.name == ciphertext:
            shutil.copyfile(path, target / path.name)
        else:
            (target / path.name).symlink_to(path)


def _start_simulated(
    bundle: Path, run: Path, work: Path, vendor: str | None, outputs: tuple[BinaryIO, BinaryIO]
) -> Started:
    (run / "logs").mkdir(exist_ok=True)
    platform = start_platform(run, vendor=vendor)
    try:
        with contextlib.ExitStack() as pipes:
            readers, names = [], []
            for name in ("out", "err"):
                pipe = run / name
                pipe.unlink(missing_ok=True)
                os.mkfifo(pipe, 0o600)
                # Opened first, because the daemon waits for no reader; nobody's end is seen as the end until then.
                readers.append(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
                pipes.callback(os.close, readers[-1])
                names.append(pipe)
            pid = platform.control.launch(
                manifest=bundle / MANIFEST, sigstruct=bundle / SIGSTRUCT, cwd=work, stdout=names[0], stderr=names[1]
            )
            pipes.pop_all()
        for reader in readers:
            os.set_blocking(reader, True)
        relays = tuple(Relay(reader, output) for reader, output in zip(readers, outputs, strict=True))
    except BaseException:
        platform.close()
        raise
    return Started(_Simulated(pid, platform, relays), relays)


def _start_gramine(
    _bundle: Path, _run: Path, work: Path, _vendor: str | None, outputs: tuple[BinaryIO, BinaryIO]
) -> Started:
    program = MANIFEST.removesuffix(".manifest.sgx")
    try:
        process = subprocess.Popen(
            ["gramine-sgx", program],  # noqa: S607 - where an image has it is the image's affair
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise InputError(
            "replica.gramine",
            f"cannot run gramine-sgx: {error.strerror}",
            remedy="use an image that has Gramine, on a node with SGX",
        ) from error
    assert process.stdout is not None
    assert process.stderr is not None
    relays = tuple(
        Relay(os.dup(stream.fileno()), output)
        for stream, output in zip((process.stdout, process.stderr), outputs, strict=True)
    )
    return Started(_Gramine(process, relays), relays)


_START: dict[Kind, Callable[[Path, Path, Path, str | None, tuple[BinaryIO, BinaryIO]], Started]] = {
    "simulated": _start_simulated,
    "gramine": _start_gramine,
}
