"""Images by name, and containers of them that may do nothing that they need not.

``ENSCONCE_PODMAN`` and ``ENSCONCE_PODMAN_RUN`` say how to call Podman where it needs options; ``BASE``, what to build
on. Where ``GRAMINE_BASE`` names a base with Gramine, the images for it are built, too; nothing here needs SGX.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[3]
KINDS = ("simulated", *(("gramine",) if "GRAMINE_BASE" in os.environ else ()))
TARGETS = ("client", "provisioning", *(f"{each}-{kind}" for kind in KINDS for each in ("enclave", "server")))
DOMAIN = "digits.example.test"
OWNERS = ("server.json", "server.manifest.sgx", "server.sig")
LOCKED_DOWN = (
    *("--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges"),
    *("--tmpfs", "/run/ensconce"),
)

# Of every test here.
ASKED_FOR = [
    pytest.mark.skipif("ENSCONCE_IMAGES_TEST" not in os.environ, reason="minutes: `make images-test` runs it"),
    pytest.mark.timeout(3600),
]


def words(variable: str, default: str = "") -> list[str]:
    return shlex.split(os.environ.get(variable, default))


def podman(*arguments: str | Path, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [*words("ENSCONCE_PODMAN", "podman"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def run(image: str, *arguments: str | Path, options: tuple[str | Path, ...] = (), check: bool = True) -> Any:
    """A container that may do nothing that it need not, until it ends."""
    network = () if any("--network" in str(option) for option in options) else ("--network=none",)
    return podman(
        *("run", "--rm", *words("ENSCONCE_PODMAN_RUN"), *LOCKED_DOWN, *network, *options, image, *arguments),
        check=check,
    )


def until(reached: Callable[[], bool], seconds: float) -> None:
    """Containers start slowly where much else is done."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def build(name: str, *targets: str, **environment: str) -> dict[str, str]:
    """Build images as ``name/TARGET:test``; their digests by target."""
    done = subprocess.run(
        [REPOSITORY / "deploy" / "images" / "build", *targets],
        env=os.environ | {"NAME": name, "TAG": "test", **environment},
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(re.findall(r"^([a-z-]+) (sha256:[0-9a-f]{64})$", done.stdout, re.M))


def staged_in(archive: Path) -> dict[str, str]:
    """SHA-256 of each file that lies ready for enclaves in an image's file system."""
    prefix = "opt/ensconce/enclave/"
    found = {}
    with tarfile.open(archive) as files:
        for entry in files:
            if entry.name.startswith(prefix) and entry.isfile():
                stream = files.extractfile(entry)
                assert stream is not None
                found[entry.name.removeprefix(prefix)] = hashlib.sha256(stream.read()).hexdigest()
    return found


def staged_by(owner: Path) -> dict[str, str]:
    """The same of an owner's bundle; what is her own lies beside it."""
    enclave = owner / "bundle" / "enclave"
    return {
        str(path.relative_to(enclave)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (enclave / "image").rglob("*")
        if path.is_file()
    }


def enclave_build(image: str, owner: Path) -> str:
    done = run(image, *("enclave", "build", "--json", "--owner", "/owner"), options=("-v", f"{owner}:/owner"))
    return str(json.loads(done.stdout)["mr_enclave"])


def owners_files(owner: Path, *more: str) -> tuple[str, ...]:
    """What is mounted into a server image."""
    enclave = owner / "bundle" / "enclave"
    mounts = [("-v", f"{enclave / name}:/opt/ensconce/enclave/{name}:ro") for name in (*OWNERS, *more)]
    return *(word for mount in mounts for word in mount), "-v", f"{owner / 'bundle' / 'models'}:/opt/ensconce/models:ro"
