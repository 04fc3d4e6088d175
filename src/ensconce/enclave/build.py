"""From a description to a signed enclave in the bundle: stage, render, lint, measure, sign; whole or not at all."""

from __future__ import annotations

import contextlib
import datetime
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import ValidationError

from ensconce.enclave.closing import close
from ensconce.enclave.gramine import Gramine
from ensconce.enclave.gramine_manifest import names_files, render_gramine
from ensconce.enclave.image import Image, build_image
from ensconce.enclave.lint import lint
from ensconce.enclave.manifest import FOLDER, EnclaveSpec, render
from ensconce.enclave.reach import cut
from ensconce.enclave.sign import check_signing_key, sign_manifest
from ensconce.enclave.sizes import Sizes, held
from ensconce.errors import InputError
from ensconce.evidence.sigstruct import SIGSTRUCT_SIZE, parse_sigstruct
from ensconce.files import alone_in, read_bounded, sync_folder, write_aside
from ensconce.platform.manifest import parse_manifest
from ensconce.platform.simulated.measurement import measure

__all__ = [
    "MANIFEST",
    "SIGSTRUCT",
    "EnclaveIdentity",
    "EnclaveSpec",
    "build_enclave",
    "read_identity",
    "replace",
    "staged",
]

MANIFEST = f"{FOLDER}/server.manifest.sgx"
"""The signed manifest, seen from the bundle."""

SIGSTRUCT = f"{FOLDER}/server.sig"
"""The owner's signature over it, likewise."""


@dataclass(frozen=True)
class EnclaveIdentity:
    """What a policy may say about an enclave.

    Attributes:
        mr_enclave: its measurement, 32 bytes.
        mr_signer: SHA-256 of its signer's modulus, 32 bytes.
        isv_prod_id: product id.
        isv_svn: security version.
    """

    mr_enclave: bytes
    mr_signer: bytes
    isv_prod_id: int
    isv_svn: int

    def to_json_object(self) -> dict[str, str | int]:
        """The identity as ``--json`` shows it, with the measurements in hexadecimal."""
        return {
            "mr_enclave": self.mr_enclave.hex(),
            "mr_signer": self.mr_signer.hex(),
            "isv_prod_id": self.isv_prod_id,
            "isv_svn": self.isv_svn,
        }


def build_enclave(
    bundle: Path,
    spec: EnclaveSpec,
    signing_key: rsa.RSAPrivateKey,
    now: Callable[[], int],
    progress: Callable[[str], None] | None = None,
) -> EnclaveIdentity:
    """Make ``bundle/enclave``: image, ``server.json``, ``server.manifest.sgx`` and ``server.sig``.

    An existing enclave is replaced at the very end, once the new one is complete and signed.

    Args:
        bundle: the folder that the host receives; it exists.
        spec: the enclave to make.
        signing_key: the owner's RSA-3072 key with exponent 3.
        now: seconds since 1970; gives the day of signing.
        progress: is told each step in a few words.

    Raises:
        InputError: the key or the description is wrong, lint found an error, another build is under way, or the disk
            is full. The bundle is then as it was.
    """
    tell = progress or (lambda _: None)
    check_signing_key(signing_key)
    try:
        config = spec.config().dump()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            "enclave.spec", f"the enclave's {where} is wrong", found=first["msg"], remedy="correct the deployment file"
        ) from None
    with staged(bundle) as staging:
        image = build_image(staging / "image", progress=tell)
        tell(f"image: {len(image.files)} files, {image.size / 1e6:.0f} MB")
        gramine = Gramine.find() if spec.platform == "gramine" else None
        if gramine is not None:
            text = _render_for(gramine, spec, image, bundle, staging)
        else:
            text = render(spec, image).encode()
        manifest = parse_manifest(text)
        findings = lint(manifest)
        for finding in findings:
            tell(f"{finding.severity}: {finding.problem}: {finding.attack}")
            if finding.severity == "refuse":
                raise InputError(
                    finding.check,
                    f"the manifest is not signed: {finding.problem}",
                    rule=finding.attack,
                    remedy=finding.remedy,
                )
        date = datetime.datetime.fromtimestamp(now(), datetime.UTC).date()
        write_aside(staging / "server.json", config)
        if gramine is not None:
            write_aside(staging / "server.manifest", text)
            tell("measuring: gramine-sgx-sign adds up every page of the enclave")
            mr_enclave = gramine.measure(staging / "server.manifest", staging / Path(MANIFEST).name).mr_enclave
        else:
            write_aside(staging / Path(MANIFEST).name, text)
            mr_enclave = measure(manifest)
        signature = sign_manifest(manifest, mr_enclave, signing_key, date=date)
        write_aside(staging / Path(SIGSTRUCT).name, signature)
        replace(bundle / FOLDER, staging)
    identity = read_identity(bundle)
    tell(f"signed: MRENCLAVE {identity.mr_enclave.hex()}")
    return identity


def _render_for(gramine: Gramine, spec: EnclaveSpec, image: Image, bundle: Path, staging: Path) -> bytes:
    """Close the image, write the files that only Gramine needs, and render the manifest."""
    closed = close(cut(image, staging / "image"), staging / "image", gramine)
    for name, data in names_files(spec).items():
        write_aside(staging / name, data)
    sizes = Sizes.of(held(bundle / "models", spec.models), spec.engine_threads)
    return render_gramine(spec, closed, sizes).encode()


def read_identity(bundle: Path) -> EnclaveIdentity:
    """The identity of the enclave in ``bundle``, as its signature states it.

    Raises:
        InputError: there is none.
        EvidenceError: its signature file is malformed.
    """
    path = bundle / SIGSTRUCT
    if not path.is_file():
        raise InputError("enclave.missing", f"there is no enclave in {bundle}", remedy="run `ensconce enclave build`")
    signed = parse_sigstruct(read_bounded(path, SIGSTRUCT_SIZE))
    return EnclaveIdentity(signed.mr_enclave, signed.mr_signer, signed.isv_prod_id, signed.isv_svn)


@contextlib.contextmanager
def staged(bundle: Path) -> Iterator[Path]:
    """A fresh folder inside ``bundle`` that is gone in the end; one build at a time, remains of killed ones swept."""
    busy = InputError("enclave.busy", f"another build writes to {bundle}", remedy="wait for it to end, then try again")
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(alone_in(bundle, busy))
        except OSError as error:
            raise InputError(
                "enclave.bundle", f"cannot open {bundle}: {error.strerror}", remedy="make it with `ensconce init`"
            ) from error
        for remains in bundle.glob(f".{FOLDER}.*"):
            shutil.rmtree(remains, ignore_errors=True)
        try:
            staging = Path(tempfile.mkdtemp(prefix=f".{FOLDER}.", dir=bundle))
            staging.chmod(0o755)
        except OSError as error:
            raise InputError(
                "enclave.bundle", f"cannot write to {bundle}: {error.strerror}", remedy="check space and permissions"
            ) from error
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def replace(target: Path, staging: Path) -> None:
    """Put ``staging`` in the place of ``target``; if that fails, ``target`` is as it was."""
    old = staging.with_suffix(".old")
    try:
        if target.exists():
            target.rename(old)
        try:
            staging.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        sync_folder(target.parent)
    except OSError as error:
        raise InputError(
            "enclave.replace", f"cannot replace {target}: {error.strerror}", remedy="check the permissions"
        ) from error
    shutil.rmtree(old, ignore_errors=True)
