"""What the CPU and Gramine's loader check before an enclave runs: signature, measurement, and every trusted file.

Gramine keeps an enclave from opening any file that its manifest neither trusts nor allows. Nothing keeps a process of
this platform from it, so such files must not be there when it starts: the working directory, the folder that holds
the manifest, and the folders below which trusted files lie are closed worlds, where whatever the manifest does not list
is refused. An interpreter and its libraries look there for many a file that nobody measured. Options that hand argv or
environment to the host are refused here as well as by lint and policy.

One thing is weaker, and cannot be otherwise: files are hashed before the start, not when they are opened. Whoever can
write them between the two is the very host against which this platform, unlike a CPU, protects nothing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ensconce.errors import InputError, IntegrityError
from ensconce.evidence.report import Attributes, SgxReport
from ensconce.evidence.sigstruct import SIGSTRUCT_SIZE, Sigstruct, parse_sigstruct, quotients
from ensconce.files import file_sha256, read_bounded
from ensconce.platform.manifest import MAX_MANIFEST_SIZE, Manifest, TrustedFile, parse_manifest
from ensconce.platform.simulated.measurement import measure

__all__ = ["Launchable", "check"]

_MAX_START_SIZE = 128 * 1024
_REBUILD = "restore the files as the owner built and signed them"


@dataclass(frozen=True, slots=True)
class Launchable:
    """An enclave that passed every check: what to start, and what its reports say.

    Attributes:
        program: the trusted file to execute.
        argv: exactly the manifest's.
        env: exactly the manifest's.
        cwd: the working directory, chosen by the host.
        mr_enclave: 32 bytes.
        sigstruct: the owner's signature.
    """

    program: Path
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    mr_enclave: bytes
    sigstruct: Sigstruct

    def report(self, cpu_svn: bytes, report_data: bytes) -> SgxReport:
        """The report of the running enclave (Intel SDM volume 3D, EREPORT).

        Args:
            cpu_svn: the machine's, 16 bytes.
            report_data: 64 bytes that the enclave chose.
        """
        signed = self.sigstruct
        return SgxReport(
            cpu_svn=cpu_svn,
            misc_select=signed.misc_select,
            isv_ext_prod_id=signed.isv_ext_prod_id,
            attributes=Attributes(signed.attributes.flags | Attributes.INIT, signed.attributes.xfrm),
            mr_enclave=self.mr_enclave,
            mr_signer=signed.mr_signer,
            config_id=bytes(64),
            isv_prod_id=signed.isv_prod_id,
            isv_svn=signed.isv_svn,
            config_svn=0,
            isv_family_id=signed.isv_family_id,
            report_data=report_data,
        )


def check(manifest_path: Path, sigstruct_path: Path, cwd: Path) -> Launchable:
    """Check that an enclave is what its owner signed.

    A trusted file may be a symbolic link, as shared libraries are: its contents are what counts. Links to folders in
    a closed folder are refused, because what they lead to is not listed.

    Args:
        manifest_path: the signed manifest.
        sigstruct_path: the owner's SIGSTRUCT.
        cwd: the working directory of the launch; relative trusted files are relative to it. It may hold, beside the
            folders of trusted files, what the manifest allows (``sgx.allowed_files``), and nothing else.

    Raises:
        InputError: the manifest cannot be read, or asks for what this platform cannot do.
        EvidenceError: the SIGSTRUCT is malformed.
        IntegrityError: something differs from what was signed; ``check`` says what.
    """
    if not cwd.is_dir():
        raise InputError("launcher.cwd", "the working directory is no folder", found=str(cwd), remedy="create it first")
    manifest = parse_manifest(read_bounded(manifest_path, MAX_MANIFEST_SIZE))
    sigstruct = parse_sigstruct(read_bounded(sigstruct_path, SIGSTRUCT_SIZE))
    _check_signature(sigstruct)
    mr_enclave = measure(manifest)
    if sigstruct.mr_enclave != mr_enclave:
        raise IntegrityError(
            "launcher.measurement",
            "the manifest is not the one that was signed",
            found=mr_enclave.hex(),
            rule=f"MRENCLAVE {sigstruct.mr_enclave.hex()} in {sigstruct_path.name}",
            remedy=_REBUILD,
        )
    if sigstruct.debug != manifest.debug:
        raise IntegrityError(
            "launcher.debug",
            "manifest and signature disagree on whether this is a debug enclave",
            found=f"sgx.debug = {str(manifest.debug).lower()}",
            rule=f"ATTRIBUTES.DEBUG is {int(sigstruct.debug)} in {sigstruct_path.name}",
            remedy="sign the enclave again",
        )
    _check_start(manifest)
    program = _check_files(manifest, manifest_path, sigstruct_path, cwd)
    return Launchable(program, manifest.argv, manifest.env, cwd, mr_enclave, sigstruct)


def _check_signature(sigstruct: Sigstruct) -> None:
    """EINIT's checks: a 3072-bit key, a PKCS #1 v1.5 signature with SHA-256, and the quotients q1 and q2."""
    modulus = int.from_bytes(sigstruct.modulus, "little")
    signature = int.from_bytes(sigstruct.signature, "little")
    problem = None
    if modulus.bit_length() != 3072 or modulus % 2 == 0 or signature >= modulus:
        problem = "its key is no RSA-3072 key, or its signature is no number below the modulus"
    else:
        if quotients(signature, modulus) != (
            int.from_bytes(sigstruct.q1, "little"),
            int.from_bytes(sigstruct.q2, "little"),
        ):
            problem = "its quotients q1 and q2 do not belong to its signature"
        else:
            key = rsa.RSAPublicNumbers(sigstruct.exponent, modulus).public_key()
            try:
                key.verify(signature.to_bytes(384, "big"), sigstruct.signed, padding.PKCS1v15(), hashes.SHA256())
            except InvalidSignature:
                problem = "its signature does not belong to its contents"
    if problem is not None:
        raise IntegrityError(
            "launcher.signature",
            f"the SIGSTRUCT is not valid: {problem}",
            found=f"MRSIGNER {sigstruct.mr_signer.hex()}",
            rule="Intel SDM volume 3D, EINIT",
            remedy=_REBUILD,
        )


