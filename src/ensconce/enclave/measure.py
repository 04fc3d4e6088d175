"""Measuring what was built: every trusted file against its hash, then the measurement that the hashes and options make.

Whoever rebuilds an enclave from the same inputs gets the same measurement, and so can tell what a signature is for
without believing who signed it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ensconce.enclave.gramine import Gramine
from ensconce.enclave.manifest import FOLDER
from ensconce.enclave.show import is_gramines
from ensconce.errors import InputError, IntegrityError
from ensconce.files import file_sha256, read_bounded
from ensconce.platform.manifest import MAX_MANIFEST_SIZE, Manifest, parse_manifest
from ensconce.platform.simulated.measurement import measure

__all__ = ["Measurement", "measure_built"]


@dataclass(frozen=True)
class Measurement:
    """What an enclave on disk measures.

    Attributes:
        mr_enclave: 32 bytes.
        platform: what will measure the same: Gramine on a CPU with SGX, or the simulated platform.
        files: how many trusted files were read.
    """

    mr_enclave: bytes
    platform: Literal["gramine", "simulated"]
    files: int


def measure_built(manifest_file: Path) -> Measurement:
    """Measure the enclave of a signed form of a manifest, with its files where the manifest names them.

    Relative files begin where the enclave will be started: in the folder above ``enclave/``, or beside the manifest.

    Raises:
        InputError: ``manifest.*``, ``file.*``: it cannot be read; ``gramine.*``: it is for Gramine, whose own tool
            alone knows what it measures, and that is not here.
        IntegrityError: ``measure.file``: a trusted file is not the one that the manifest lists; ``measure.form``: the
            manifest is not in the form that ``gramine-sgx-sign`` writes.
    """
    data = read_bounded(manifest_file, MAX_MANIFEST_SIZE)
    manifest = parse_manifest(data)
    parent = manifest_file.absolute().parent
    base = parent.parent if parent.name == FOLDER else parent
    _check_files(manifest, base)
    if not is_gramines(manifest):
        return Measurement(measure(manifest), "simulated", len(manifest.trusted_files))
    with tempfile.TemporaryDirectory(prefix="ensconce-measure-") as folder:
        out = Path(folder, manifest_file.name)
        mr_enclave = Gramine.find().measure(manifest_file, out).mr_enclave
        if read_bounded(out, MAX_MANIFEST_SIZE) != data:
            raise IntegrityError(
                "measure.form",
                f"{manifest_file} is not what gramine-sgx-sign makes of it",
                rule="the measurement covers the very bytes of the signed form",
                remedy="name the .manifest.sgx that gramine-sgx-sign wrote",
            )
    return Measurement(mr_enclave, "gramine", len(manifest.trusted_files))


def _check_files(manifest: Manifest, base: Path) -> None:
    for file in manifest.trusted_files:
        path = base / file.path
        try:
            digest = file_sha256(path)
        except OSError as error:
            raise InputError(
                "file.read",
                f"cannot read the trusted file {path}: {error.strerror}",
                remedy="measure where the whole enclave lies",
            ) from None
        if digest != file.sha256:
            raise IntegrityError(
                "measure.file",
                f"{path} is not the file that the manifest lists",
                found=digest.hex(),
                rule=file.sha256.hex(),
                remedy="build the enclave again",
            )
