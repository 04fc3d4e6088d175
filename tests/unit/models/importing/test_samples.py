from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensconce.errors import InputError
from ensconce.models.importing.parts import Feature, Graph, Part, Tensor
from ensconce.models.importing.samples import load_samples, samples_for


def part(features: dict[str, Feature] | None = None, **inputs: tuple[str, tuple[int, ...] | None]) -> Part:
    specs = {name: Tensor(f"{name}:0", dtype, shape) for name, (dtype, shape) in inputs.items()}
    return Part("serving_default", "predict", specs, {}, features, Graph(None))


ONE = part(x=("DT_FLOAT", (-1, 2)))


def test_rows_are_fed_eight_at_a_time() -> None:
    array = np.arange(40, dtype=np.float32).reshape(20, 2)
    samples = samples_for(ONE, {"x": array})
    assert (samples.count, samples.random) == (20, False)
    assert [len(run["x"]) for run in samples.runs] == [8, 8, 4]
    assert np.array_equal(np.concatenate([run["x"] for run in samples.runs]), array)


def test_as_many_rows_as_the_model_insists_on() -> None:
    fixed = part(x=("DT_FLOAT", (2, 3)))
    assert [run["x"].shape for run in samples_for(fixed, {"x": np.zeros((6, 3), np.float32)}).runs] == [(2, 3)] * 3
    assert [run["x"].shape for run in samples_for(fixed, {"x": np.zeros((5, 2, 3), np.float32)}).runs] == [(2, 3)] * 5
    with pytest.raises(InputError, match=r"import\.samples"):
        samples_for(fixed, {"x": np.zeros((5, 3), np.float32)})


def test_the_array_of_a_npy_file_is_of_the_only_input(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 2)))
    arrays = load_samples(tmp_path / "a.npy")
    assert samples_for(ONE, arrays).runs[0]["x"].dtype == np.float32
    assert samples_for(part(x=("DT_FLOAT", (-1,)), y=("DT_FLOAT", (-1,))), arrays).random


def test_features_are_fed_in_place_of_examples() -> None:
    parsed = part({"f": Feature("f", "DT_INT64", (2,), None)}, inputs=("DT_STRING", (-1,)))
    samples = samples_for(parsed, {"f": np.ones((4, 2), np.int32)})
    assert samples.runs[0]["f"].dtype == np.int64
    assert samples.runs[0]["f"].shape == (4, 2)


def test_random_samples_are_the_same_every_time() -> None:
    both = part(x=("DT_FLOAT", (-1, 2)), n=("DT_INT32", (-1, -1)), flag=("DT_BOOL", (-1,)))
    first, second = samples_for(both, {}), samples_for(both, {"other": np.zeros(1)})
    assert first.random
    assert first.count == 32
    assert all(np.array_equal(a[name], b[name]) for a, b in zip(first.runs, second.runs, strict=True) for name in a)
    assert first.runs[0]["n"].shape == (8, 32)
    assert set(np.unique(first.runs[0]["n"])) == {0, 1}
    assert not np.array_equal(first.runs[0]["x"], first.runs[1]["x"])


def test_random_samples_without_an_axis_for_them() -> None:
    assert [run["x"].shape for run in samples_for(part(x=("DT_FLOAT", (1, 4))), {}).runs] == [(1, 4)] * 8
    with pytest.raises(InputError, match="any rank"):
        samples_for(part(x=("DT_FLOAT", None)), {})


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": np.zeros((3, 2))},
        {"x": np.zeros((3, 2)), "y": np.zeros((4, 2))},
        {"x": np.zeros((3, 5)), "y": np.zeros((3, 2))},
        {"x": np.zeros((3, 2), np.complex64), "y": np.zeros((3, 2))},
        {"x": np.zeros((0, 2)), "y": np.zeros((0, 2))},
        {"x": np.zeros(()), "y": np.zeros(())},
    ],
    ids=["one alone", "numbers", "shape", "type", "none", "scalars"],
)
def test_samples_that_do_not_fit(arrays: Any) -> None:
    with pytest.raises(InputError) as caught:
        samples_for(part(x=("DT_FLOAT", (-1, 2)), y=("DT_FLOAT", (-1, 2))), arrays)
    assert caught.value.check == "import.samples"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04nonsense", b"\x93NUMPY\x01\x00", None])
def test_files_that_hold_no_samples(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "s.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_samples(path)
    assert caught.value.check == "import.samples"


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", x=np.array([{}], object))
    with pytest.raises(InputError, match=r"import\.samples"):
        load_samples(tmp_path / "s.npz")
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(InputError, match="holds no array"):
        load_samples(tmp_path / "empty.npz")
