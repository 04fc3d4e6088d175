from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from ensconce.serving.json_outputs import outputs_to_json
from ensconce.serving.json_tensors import (
    array_from_json,
    array_to_json,
    inputs_from_json,
    parse_body,
    quote,
)
from ensconce.tfserving.dtypes import dtype_named, dtype_of
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.signatures import Signature, TensorSpec

FLOAT, STRING = dtype_named("DT_FLOAT"), dtype_named("DT_STRING")


def signature(**inputs: str) -> dict[str, Signature]:
    specs = {name: TensorSpec(name, dtype_named(dtype), None) for name, dtype in sorted(inputs.items())}
    return {"serving_default": Signature("serving_default", "", specs, {})}


ONE = signature(x="DT_FLOAT")
BOTH = signature(x="DT_FLOAT", s="DT_STRING")


def refusal(document: Any, signatures: dict[str, Signature] = ONE, code: Code = Code.INVALID_ARGUMENT) -> str:
    with pytest.raises(RequestError) as caught:
        inputs_from_json(document, signatures)
    assert caught.value.code is code
    return caught.value.problem


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"{", "JSON Parse error: Expecting property name enclosed in double quotes at offset: 1"),
        (b'{"a": \xff}', "JSON Parse error: Invalid encoding in string. at offset: 6"),
        (b"[1]", "JSON Value: [1] Is not object"),
        (b"{} {}", "JSON Parse error: Extra data at offset: 3"),
        (b'{"a": ' + b"9" * 5000 + b"}", "JSON Parse error: a number is too long, or values are nested too deeply"),
        (b"[" * 200_000, "JSON Parse error: a number is too long, or values are nested too deeply"),
    ],
)
def test_bodies_that_are_no_json_object_are_refused(body: bytes, text: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_body(body)
    assert caught.value.problem == text


def test_row_format() -> None:
    _, inputs, form = inputs_from_json({"instances": [[1, 2.5], [3, 4]]}, ONE)
    assert form == "row"
    np.testing.assert_array_equal(inputs["x"], np.float32([[1, 2.5], [3, 4]]))
    named = {"instances": [{"x": [1], "s": "a"}, {"x": [2], "s": {"b64": "Yg=="}}]}
    _, inputs, _ = inputs_from_json(named, BOTH)
    assert inputs["x"].tolist() == [[1], [2]]
    assert inputs["s"].tolist() == [b"a", b"b"]
    _, inputs, _ = inputs_from_json({"instances": [{"b64": "Yg=="}, "é"]}, signature(s="DT_STRING"))
    assert inputs["s"].tolist() == [b"b", "é".encode()]


def test_columnar_format() -> None:
    _, inputs, form = inputs_from_json({"inputs": [[1], [2]]}, ONE)
    assert form == "columnar"
    assert inputs["x"].shape == (2, 1)
    _, inputs, _ = inputs_from_json({"inputs": {"x": 3, "s": [["a"]]}}, BOTH)
    assert inputs["x"].shape == ()
    assert inputs["s"].shape == (1, 1)


@pytest.mark.parametrize(
    ("document", "signatures", "text"),
    [
        ({}, ONE, "Missing 'inputs' or 'instances' key"),
        ({"inputs": 1, "instances": [1]}, ONE, "expecting only one of 'inputs' or 'instances' keys to exist"),
        ({"instances": 1}, ONE, "Expecting 'instances' to be an list/array"),
        ({"instances": []}, ONE, "No values in 'instances' array"),
        ({"signature_name": 1, "inputs": 1}, ONE, "'signature_name' key must be a string value."),
        ({"signature_name": "z", "inputs": 1}, ONE, 'Serving signature name: "z" not found in signature def'),
        ({"instances": [1]}, BOTH, "instances is a plain list, but expecting list of objects as multiple input"),
        ({"inputs": [1]}, BOTH, "inputs is a plain value/list, but expecting an object as multiple input"),
        ({"inputs": {"x": 1}}, BOTH, "Missing named input: s in 'inputs' object."),
        ({"inputs": {"x": 1, "y": 2}}, ONE, "JSON object: does not have named input: y"),
        ({"instances": [{"x": 1}, 1]}, ONE, "Expecting object but got list at item 1 of input list"),
        ({"instances": [1, {"x": 1}]}, ONE, "Expecting value/list but got object at item 1 of input list"),
        ({"instances": [{"y": 1}]}, ONE, "Failed to process element: 0 of 'instances' list. JSON object: "),
        ({"inputs": ["a"]}, ONE, 'JSON Value: "a" Type: String is not of expected type: float'),
        ({"inputs": [True, 1.0]}, ONE, "JSON Value: true Type: True is not of expected type: float"),
        ({"inputs": [None]}, ONE, "JSON Value: null Type: Null is not of expected type: float"),
        ({"inputs": {"x": {"b64": "Yg=="}}}, ONE, "Type: Object is not of expected type: float"),
        ({"inputs": [[1, 2], [3]]}, ONE, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ({"inputs": [[1, 2], 3]}, ONE, "Encountered list at unexpected level: 1 expected < 1"),
        ({"inputs": [1.0]}, signature(x="DT_INT32"), "JSON Value: 1.0 Type: Number is not of expected type: int32"),
        ({"inputs": [300]}, signature(x="DT_UINT8"), "a number is out of the range of type: uint8"),
        ({"inputs": [10**400]}, signature(x="DT_DOUBLE"), "a number is out of the range of type: double"),
        ({"inputs": [-1]}, signature(x="DT_UINT64"), "a number is out of the range of type: uint64"),
        ({"inputs": [{"b64": "?"}]}, signature(x="DT_STRING"), "Unable to base64 decode"),
        ({"inputs": [{"b64": 1}]}, signature(x="DT_STRING"), "not formatted correctly for base64 data"),
        ({"inputs": ["\ud800"]}, signature(x="DT_STRING"), "half a surrogate pair"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(document: Any, signatures: dict[str, Signature], text: str) -> None:
    assert text in refusal(document, signatures)


def test_lists_deeper_than_numpy_goes_are_refused() -> None:
    deep: Any = 1
    for _ in range(70):
        deep = [deep]
    assert "nested too deeply" in refusal({"inputs": deep})


def test_types_that_json_cannot_carry_are_not_implemented() -> None:
    text = refusal({"inputs": [1]}, signature(x="DT_HALF"), Code.UNIMPLEMENTED)
    assert text == "Conversion of JSON Value: [1] to type: half"


@given(
    npst.arrays(
        st.sampled_from(["<f4", "<f8", "<i8", "<u8", "i1", "?"]), npst.array_shapes(min_dims=0, min_side=1, max_side=4)
    )
)
def test_any_array_survives_json(array: np.ndarray[Any, Any]) -> None:
    text = json.dumps(array_to_json(array, "y"))
    back = array_from_json(json.loads(text), dtype_of(array))
    np.testing.assert_array_equal(back, array)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4))
def test_any_bytes_survive_json(items: list[bytes]) -> None:
    text = json.dumps(array_to_json(np.array(items, dtype=object), "y_bytes"))
    assert array_from_json(json.loads(text), STRING).tolist() == items


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=12))
def test_values_from_strangers_are_read_or_refused(value: Any) -> None:
    for name in ("DT_FLOAT", "DT_INT8", "DT_BOOL", "DT_STRING"):
        with contextlib.suppress(RequestError):
            array_from_json(value, dtype_named(name))


def written(*values: float) -> str:
    return outputs_to_json({"y": np.float32(values)}, "columnar").decode()


def test_floats_are_written_as_the_original_writes_them() -> None:
    values = (0.1, 1 / 3, 0, -0.0, 3, 1e-7, 16777216, 1e9)
    text = '{"outputs":[0.1,0.333333343,0.0,-0.0,3.0,1e-07,16777216.0,1e+09]}'
    assert written(*values) == text
    many = written(*values * 3)
    assert json.loads(many)["outputs"] == json.loads(text)["outputs"] * 3
    assert many.count("16777216.0") == many.count("0.333333343") == many.count("-0.0") == 3
    assert written(np.nan, np.inf, -np.inf, 0.5) == '{"outputs":[NaN,Infinity,-Infinity,0.5]}'
    assert json.dumps(array_to_json(np.float32([0.1, 1e-7, 16777216]), "y")) == "[0.1, 1e-07, 16777216.0]"


@given(
    npst.arrays(
        st.sampled_from(["<f4", "<f8", "<i8", "<u8", "i1", "?"]),
        npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5),
    ),
    st.sampled_from(["row", "columnar"]),
)
def test_any_array_survives_the_answer(array: np.ndarray[Any, Any], form: Any) -> None:
    document = json.loads(outputs_to_json({"y": array, "z": array}, form))
    both = document["outputs"] if form == "columnar" else document["predictions"]
    for name in ("y", "z"):
        value = both[name] if form == "columnar" else [row[name] for row in both]
        back = array_from_json(value, dtype_of(array))
        assert back.size == array.size
        if array.size:
            np.testing.assert_array_equal(back, array)
            if array.dtype.kind == "f":
                # The sign of a zero survives; NaN has none in JSON.
                signs = [np.signbit(each[~np.isnan(array)]) for each in (back, array)]
                np.testing.assert_array_equal(*signs)


