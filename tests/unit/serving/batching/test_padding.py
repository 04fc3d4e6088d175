from __future__ import annotations

import numpy as np
import pytest

from ensconce.serving.batching.padding import check_rows, merge_inputs, split_outputs
from ensconce.tfserving.dtypes import BFLOAT16
from ensconce.tfserving.refusal import Code, RequestError


def test_one_request_is_left_as_it_is() -> None:
    array = np.ones((2, 3))
    assert merge_inputs([{"x": array}], 2)["x"] is array


def test_missing_rows_repeat_the_first_row_of_the_last_request() -> None:
    first, last = np.array([[1], [2]]), np.array([[3], [4]])
    np.testing.assert_array_equal(merge_inputs([{"x": first}, {"x": last}], 6)["x"].ravel(), [1, 2, 3, 4, 3, 3])


def test_shorter_ones_are_padded_at_the_end_with_their_own_first_element() -> None:
    first, last = np.array([[1, 2, 3]]), np.array([[7], [8]])
    merged = merge_inputs([{"x": first}, {"x": last}], 4)["x"]
    np.testing.assert_array_equal(merged, [[1, 2, 3], [7, 7, 7], [8, 7, 7], [7, 7, 7]])
    wide, high = np.array([[[1, 2]]]), np.array([[[3], [4]]])
    merged = merge_inputs([{"x": wide}, {"x": high}], 2)["x"]
    np.testing.assert_array_equal(merged, [[[1, 2], [1, 1]], [[3, 3], [4, 3]]])


def test_strings_and_types_without_a_numpy_type_are_padded_too() -> None:
    first, last = np.array([[b"a", b"b"]], object), np.array([[b"ccc"]], object)
    merged = merge_inputs([{"x": first}, {"x": last}], 3)["x"]
    assert merged.tolist() == [[b"a", b"b"], [b"ccc", b"ccc"], [b"ccc", b"ccc"]]
    bits = np.array([[1, 2]], "<u2").view(BFLOAT16)
    merged = merge_inputs([{"x": bits}, {"x": bits[:, :1]}], 2)["x"]
    assert merged.dtype == BFLOAT16
    assert merged["bfloat16"].tolist() == [[1, 2], [1, 1]]


def test_every_input_is_merged_by_itself() -> None:
    merged = merge_inputs([{"a": np.zeros((1, 2)), "b": np.zeros(1)}, {"a": np.ones((2, 2)), "b": np.ones(2)}], 3)
    assert merged["a"].sum(1).tolist() == [0, 2, 2]
    assert merged["b"].tolist() == [0, 1, 1]


def test_outputs_are_split_by_row_and_padding_is_left_over() -> None:
    outputs = {"y": np.arange(6), "z": np.arange(12).reshape(6, 2)}
    first, last = split_outputs(outputs, [1, 3])
    assert first["y"].tolist() == [0]
    assert last["y"].tolist() == [1, 2, 3]
    assert last["z"].tolist() == [[2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (np.float32(1), "Batched output tensor has 0 dimensions"),
        (
            np.zeros(3),
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
            "tensors",
        ),
    ],
)
def test_outputs_without_a_row_for_each_row_are_refused(output: np.ndarray, text: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_rows({"fine": np.zeros((2, 5)), "y": np.asarray(output)}, 2)
    assert (caught.value.code, caught.value.problem) == (Code.FAILED_PRECONDITION, text)
