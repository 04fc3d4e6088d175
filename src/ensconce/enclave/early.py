"""What runs first in a Gramine enclave: the largest libraries come in here, while the replica asks for its keys.

Run as ``python -m ensconce.enclave.early enclave/server.json``. Gramine hashes a trusted file three times, at some 300
MB/s, while every other thread that opens a file waits: of the three seconds until a replica is ready, these libraries
took more than one. So Gramine lets them pass (``sgx.allowed_files``), and this module, which is measured, reads each
into the enclave's memory once, compares its SHA-256 with the measured list, and only then puts it, still in memory,
where it is looked for. A byte that the host changes is found before it runs, as it would be by Gramine.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from ensconce.errors import EnsconceError, IntegrityError

__all__ = ["INDEX", "Libraries", "main"]

INDEX = "enclave/image/bulk.json"
"""The measured list: package, file, target, size and SHA-256 of each library, in the order in which they are needed."""

_REMEDY = "restore the files as the owner built and signed them"


class Libraries(threading.Thread):
    """Brings the libraries in; an import of a package of theirs waits for those that it needs."""

    def __init__(self, index: Path) -> None:
        super().__init__(name="libraries", daemon=True)
        # While OpenVINO reads a model, the process's working folder is another one.
        self._root = Path.cwd()
        self._entries = json.loads(index.read_bytes())
        self._there = {entry["package"]: threading.Event() for entry in self._entries}
        self._error: EnsconceError | None = None

    def run(self) -> None:
        """Bring in one after the other; whoever waits is told when one could not be."""
        try:
            for number, entry in enumerate(self._entries):
                _bring(
                    self._root / entry["file"],
                    self._root / entry["target"],
                    entry["size"],
                    bytes.fromhex(entry["sha256"]),
                )
                if all(later["package"] != entry["package"] for later in self._entries[number + 1 :]):
                    self._there[entry["package"]].set()
        except EnsconceError as error:
            self._error = error
        except OSError as error:
            self._error = IntegrityError(
                "replica.library", f"a library cannot be read: {error.strerror}", found=error.filename, remedy=_REMEDY
            )
        finally:
            for event in self._there.values():
                event.set()

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - as importlib calls it
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Find nothing, but let an import wait until its package's libraries are there.

        Raises:
            IntegrityError: one of them is not what was measured.
        """
        if name in self._there:
            self._there[name].wait()
            if self._error is not None:
                raise self._error
        return None


def _bring(source: Path, target: Path, size: int, sha256: bytes) -> None:
    data = memoryview(bytearray(size))
    with source.open("rb", buffering=0) as file:
        done = 0
        while done < size and (count := file.readinto(data[done:])):
            done += count
    if not hmac.compare_digest(hashlib.sha256(data[:done]).digest(), sha256):
        raise IntegrityError(
            "replica.library",
            "a library is not the one that was measured",
            found=str(source),
            rule=f"SHA-256 {sha256.hex()}",
            remedy=_REMEDY,
        )
    handle = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o500)
    try:
        os.ftruncate(handle, size)
        while data:
            data = data[os.write(handle, data) :]
    finally:
        os.close(handle)


def main() -> None:
    """Begin to bring the libraries in, and be the replica."""
    libraries = Libraries(Path(INDEX))
    libraries.start()
    sys.meta_path.insert(0, libraries)
    from ensconce.enclave import replica

    replica.main()


if __name__ == "__main__":
    main()
