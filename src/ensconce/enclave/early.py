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
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from ensconce.errors import EnsconceError, IntegrityError

__all__ = ["INDEX", "Libraries", "main"]

INDEX = "enclave/image/bulk.json"
"""The measured list: file, target, size, SHA-256 of each library, and which extension module it is, or none; in the
order in which they are needed."""

# Large enough that the importing thread, which holds the interpreter meanwhile, is waited for seldom.
_PART = 16 << 20
_REMEDY = "restore the files as the owner built and signed them"


class Libraries(threading.Thread):
    """Brings the libraries in, and finds the extension modules among them, each once it and all before it are there."""

    def __init__(self, index: Path) -> None:
        super().__init__(name="libraries", daemon=True)
        # While OpenVINO reads a model, the process's working folder is another one.
        self._root = Path.cwd()
        self._entries = json.loads(index.read_bytes())
        self._targets = {entry["module"]: self._root / entry["target"] for entry in self._entries if entry["module"]}
        self._there = {module: threading.Event() for module in self._targets}
        self._error: EnsconceError | None = None

    def run(self) -> None:
        """Bring in one after the other; whoever waits is told when one could not be."""
        buffer = memoryview(bytearray(_PART))
        try:
            for entry in self._entries:
                source, target = (self._root / entry[name] for name in ("file", "target"))
                _bring(source, target, entry["size"], bytes.fromhex(entry["sha256"]), buffer)
                if entry["module"]:
                    self._there[entry["module"]].set()
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
        """The extension module where it is in memory; nothing of any other name.

        Raises:
            IntegrityError: it, or another, is not what was measured.
        """
        if name not in self._there:
            return None
        self._there[name].wait()
        if self._error is not None:
            raise self._error
        return spec_from_file_location(name, self._targets[name])


def _bring(source: Path, target: Path, size: int, sha256: bytes, buffer: memoryview) -> None:
    aside = target.with_suffix(".part")
    handle = os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o500)
    try:
        os.ftruncate(handle, size)
        digest, left = hashlib.sha256(), size
        with source.open("rb", buffering=0) as file:
            while left and (count := file.readinto(buffer[:left])):
                part = buffer[:count]
                digest.update(part)
                left -= count
                while part:
                    part = part[os.write(handle, part) :]
    finally:
        os.close(handle)
    if not hmac.compare_digest(digest.digest(), sha256):
        aside.unlink()
        raise IntegrityError(
            "replica.library",
            "a library is not the one that was measured",
            found=str(source),
            rule=f"SHA-256 {sha256.hex()}",
            remedy=_REMEDY,
        )
    aside.rename(target)


def main() -> None:
    """Begin to bring the libraries in, and be the replica; the exit status is its, or that of the error."""
    libraries = Libraries(Path(INDEX))
    libraries.start()
    sys.meta_path.insert(0, libraries)
    try:
        from ensconce.enclave import replica
    except EnsconceError as error:
        # As the replica does it, which is not there.
        print(json.dumps({"error": error.fields()}), file=sys.stderr, flush=True)  # noqa: T201
        sys.exit(error.exit_status)
    replica.main()


if __name__ == "__main__":
    main()
