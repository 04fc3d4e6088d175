"""A file system that answers as Gramine's ``/dev/attestation`` does, where there is no SGX: quotes of a simulated CPU.

FUSE's own protocol (``linux/fuse.h``, 7.31), as far as two files need it: what is written to ``user_report_data`` is in
the quote that the next opening of ``quote`` takes. What was opened stays as it was, and nothing is cached, as inside.
"""

from __future__ import annotations

import array
import contextlib
import enum
import errno
import os
import socket
import stat
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

_IN = struct.Struct("<IIQQIII4x")
_ATTR = struct.Struct("<6Q10I")
_ROOT, _REPORT_DATA, _QUOTE = 1, 2, 3
_NAMES = {b"user_report_data": _REPORT_DATA, b"quote": _QUOTE}
_DIRECT_IO = 1


class _Do(enum.IntEnum):
    """Operations, by their numbers."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    OPEN = 14
    READ = 15
    WRITE = 16
    RELEASE = 18
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    RELEASEDIR = 29
    INTERRUPT = 36
    BATCH_FORGET = 42


def mountable() -> str | None:
    """Why no file system can be mounted here, or None."""
    if not Path("/dev/fuse").exists():
        return "there is no /dev/fuse"
    found = any(Path(folder, "fusermount3").exists() for folder in os.environ["PATH"].split(":"))
    return None if found else "there is no fusermount3"


class AttestationFiles:
    """The file system, mounted at ``folder`` until it is closed; ``quote`` makes a quote for 64 bytes."""

    def __init__(self, folder: Path, quote: Callable[[bytes], bytes]) -> None:
        folder.mkdir()
        self._folder, self._make = folder, quote
        self._report_data, self._opened = bytes(64), dict[int, bytes]()
        self._device = _mounted(folder)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        subprocess.run(["fusermount3", "-u", "-z", str(self._folder)], check=True, timeout=10)
        self._thread.join(10)
        os.close(self._device)

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._device, 1 << 20)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                return  # Unmounted.
            _, operation, unique, node, *_ = _IN.unpack_from(request)
            if operation in (_Do.FORGET, _Do.BATCH_FORGET, _Do.INTERRUPT):
                continue
            answer = self._answer(operation, node, request[_IN.size :])
            status, body = (answer, b"") if isinstance(answer, int) else (0, answer)
            with contextlib.suppress(OSError):
                os.write(self._device, struct.pack("<IiQ", 16 + len(body), -status, unique) + body)

    def _answer(self, operation: int, node: int, body: bytes) -> bytes | int:
        match operation:
            case _Do.INIT:
                return struct.pack("<IIIIHHIIHHI28x", 7, 31, 0, 0, 16, 12, 1 << 16, 1, 16, 0, 0)
            case _Do.LOOKUP if (found := _NAMES.get(body.rstrip(b"\0"))) and node == _ROOT:
                return struct.pack("<QQQQII", found, 0, 0, 0, 0, 0) + self._attributes(found)
            case _Do.GETATTR | _Do.SETATTR:
                return struct.pack("<QII", 0, 0, 0) + self._attributes(node)
            case _Do.OPEN:
                handle = max(self._opened, default=0) + 1
                self._opened[handle] = self._make(self._report_data) if node == _QUOTE else self._report_data
                return struct.pack("<QII", handle, _DIRECT_IO, 0)
            case _Do.READ:
                handle, offset, size = struct.unpack_from("<QQI", body)
                return self._opened[handle][offset : offset + size]
            case _Do.WRITE if node == _REPORT_DATA:
                _, offset, size = struct.unpack_from("<QQI", body)
                data = body[40 : 40 + size]
                self._report_data = self._report_data[:offset] + data + self._report_data[offset + size :]
                return struct.pack("<II", size, 0)
            case _Do.OPENDIR:
                return struct.pack("<QII", 0, 0, 0)
            case _Do.RELEASE:
                self._opened.pop(struct.unpack_from("<Q", body)[0], None)
                return b""
            case _Do.FLUSH | _Do.RELEASEDIR:
                return b""
            case _Do.LOOKUP:
                return errno.ENOENT
            case _:
                return errno.ENOSYS

    def _attributes(self, node: int) -> bytes:
        mode = stat.S_IFDIR | 0o755 if node == _ROOT else stat.S_IFREG | 0o666
        size = {_ROOT: 0, _REPORT_DATA: 64}.get(node) if node != _QUOTE else len(self._make(self._report_data))
        return _ATTR.pack(node, size or 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, os.getuid(), os.getgid(), 0, 4096, 0)


def _mounted(folder: Path) -> int:
    """Mount, and return the descriptor over which the kernel asks; ``fusermount3`` may be needed for the right to."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subprocess.run(
            ["fusermount3", "-o", "fsname=simulated-attestation,subtype=ensconce", "--", str(folder)],
            env=os.environ | {"_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            check=True,
            timeout=10,
        )
        size = array.array("i").itemsize
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(size))
        return int(array.array("i", ancillary[0][2][:size])[0])
