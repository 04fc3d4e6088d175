"""The Gramine that is installed here: where its parts lie, and its own tool, which knows what SGX will measure."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ensconce.enclave.sign import new_signing_key
from ensconce.errors import InputError
from ensconce.evidence.sigstruct import SIGSTRUCT_SIZE, Sigstruct, parse_sigstruct
from ensconce.files import read_bounded

__all__ = ["VERSION", "Gramine"]

VERSION = "1.9"
"""The release whose manifests are rendered; another one's differ in syntax, and in what they measure."""

_TIMEOUT_S = 300
_WHOLE = "check that Gramine is installed whole, with its Python packages"
_WHERE = 'ensconce.runtime = "{{ gramine.runtimedir() }}"\nensconce.libos = "{{ gramine.libos }}"\n'


@dataclass(frozen=True)
class Gramine:
    """An installation of Gramine 1.9.

    Attributes:
        libos: ``libsysdb.so``, the part of Gramine that runs inside and is a file of its own.
        runtime: the folder with its C library, which calls that part instead of the kernel.
    """

    libos: Path
    runtime: Path

    @classmethod
    def find(cls) -> Gramine:
        """The one whose programs are on the PATH.

        Raises:
            InputError: ``gramine.missing``, ``gramine.version``, ``gramine.failed``.
        """
        said = _run("gramine-sgx", "--version")
        version = re.match(r"Gramine ([0-9.]+)", said)
        if version is None or version[1] != VERSION:
            raise InputError(
                "gramine.version",
                "this Gramine is of another release",
                found=said.strip()[:100],
                rule=f"Gramine {VERSION}",
                remedy=f"install Gramine {VERSION}",
            )
        told = _run("gramine-manifest", "--no-check", "--string", _WHERE)
        try:
            found = tomllib.loads(told)["ensconce"]
            return cls(Path(found["libos"]), Path(found["runtime"]))
        except (tomllib.TOMLDecodeError, KeyError, TypeError):
            raise InputError(
                "gramine.failed",
                "gramine-manifest does not say where Gramine's parts are",
                found=told.strip()[:200],
                remedy=_WHOLE,
            ) from None

    def measure(self, manifest: Path, out: Path) -> Sigstruct:
        """Let ``gramine-sgx-sign`` make the signed form of ``manifest``, which lists hashes already.

        It signs with a key that nobody keeps: what it knows, and we do not, is the measurement. The owner's key is
        never in a file.

        Args:
            manifest: rendered.
            out: where to put the form that ``gramine-sgx`` loads.

        Returns:
            Its SIGSTRUCT: measurement, attributes, masks; signer and signature mean nothing.

        Raises:
            InputError: ``gramine.missing``, ``gramine.failed``; ``file.*``: it wrote no SIGSTRUCT.
            EvidenceError: what it wrote is none.
        """
        key = new_signing_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        with tempfile.TemporaryDirectory(prefix="ensconce-sign-") as name:
            pem, signature = Path(name, "key.pem"), Path(name, "server.sig")
            pem.touch(0o600)
            pem.write_bytes(key)
            _run(
                *("gramine-sgx-sign", "--quiet", "--manifest", manifest, "--output", out),
                *("--sigfile", signature, "--key", pem),
            )
            return parse_sigstruct(read_bounded(signature, SIGSTRUCT_SIZE))


def _run(program: str, *arguments: str | Path) -> str:
    """What a program of Gramine's prints."""
    path = shutil.which(program)
    if path is None:
        raise InputError(
            "gramine.missing",
            f"{program} is not on the PATH",
            found=os.environ.get("PATH", "")[:200],
            rule=f"Gramine {VERSION} measures what it will start",
            remedy=f"install Gramine {VERSION}, or build where it is installed",
        )
    try:
        run = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError("gramine.failed", f"{program} did not run", found=str(error)[:200], remedy=_WHOLE) from error
    if run.returncode != 0:
        raise InputError(
            "gramine.failed",
            f"{program} ended with status {run.returncode}",
            found=(run.stderr.strip().splitlines() or run.stdout.strip().splitlines() or ["no message"])[-1][:300],
            remedy=_WHOLE,
        )
    return run.stdout
