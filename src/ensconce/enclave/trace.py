"""Which files of the system the staged interpreter needs: run it as the enclave will, and read its memory map."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ensconce.errors import InputError

__all__ = ["ENVIRONMENT", "FLAGS", "interpreter_path", "loaded_modules", "system_files"]

FLAGS = ("-P", "-s", "-S", "-B")
"""The interpreter's flags: no path but ours, no site packages of user or machine, no bytecode written."""

ENVIRONMENT = {
    # Relative to the replica's working folder, so that the measurement does not depend on where a host keeps it.
    "PYTHONHOME": "enclave/image",
    "PYTHONPATH": "enclave/image/site",
    # Without these two the interpreter would look for a locale of the host's.
    "PYTHONUTF8": "1",
    "PYTHONCOERCECLOCALE": "0",
    # The host's OpenSSL configuration may name modules to load.
    "OPENSSL_CONF": "/dev/null",
    # numpy only carries tensors here; threads of its BLAS would take thread slots of the enclave.
    "OPENBLAS_NUM_THREADS": "1",
    # The host reads what an enclave prints; gRPC would write there about connections, as many lines as strangers like.
    "GRPC_VERBOSITY": "NONE",
}
"""The whole environment of a replica."""

_TIMEOUT_S = 120

# Imports every module and loads every shared object, then tells what it has mapped and what came from elsewhere.
_PROGRAM = """
import ctypes, importlib, json, os, sys
wanted = json.load(sys.stdin)
for name in wanted["modules"]:
    importlib.import_module(name)
for path in wanted["shared_objects"]:
    ctypes.CDLL(os.path.join(sys.prefix, path))
root = os.path.realpath(sys.prefix) + os.sep
files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
foreign = sorted(name for name, file in files.items() if file and not os.path.realpath(file).startswith(root))
mapped = set()
with open("/proc/self/maps") as maps:
    for line in maps:
        path = line.rstrip("\\n").split(maxsplit=5)[5:]
        if path and path[0].startswith("/") and os.path.isfile(path[0]) and not path[0].startswith(root):
            mapped.add(path[0])
print(json.dumps({"foreign": foreign, "mapped": sorted(mapped), "modules": sorted(sys.modules), "unwelcome": [
    name for name in wanted["unwelcome"] if name in sys.modules]}), flush=True)
os._exit(0)
"""


def interpreter_path() -> str:
    """The real path of the interpreter that this process runs on, past virtual environments and symbolic links."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def system_files(
    image: Path, *, modules: Sequence[str], shared_objects: Sequence[str], unwelcome: Sequence[str]
) -> tuple[Path, ...]:
    """The files outside of the image that the interpreter maps once everything in the image is loaded.

    Args:
        image: the staged image.
        modules: names to import.
        shared_objects: paths to load, relative to the image.
        unwelcome: modules that must not have been imported.

    Returns:
        Absolute real paths, sorted: the interpreter, the dynamic loader, libraries of the system.

    Raises:
        InputError: the image does not run, or runs code from outside of it.
    """
    told = _told(image, modules, shared_objects, unwelcome)
    return tuple(Path(path) for path in told["mapped"])


def loaded_modules(image: Path, modules: Sequence[str]) -> tuple[str, ...]:
    """The modules that are loaded once ``modules`` are, sorted by name.

    Raises:
        InputError: as :func:`system_files`.
    """
    return tuple(_told(image, modules, (), ())["modules"])


def _told(
    image: Path, modules: Sequence[str], shared_objects: Sequence[str], unwelcome: Sequence[str]
) -> dict[str, list[str]]:
    with tempfile.TemporaryDirectory(prefix="ensconce-trace-") as name:
        folder = Path(name)
        (folder / "enclave").mkdir()
        (folder / "enclave" / "image").symlink_to(image.absolute())
        wanted = {"modules": modules, "shared_objects": shared_objects, "unwelcome": unwelcome}
        try:
            run = subprocess.run(
                [interpreter_path(), *FLAGS, "-c", _PROGRAM],
                input=json.dumps(wanted),
                env=ENVIRONMENT,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InputError("image.trace", f"the image did not load within {_TIMEOUT_S} s") from None
    if run.returncode != 0:
        raise InputError(
            "image.trace",
            f"the image does not run on {interpreter_path()} in an environment of its own",
            found=(run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1][:300],
            remedy="use an interpreter that starts with an empty environment, with every dependency installed by pip",
        )
    told: dict[str, list[str]] = json.loads(run.stdout.splitlines()[-1])
    if told["foreign"] or told["unwelcome"]:
        raise InputError(
            "image.closed",
            "the image runs code that is not in it, or that must not run inside",
            found=", ".join([*told["foreign"], *told["unwelcome"]])[:300],
            remedy="report this with the versions of Python and of the packages",
        )
    return told
