"""Of enclaves for Gramine, whose own tool a small program stands for here; tests/interop/gramine has the real one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from fuzz.targets.sigstruct import seeds

from ensconce.enclave.measure import Measurement, measure_built
from ensconce.errors import InputError, IntegrityError
from ensconce.evidence.sigstruct import parse_sigstruct

SIGNED = seeds()["good"]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle" / "enclave"
    folder.mkdir(parents=True)
    (folder / "libsysdb.so").write_bytes(b"library OS")
    digest = hashlib.sha256(b"library OS").hexdigest()
    path = folder / "server.manifest.sgx"
    path.write_text(
        f'loader.entrypoint.uri = "file:enclave/libsysdb.so"\nloader.entrypoint.sha256 = "{digest}"\n'
        'libos.entrypoint = "/program"\nloader.argv = ["program"]\n'
        f'[[sgx.trusted_files]]\nuri = "file:enclave/libsysdb.so"\nsha256 = "{digest}"\n'
    )
    return path


@pytest.fixture
def sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signing_key: rsa.RSAPrivateKey) -> Path:
    """``gramine-sgx-sign``: takes a manifest that is in its form already."""
    # Making one takes a second.
    monkeypatch.setattr("ensconce.enclave.gramine.new_signing_key", lambda: signing_key)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin:/bin")
    (folder / "sigstruct").write_bytes(SIGNED)
    where = 'printf \'[ensconce]\\nlibos = "/g/libsysdb.so"\\nruntime = "/g"\\n\''
    # --quiet --manifest M --output O --sigfile S --key K
    for name, text in (
        ("gramine-sgx", "echo 'Gramine 1.9'"),
        ("gramine-manifest", where),
        ("gramine-sgx-sign", f'cp "$3" "$5"; cp {folder}/sigstruct "$7"'),
    ):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return folder / "gramine-sgx-sign"


@pytest.mark.usefixtures("sign")
def test_gramines_tool_measures_what_is_for_gramine(manifest: Path) -> None:
    assert measure_built(manifest) == Measurement(parse_sigstruct(SIGNED).mr_enclave, "gramine", 1)


def test_another_form_is_refused(manifest: Path, sign: Path) -> None:
    sign.write_text(sign.read_text().replace('cp "$3" "$5"', 'tr a b < "$3" > "$5"'))
    with pytest.raises(IntegrityError) as caught:
        measure_built(manifest)
    assert caught.value.check == "measure.form"


@pytest.mark.usefixtures("sign")
def test_a_changed_file_is_found_first(manifest: Path) -> None:
    (manifest.parent / "libsysdb.so").write_bytes(b"another")
    with pytest.raises(IntegrityError) as caught:
        measure_built(manifest)
    assert caught.value.check == "measure.file"


@pytest.mark.usefixtures("sign")
def test_a_missing_file_is_told(manifest: Path) -> None:
    (manifest.parent / "libsysdb.so").unlink()
    with pytest.raises(InputError) as caught:
        measure_built(manifest)
    assert caught.value.check == "file.read"


def test_without_gramine_nobody_knows(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError) as caught:
        measure_built(manifest)
    assert caught.value.check == "gramine.missing"