@given(npst.arrays("<f4", st.integers(9, 40)))
def test_many_floats_survive_the_answer(array: np.ndarray[Any, Any]) -> None:
    back = json.loads(outputs_to_json({"y": array}, "columnar"))["outputs"]
    np.testing.assert_array_equal(np.float32(back), array)
    assert all(isinstance(value, float) for value in back)


def test_a_float_next_to_one_of_six_digits_keeps_all_of_its_own() -> None:
    # 5.92448e10 lies in the middle of two floats.
    values = np.float32([59244802048, 59244797952] * 8)
    back = json.loads(outputs_to_json({"y": values}, "columnar"))["outputs"]
    np.testing.assert_array_equal(np.float32(back), values)
    random = np.random.default_rng(1).integers(0, 2**32, 100_000, np.uint32).view(np.float32)
    back = json.loads(outputs_to_json({"y": random}, "columnar"))["outputs"]
    np.testing.assert_array_equal(np.float32(back), random)


def test_answers_in_the_format_of_the_question() -> None:
    y, z = np.float32([[1], [2]]), np.array([3, 4])
    s = np.array([b"a", '\u00e9"'.encode()], object)

    def answer(outputs: dict[str, Any], form: Any) -> Any:
        return json.loads(outputs_to_json(outputs, form))

    assert answer({"y": y}, "row") == {"predictions": [[1.0], [2.0]]}
    assert answer({"y": y, "z": z}, "row") == {"predictions": [{"y": [1.0], "z": 3}, {"y": [2.0], "z": 4}]}
    assert answer({"y": y}, "columnar") == {"outputs": [[1.0], [2.0]]}
    assert answer({"y": y, "z": z}, "columnar") == {"outputs": {"y": [[1.0], [2.0]], "z": [3, 4]}}
    assert answer({"s": s}, "row") == {"predictions": ["a", '\u00e9"']}
    assert answer({"s_bytes": s[:1]}, "columnar") == {"outputs": [{"b64": "YQ=="}]}
    assert answer({"y": np.float32(2)}, "columnar") == {"outputs": 2.0}


