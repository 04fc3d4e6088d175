"""What Gramine's own signer wrote, against what ours writes and how we compute the parts of it."""

import dataclasses
import datetime
import json
from pathlib import Path

import pytest

from ensconce.enclave.lint import lint
from ensconce.enclave.sign import new_signing_key, sign_manifest
from ensconce.evidence.sigstruct import parse_sigstruct
from ensconce.platform.manifest import parse_manifest


@pytest.fixture(params=["helloworld", "pydcap"])
def vector(vectors: Path, request: pytest.FixtureRequest) -> Path:
    return vectors / "sigstruct" / f"{request.param}.sig"


def test_every_byte_that_is_not_a_choice_is_gramines(vector: Path, vectors: Path) -> None:
    theirs = vector.read_bytes()
    read = parse_sigstruct(theirs)
    manifest = parse_manifest((vectors / "sigstruct" / "helloworld.manifest.sgx").read_bytes())
    manifest = dataclasses.replace(manifest, debug=read.debug, isv_prod_id=read.isv_prod_id, isv_svn=read.isv_svn)
    ours = sign_manifest(manifest, read.mr_enclave, new_signing_key(), date=read.date)
    # All but modulus, signature, q1 and q2, which are of another key.
    assert ours[:128] == theirs[:128]
    assert ours[512:516] == theirs[512:516]
    assert ours[900:1040] == theirs[900:1040]


def test_our_quotients_are_gramines(vector: Path) -> None:
    read = parse_sigstruct(vector.read_bytes())
    modulus, signature = int.from_bytes(read.modulus, "little"), int.from_bytes(read.signature, "little")
    q1, rest = divmod(signature**2, modulus)
    assert q1.to_bytes(384, "little") == read.q1
    assert (rest * signature // modulus).to_bytes(384, "little") == read.q2


def test_the_identity_is_what_gramine_says(vector: Path) -> None:
    said = json.loads(vector.with_suffix(".json").read_bytes())
    read = parse_sigstruct(vector.read_bytes())
    assert (read.mr_enclave.hex(), read.mr_signer.hex()) == (said["mr_enclave"], said["mr_signer"])
    assert (read.isv_prod_id, read.isv_svn, read.debug) == (
        said["isv_prod_id"], said["isv_svn"], said["debug_enclave"],
    )  # fmt: skip
    assert read.date == datetime.date(2026, 11, 23)


def test_lint_reads_a_manifest_of_gramines_own(vectors: Path) -> None:
    manifest = parse_manifest((vectors / "sigstruct" / "helloworld.manifest.sgx").read_bytes())
    assert [(finding.check, finding.severity) for finding in lint(manifest)] == [
        ("lint.debug.on", "refuse"),
        ("lint.attestation.none", "refuse"),
        ("lint.identity.product", "warn"),
        ("lint.argv.missing", "note"),
        ("lint.identity.version", "note"),
    ]