def _check_start(manifest: Manifest) -> None:
    if manifest.insecure:
        raise InputError(
            "launcher.insecure",
            "the manifest lets the host choose what the enclave runs with",
            found=", ".join(manifest.insecure)[:200],
            rule="argv, environment and configuration are measured",
            remedy="remove these options, then build and sign the enclave again",
        )
    if not manifest.argv:
        raise InputError(
            "launcher.argv",
            "the manifest names no argv, and the host may not choose it",
            rule="loader.argv, an array of strings",
            remedy="add loader.argv, then build and sign the enclave again",
        )
    size = sum(len(text) for text in (*manifest.argv, *manifest.env, *manifest.env.values()))
    if size > _MAX_START_SIZE:
        raise InputError(
            "launcher.argv",
            "argv and environment are too large",
            found=f"{size} characters",
            rule=f"at most {_MAX_START_SIZE}",
        )


def _check_files(manifest: Manifest, manifest_path: Path, sigstruct_path: Path, cwd: Path) -> Path:
    """Check all trusted files and the closed world; return the program's path."""

    # Folders are resolved and names stand as they are; remembered for this check alone, since links may change.
    @functools.cache
    def resolved(folder: Path) -> str:
        return os.path.realpath(folder)

    def place(path: Path) -> str:
        return os.path.join(resolved(path.parent), path.name)  # noqa: PTH118 - thousands of these, on every start

    # The host names manifest and working directory apart, so the folder of the one need not be in the other.
    closed = {os.path.realpath(manifest_path.parent)}
    listed = {place(manifest_path), place(sigstruct_path)}
    program: Path | None = None
    for file in manifest.trusted_files:
        path = cwd / file.path
        if not path.exists():
            raise _unreadable(file, path, "there is no such file")
        listed.add(place(path))
        top, *below = Path(file.path).parts
        if below and top != "/":
            closed.add(os.path.realpath(cwd / top))
        if file.path == manifest.entrypoint:
            program = path
    # Names before contents: an added file is found without reading hundreds of megabytes first.
    _check_working_directory(manifest, cwd, listed)
    for folder in sorted(closed):
        _check_closed(folder, listed)
    for file in manifest.trusted_files:
        _check_contents(file, cwd / file.path)
    if program is None:
        raise IntegrityError(
            "launcher.entrypoint",
            "the program to start is not among the trusted files",
            found=manifest.entrypoint,
            rule="libos.entrypoint is the path of a trusted file, spelled alike",
            remedy="list it in sgx.trusted_files, then build and sign the enclave again",
        )
    return program


def _check_working_directory(manifest: Manifest, cwd: Path, listed: set[str]) -> None:
    """Refuse what lies in the working directory and is neither listed nor allowed, nor a folder of such files."""
    paths = (*(file.path for file in manifest.trusted_files), *(uri[len("file:") :] for uri in manifest.allowed_files))
    known = {Path(path).parts[0] for path in paths if Path(path).parts}
    folder = os.path.realpath(cwd)
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names are all that is needed
    except OSError as error:
        raise _unwalkable(error) from error
    for name in names:
        path = os.path.join(folder, name)  # noqa: PTH118 - compared as text
        if name not in known and path not in listed:
            raise _unlisted(path)


def _check_closed(folder: str, listed: set[str]) -> None:
    """Refuse what lies below ``folder`` and is not in ``listed``."""

    def fail(error: OSError) -> None:
        raise _unwalkable(error) from error

    for parent, folders, names in os.walk(folder, onerror=fail):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]  # noqa: PTH114, PTH118
        for name in (*names, *links):
            path = os.path.join(parent, name)  # noqa: PTH118
            if path not in listed:
                raise _unlisted(path)


def _unwalkable(error: OSError) -> IntegrityError:
    return IntegrityError("launcher.unlisted_file", f"a folder of the enclave cannot be read: {error}", remedy=_REBUILD)


def _unlisted(path: str) -> IntegrityError:
    return IntegrityError(
        "launcher.unlisted_file",
        "there is a file where the enclave would find it that its manifest does not list",
        found=path,
        rule="the enclave's folder and its working directory hold what the manifest lists, and nothing else",
        remedy="remove it; if the enclave needs it, the owner lists it, builds and signs again",
    )


def _check_contents(file: TrustedFile, path: Path) -> None:
    try:
        found = file_sha256(path)
    except OSError as error:
        raise _unreadable(file, path, error.strerror or "it cannot be read") from error
    if found != file.sha256:
        raise IntegrityError(
            "launcher.trusted_file",
            "a trusted file was changed",
            found=f"{path}: SHA-256 {found.hex()}",
            rule=f"SHA-256 {file.sha256.hex()}",
            remedy=_REBUILD,
        )


def _unreadable(file: TrustedFile, path: Path, reason: str) -> IntegrityError:
    return IntegrityError(
        "launcher.trusted_file",
        "a trusted file cannot be read",
        found=f"{path}: {reason}",
        rule=f"SHA-256 {file.sha256.hex()}",
        remedy=_REBUILD,
    )
