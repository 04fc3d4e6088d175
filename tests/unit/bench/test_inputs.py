"""Made-up inputs, and batches of given ones."""

from __future__ import annotations

import numpy as np
import pytest

from ensconce.bench.inputs import batches, dummies
from ensconce.client.signatures import InputSpec
from ensconce.errors import InputError
from ensconce.tfserving.dtypes import DTYPES

IMAGES = {"images": InputSpec(np.dtype("<f4"), (-1, 2, 2))}


@pytest.mark.parametrize("dtype", [each.numpy for each in DTYPES if not each.label.startswith("q")], ids=str)
def test_dummies_have_shape_and_type_and_are_the_same_for_the_same_seed(dtype: np.dtype) -> None:
    specs = {"x": InputSpec(dtype, (-1, 3))}
    first, again = (dummies(specs, 4, 7, {})["x"] for _ in range(2))
    assert (first.dtype, first.shape) == (dtype, (4, 3))
    np.testing.assert_array_equal(first, again)
    if dtype != np.dtype("?"):
        assert not np.array_equal(first, dummies(specs, 4, 8, {})["x"])


def test_shapes() -> None:
    assert dummies(IMAGES, 1, 0, {"images": (5, 5)})["images"].shape == (1, 5, 5)
    fixed = {"x": InputSpec(np.dtype("<f4"), (8, 2)), "y": InputSpec(np.dtype("<f4"), ())}
    made = dummies(fixed, 1, 0, {})
    assert (made["x"].shape, made["y"].shape) == ((8, 2), ())


@pytest.mark.parametrize(
    ("check", "specs", "batch", "shapes"),
    [
        ("bench.shape", {"x": InputSpec(np.dtype("<f4"), (-1, -1))}, 1, {}),
        ("bench.shape", {"x": InputSpec(np.dtype("<f4"), (-1, 2**40, 2**40))}, 1, {}),
        ("bench.batch", {"x": InputSpec(np.dtype("<f4"), (8, 2))}, 4, {}),
        ("bench.input", IMAGES, 1, {"image": (1,)}),
        ("bench.input", {}, 1, {}),
        ("bench.input", {"x": InputSpec(np.dtype([("qint8", "i1")]), (-1,))}, 1, {}),
    ],
)
def test_what_cannot_be_made_up(check: str, specs: dict, batch: int, shapes: dict) -> None:
    with pytest.raises(InputError) as caught:
        dummies(specs, batch, 0, shapes)
    assert caught.value.check == check


def test_rows_of_a_file_go_in_turn() -> None:
    given = {"x": np.arange(5), "y": np.arange(5) * 10}
    made = batches(given, 2)
    assert [each["x"].tolist() for each in made] == [[0, 1], [2, 3], [4, 0]]
    assert [each["y"].tolist() for each in made] == [[0, 10], [20, 30], [40, 0]]
    assert [each["x"].tolist() for each in batches({"x": np.arange(2)}, 5)] == [[0, 1, 0, 1, 0]]
    assert len(batches({"x": np.arange(1000)}, 1)) == 64
    large = np.lib.stride_tricks.as_strided(np.zeros(1), (4, 2**24), (0, 0))  # 512 MiB that take none
    assert sum(batch["x"].nbytes for batch in batches({"x": large[:, : 2**20]}, 1)) <= 2**28


@pytest.mark.parametrize(
    "arrays", [{}, {"x": np.zeros(0)}, {"x": np.zeros(())}, {"x": np.zeros(2), "y": np.zeros(3)}], ids=str
)
def test_files_without_rows(arrays: dict) -> None:
    with pytest.raises(InputError) as caught:
        batches(arrays, 1)
    assert caught.value.check == "bench.input"
