"""From Google's program on this machine to a signed enclave in the bundle; whole or not at all."""

from __future__ import annotations

import datetime
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from ensconce.encfile import encrypt_file
from ensconce.enclave.build import MANIFEST, SIGSTRUCT, EnclaveIdentity, read_identity, replace, staged
from ensconce.enclave.closing import close
from ensconce.enclave.gramine import Gramine
from ensconce.enclave.image import Image
from ensconce.enclave.layers import hash_file
from ensconce.enclave.lint import check_signable, lint
from ensconce.enclave.manifest import FOLDER
from ensconce.enclave.sign import check_signing_key, sign_manifest
from ensconce.enclave.tensorflow_serving import (
    LIBRARY,
    SSL_CONFIG,
    TensorFlowServingSpec,
    render_tensorflow_serving,
    static_files,
)
from ensconce.enclave.tensorflow_serving_sizes import ServingSizes
from ensconce.errors import InputError
from ensconce.files import write_aside
from ensconce.models.layout import scan
from ensconce.platform.manifest import parse_manifest

__all__ = ["PROGRAM", "build_tensorflow_serving", "find_program", "stage_program"]

PROGRAM = "tensorflow_model_server"
"""The program's name, on the PATH of the machine that builds."""

_LOADER = "/lib64/ld-linux-x86-64.so.2"
_TIMEOUT_S = 60
# Loaded by the C library when a name is looked up, and by threads that end: no program lists them.
_ON_DEMAND = ("libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2")


def find_program() -> Path:
    """Where Google's program is on this machine.

    Raises:
        InputError: ``tfserving.program``.
    """
    found = shutil.which(PROGRAM)
    if found is None:
        raise InputError(
            "tfserving.program",
            f"{PROGRAM} is not on the PATH",
            remedy="build where TensorFlow Serving is installed, for instance in its own image",
        )
    return Path(found)


def stage_program(program: Path, out: Path, gramine: Gramine) -> Image:
    """Stage the program, what it loads, Gramine's libraries and its client of secret provisioning into a new folder.

    Raises:
        InputError: ``tfserving.library``: this Gramine has no such client; ``tfserving.program``: the program or a
            library that it needs is not to be had; ``image.*``.
    """
    library = gramine.runtime / LIBRARY
    if not library.is_file():
        raise InputError(
            "tfserving.library",
            f"this Gramine has no {LIBRARY}",
            rule="it asks for the key before the program starts",
            remedy="install Gramine with its tools for RA-TLS (DCAP)",
        )
    needed = {program, *_libraries(program), library, *_libraries(library)}
    needed |= {gramine.runtime / name for name in _ON_DEMAND if (gramine.runtime / name).is_file()}
    try:
        out.mkdir()
        files = tuple(sorted(hash_file(path, str(path)) for path in needed))
    except OSError as error:
        raise InputError(
            "image.stage", f"cannot stage {program.name}: {error.strerror}", remedy="check space and permissions"
        ) from error
    return close(Image(interpreter=str(program), files=(), system_files=files, left_out=()), out, gramine)


def build_tensorflow_serving(
    bundle: Path,
    spec: TensorFlowServingSpec,
    program: Path,
    signing_key: rsa.RSAPrivateKey,
    *,
    wrap_key: bytes,
    ssl_config: bytes,
    now: Callable[[], int],
    progress: Callable[[str], None] | None = None,
) -> EnclaveIdentity:
    """Make ``bundle/enclave``: image, configuration, encrypted ``ssl.cfg``, manifest and signature.

    Args:
        bundle: the folder that the host receives; the model's version is sealed in it.
        spec: the enclave to make.
        program: Google's program.
        signing_key: the owner's RSA-3072 key with exponent 3.
        wrap_key: of the model's version, 16 bytes; the only key that the enclave will get, so of ``ssl.cfg`` too.
        ssl_config: TLS key and certificate as ``--ssl_config_file`` takes them; not measured, so that a new
            certificate needs no new policy.
        now: seconds since 1970; gives the day of signing.
        progress: is told each step in a few words.

    Raises:
        InputError: ``gramine.*``, ``tfserving.*``, ``image.*``, ``enclave.*``, ``sign.*``. The bundle is as it was.
        RefusedError: ``lint.*``.
    """
    tell = progress or (lambda _: None)
    check_signing_key(signing_key)
    gramine = Gramine.find()
    version = scan(bundle / "models" / spec.model / str(spec.version), InputError)
    with staged(bundle) as staging:
        image = stage_program(program, staging / "image", gramine)
        tell(f"image: {len(image.files)} files, {image.size / 1e6:.0f} MB")
        for name, data in static_files(spec).items():
            write_aside(staging / name, data)
        _encrypt(ssl_config, staging / Path(SSL_CONFIG).name, wrap_key)
        batches = spec.batching.num_batch_threads or 4 if spec.batching is not None else None
        sizes = ServingSizes.of(
            program=image.size,
            model=sum(file.size for file in version),
            threads=spec.threads,
            batch_threads=batches,
        )
        text = render_tensorflow_serving(spec, image, sizes).encode()
        manifest = parse_manifest(text)
        findings = lint(manifest)
        for finding in findings:
            tell(f"{finding.severity}: {finding.problem}: {finding.attack}")
        check_signable(findings)
        write_aside(staging / "server.manifest", text)
        tell("measuring: gramine-sgx-sign adds up every page of the enclave")
        measured = gramine.measure(staging / "server.manifest", staging / Path(MANIFEST).name)
        date = datetime.datetime.fromtimestamp(now(), datetime.UTC).date()
        signature = sign_manifest(manifest, measured.mr_enclave, signing_key, date=date)
        write_aside(staging / Path(SIGSTRUCT).name, signature)
        replace(bundle / FOLDER, staging)
    identity = read_identity(bundle)
    tell(f"signed: MRENCLAVE {identity.mr_enclave.hex()}")
    return identity


def _libraries(path: Path) -> set[Path]:
    """What the dynamic loader would load for a program or a library, its own file included; nothing is executed."""
    try:
        run = subprocess.run(
            [_LOADER, "--list", path], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env={}
        )
        told, failed = run.stdout, run.returncode != 0 or "not found" in run.stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        told, failed = str(error), True
    if failed:
        lost = next((line.strip() for line in told.splitlines() if "not found" in line), told.strip()[:200])
        raise InputError(
            "tfserving.program",
            f"the libraries of {path} cannot be found",
            found=lost or "the loader of programs refuses it",
            remedy="install them, or build where the program runs",
        )
    # "libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x7f..)", and the loader itself by its path alone
    return {Path(found) for found in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", told, re.MULTILINE)}


def _encrypt(data: bytes, target: Path, wrap_key: bytes) -> None:
    """Encrypt what has never been in a file: it lies in this process's memory."""
    handle = os.memfd_create("ssl.cfg")
    with open(handle, "wb") as file:  # noqa: PTH123 (a descriptor, not a path)
        file.write(data)
        file.flush()
        encrypt_file(Path(f"/proc/{os.getpid()}/fd/{handle}"), target, wrap_key, embedded_path=SSL_CONFIG, workers=1)
    target.chmod(0o644)
