"""What `ensconce predict` reads, and what it refuses to send."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ensconce.client.signatures import InputSpec
from ensconce.cluster.client import fit_inputs, open_appraiser, read_rows
from ensconce.errors import InputError

SPECS = {"images": InputSpec(np.dtype(np.float32), (-1, 8, 8, 1))}


def test_reads_arrays_and_takes_the_first_rows(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((5, 64)), scalar=np.float32(1))
    np.save(tmp_path / "a.npy", np.ones((5, 2)))
    assert {name: array.shape for name, array in read_rows(tmp_path / "a.npz", 3).items()} == {"images": (3, 64)}
    assert {name: array.shape for name, array in read_rows(tmp_path / "a.npy", None).items()} == {"": (5, 2)}


@pytest.mark.parametrize("content", [b"", b"junk that is long enough", b"PK\x03\x04 cut", b"\x80\x04K\x01."])
def test_other_files_are_refused_without_advice_to_load_pickles(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match="is damaged, or no file of arrays") as refused:
        read_rows(tmp_path / "a.npy", None)
    assert "pickle" not in str(refused.value)


def test_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="without Python objects"):
        read_rows(tmp_path / "a.npz", None)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no such file"):
        read_rows(tmp_path / "missing", None)
    for other in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(InputError, match="not a regular file"):
            read_rows(other, None)


def test_rows_are_fitted_to_the_signature() -> None:
    fitted = fit_inputs({"": np.zeros((2, 8, 8))}, SPECS)["images"]
    assert (fitted.shape, fitted.dtype) == ((2, 8, 8, 1), np.float32)


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        ({}, "no array with rows"),
        ({"other": np.zeros(3)}, "other"),
        ({"images": np.zeros((1, 64), dtype=complex)}, "complex128"),
        ({"images": np.array(["a"])}, "<U1"),
    ],
)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_what_does_not_fit_is_refused(arrays: dict[str, np.ndarray], found: str) -> None:
    with pytest.raises(InputError) as refused:
        fit_inputs(arrays, SPECS)
    assert refused.value.found == found


def test_fractions_are_not_dropped() -> None:
    with pytest.raises(InputError, match="float64; rule: int64"):
        fit_inputs({"n": np.array([1.5])}, {"n": InputSpec(np.dtype(np.int64), (-1,))})


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"version": 1}'])
def test_a_bundle_that_is_none_is_said_at_once(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "policy.yaml").write_text(
        f'version: 1\nroots: [intel]\ntcb_statuses: [UpToDate]\nidentities: [{{name: a, mr_enclave: "{"1f" * 32}"}}]\n'
    )
    if content is not None:
        (tmp_path / "bundle.json").write_bytes(content)
    with pytest.raises(InputError):
        open_appraiser(tmp_path / "policy.yaml", str(tmp_path / "bundle.json"))
