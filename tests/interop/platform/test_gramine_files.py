"""Files that Gramine's own tools wrote, read by the simulated platform."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensconce.errors import IntegrityError
from ensconce.platform.manifest import parse_manifest
from ensconce.platform.simulated.launcher import check


def test_a_manifest_of_gramines_own(vectors: Path) -> None:
    manifest = parse_manifest((vectors / "sigstruct" / "helloworld.manifest.sgx").read_bytes())
    assert manifest.entrypoint == "/helloworld"
    assert manifest.debug
    assert manifest.enclave_size == 256 << 20
    assert manifest.env == {"LD_LIBRARY_PATH": "/lib"}
    assert len(manifest.trusted_files) == 49
    assert manifest.trusted_files[0].path == "helloworld"
    assert manifest.insecure == ()


def test_a_signature_for_a_real_cpu_does_not_start_anything_here(vectors: Path, tmp_path: Path) -> None:
    """It is a valid SIGSTRUCT, so the signature passes; but MRENCLAVE is the one of a real CPU."""
    folder = vectors / "sigstruct"
    with pytest.raises(IntegrityError) as refusal:
        check(folder / "helloworld.manifest.sgx", folder / "helloworld.sig", tmp_path)
    assert refusal.value.check == "launcher.measurement"