def test_too_many_lists_are_refused_before_they_are_made() -> None:
    with pytest.raises(RequestError, match="too many lists"):
        parse_body(b'{"inputs":[' + b"[]," * 2_000_000 + b"[]]}")


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({"y": np.float32(1)}, "Tensor name: y has no shape information "),
        ({"y": np.zeros(2), "z": np.zeros(3)}, "Tensor name: z has inconsistent batch size: 3 expecting: 2"),
        ({"y": np.zeros(2, np.float16)}, "Failed to write JSON value for tensor type: half"),
        ({}, "Cannot convert empty tensor map to JSON"),
        ({"y": np.array([b"\xff"], dtype=object)}, "Tensor name: y holds bytes that are no UTF-8 text"),
    ],
)
def test_outputs_that_json_cannot_carry_are_refused(outputs: dict[str, Any], text: str) -> None:
    with pytest.raises(RequestError) as caught:
        outputs_to_json(outputs, "row")
    assert text in caught.value.problem


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
    )
)
def test_quotes_are_the_beginning_of_what_is_quoted(value: Any) -> None:
    assert quote(value) == json.dumps(value)[:256]


def test_of_many_names_none_is_looked_at() -> None:
    class Names(dict[str, Any]):
        def __iter__(self) -> Any:
            raise AssertionError

    names = Names(x=1.0, y=2.0)
    assert refusal({"instances": [names]}).startswith("Failed to process element: 0 of 'instances' list.")
