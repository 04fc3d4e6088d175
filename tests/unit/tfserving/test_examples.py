from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.tfserving.dtypes import dtype_named
from ensconce.tfserving.examples import FeatureSpec, parse_examples
from ensconce.tfserving.messages import Example
from ensconce.tfserving.refusal import Code, RequestError

MEMBERS = {"DT_FLOAT": "float_list", "DT_INT64": "int64_list", "DT_STRING": "bytes_list"}
VALUES: dict[str, Any] = {
    "DT_FLOAT": st.floats(width=32, allow_nan=False),
    "DT_INT64": st.integers(-(2**63), 2**63 - 1),
    "DT_STRING": st.binary(max_size=200),
}


def spec(dtype: str, *shape: int, default: tuple[Any, ...] | None = None) -> FeatureSpec:
    return FeatureSpec("tensor", dtype_named(dtype), shape, default)


FLOAT, INTEGER, STRING = (spec(dtype, 1) for dtype in MEMBERS)
TWO = spec("DT_FLOAT", 2)


def example(**features: list[Any]) -> bytes:
    made = Example()
    for name, values in features.items():
        feature = made.features.feature[name]
        for value in values:
            kind = {float: feature.float_list, int: feature.int64_list, bytes: feature.bytes_list}[type(value)]
            kind.value.append(value)
    serialized: bytes = made.SerializeToString()
    return serialized


def entry(name: bytes, feature: bytes) -> bytes:
    """An example of one feature, whatever that is."""
    inner = b"\x0a" + bytes((len(name),)) + name + b"\x12" + bytes((len(feature),)) + feature
    return b"\x0a" + bytes((len(inner) + 2,)) + b"\x0a" + bytes((len(inner),)) + inner


def refusal(serialized: list[bytes], features: dict[str, FeatureSpec], **options: int) -> str:
    with pytest.raises(RequestError) as caught:
        parse_examples(serialized, features, **options)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.problem


@given(st.data())
def test_what_was_written_is_read(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(sorted(MEMBERS)))
    shape = data.draw(st.sampled_from([(), (1,), (2,), (3, 2), (40,)]))
    count = int(np.prod(shape))
    rows = data.draw(st.lists(st.lists(VALUES[dtype], min_size=count, max_size=count), min_size=1, max_size=5))
    parsed = parse_examples([example(x=row, y=[1]) for row in rows], {"x": spec(dtype, *shape)})["x"]
    assert parsed.shape == (len(rows), *shape)
    assert parsed.dtype == dtype_named(dtype).numpy
    assert parsed.reshape(len(rows), count).tolist() == rows


@given(st.data())
def test_rows_of_different_lengths_are_padded(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(sorted(MEMBERS)))
    rows = data.draw(st.lists(st.lists(VALUES[dtype], max_size=4).map(lambda row: row * 2), min_size=1, max_size=5))
    pad = data.draw(VALUES[dtype])
    parsed = parse_examples([example(x=row) for row in rows], {"x": spec(dtype, -1, 2, default=(pad,))})["x"]
    longest = max(map(len, rows))
    assert parsed.shape == (len(rows), longest // 2, 2)
    assert parsed.reshape(len(rows), longest).tolist() == [row + [pad] * (longest - len(row)) for row in rows]


def test_a_missing_feature_has_its_default() -> None:
    features = {"x": spec("DT_FLOAT", 2, default=(1.5, 2.0)), "n": spec("DT_INT64", default=(7,)), "s": STRING}
    features["s"] = spec("DT_STRING", 1, default=(b"none",))
    parsed = parse_examples([example(x=[3.0, 4.0]), example(n=[1], s=[b"a"]), b""], features)
    assert parsed["x"].tolist() == [[3, 4], [1.5, 2], [1.5, 2]]
    assert parsed["n"].tolist() == [7, 1, 7]
    assert parsed["s"].tolist() == [[b"none"], [b"a"], [b"none"]]


def test_padding_without_a_default_is_zero_or_empty() -> None:
    features = {"x": spec("DT_FLOAT", -1), "s": spec("DT_STRING", -1)}
    parsed = parse_examples([example(x=[1.0], s=[b"a", b"b"]), example(), example(x=[2.0, 3.0])], features)
    assert parsed["x"].tolist() == [[1, 0], [0, 0], [2, 3]]
    assert parsed["s"].tolist() == [[b"a", b"b"], [b"", b""], [b"", b""]]


def test_of_a_feature_given_twice_the_last_with_a_type_counts() -> None:
    assert parse_examples([example(x=[1.0]) + example(x=[2.0])], {"x": FLOAT})["x"].tolist() == [[2]]
    assert parse_examples([example(x=[1.0]) + example(x=[])], {"x": FLOAT})["x"].tolist() == [[1]]
    assert parse_examples([example(x=[])], {"x": spec("DT_FLOAT", 1, default=(5.0,))})["x"].tolist() == [[5]]


@pytest.mark.parametrize(
    ("feature", "spec", "values"),
    [
        (b"\x12\x0a\x0d\x00\x00\x80\x3f\x0d\x00\x00\x00\x40", TWO, [1, 2]),
        (b"\x12\x8a\x00\x0a\x08\x00\x00\x80\x3f\x00\x00\x00\x40", TWO, [1, 2]),
        (b"\x1a\x04\x08\x01\x08\x02", spec("DT_INT64", 2), [1, 2]),
        (b"\x1a\x06\x0a\x01\x01\x0a\x01\x02", spec("DT_INT64", 2), [1, 2]),
        (b"\x0a\x83\x00\x0a\x01a", STRING, [b"a"]),
        (b"\x12\x06\x0a\x04\x00\x00\x80\x3f\x1a\x00", FLOAT, [1]),
    ],
    ids=["unpacked", "long length", "unpacked integers", "in pieces", "long length of a string", "something behind"],
)
def test_other_ways_to_write_it(feature: bytes, spec: FeatureSpec, values: list[Any]) -> None:
    assert parse_examples([entry(b"x", feature)], {"x": spec})["x"].tolist() == [values]


def test_lengths_that_make_up_for_each_other_are_no_two_examples_of_the_right_one() -> None:
    # One integer more here, one less there, and as many bytes below 128 as there should be.
    odd, even = entry(b"x", b"\x1a\x04\x08\x01\x08\x02"), example(x=[1, 2])
    assert "Values size: 2 but" in refusal([odd, even], {"x": spec("DT_INT64", 3)})
    assert "Values size: 1 but" in refusal([example(x=[1]), example(x=[1, 2, 3])], {"x": spec("DT_INT64", 2)})
    assert "Values size: 1 but" in refusal([example(x=[1.0]), example(x=[1.0, 2.0, 3.0])], {"x": TWO})


def test_lengths_that_go_beyond_an_example_take_nothing_of_the_examples_behind_it() -> None:
    # As many bytes below 128 as there should be, four fields that nobody reads among them; and in the list, by its
    # length, what follows when all are laid end to end: of the three, the first would have had integers of the second.
    others = [example(x=list(range(100, 116))), example(x=[7] * 16)]
    behind = 2 * (2 + 2 + 16)
    unread, own = b"\x28\0" * 4, b"\x01" * 8
    greedy = entry(b"x", bytes((0x1A, len(unread) + 2 + len(own) + behind)) + unread + bytes((0x0A, 8 + behind)) + own)
    assert refusal([greedy, *others], {"x": spec("DT_INT64", 16)}).endswith(
        "Index: 0.  Can't parse serialized Example."
    )
    assert parse_examples(others, {"x": spec("DT_INT64", 16)})["x"].tolist() == [list(range(100, 116)), [7] * 16]


@pytest.mark.parametrize(
    ("serialized", "feature", "text"),
    [
        (example(), FLOAT, "Name: <unknown>, Feature: x (data type: float) is required but could not be found."),
        (example(), STRING, "Name: <unknown>, Feature: x (data type: string) is required but could not be found."),
        (
            example(x=[1.0, 2.0]),
            FLOAT,
            "Name: <unknown>, Key: x, Index: 0.  Number of float values != expected.  "
            "Values size: 2 but output shape: [1]",
        ),
        (
            example(x=[1, 2]),
            spec("DT_INT64", 3, 1),
            "Name: <unknown>, Key: x, Index: 0.  Number of int64 values != expected.  "
            "Values size: 2 but output shape: [3,1]",
        ),
        (
            example(x=list(range(100))),
            INTEGER,
            "Name: <unknown>, Key: x, Index: 0.  Number of int64 values != expected.  "
            "Values size: 100 but output shape: [1]",
        ),
        (
            entry(b"x", b"\x12\x00"),
            spec("DT_FLOAT", 1, default=(5.0,)),
            "Name: <unknown>, Key: x, Index: 0.  Number of float values != expected.  "
            "Values size: 0 but output shape: [1]",
        ),
        (example(x=[b"a", b"b"]), STRING, "Name: <unknown>, Key: x, Index: 0.  Can't parse serialized Example."),
        (
            example(x=[1]),
            FLOAT,
            "Name: <unknown>, Key: x, Index: 0.  Data types don't match. Data type: int64 but expected type: float",
        ),
        (
            example(x=[1.0, 2.0, 3.0]),
            spec("DT_FLOAT", -1, 2),
            "Name: <unknown>, Key: x, Index: 0.  Number of float values is not a multiple of stride length. "
            "Saw 3 values but output shape is: [?,2]",
        ),
        (
            example(x=[b"a"]),
            spec("DT_STRING", -1, 2),
            "Name: <unknown>, Key: x, Index: 0.  Number of bytes values is not a multiple of stride length. "
            "Saw 1 values but output shape is: [?,2]",
        ),
        (entry(b"x", b"\x22\x00"), FLOAT, "Unsupported datatype."),
        (
            entry(b"x", b"\x12\x09\x0a\x04"),
            FLOAT,
            "Name: <unknown>, Key: x, Index: 0.  Can't parse serialized Example.",
        ),
        (
            entry(b"x", b"\x12\x05\x0a\x03abc"),
            FLOAT,
            "Name: <unknown>, Key: x, Index: 0.  Can't parse serialized Example.",
        ),
        (entry(b"x", b"\x12"), FLOAT, "Name: <unknown>, Key: x, Index: 0.  Can't parse serialized Example."),
        (b"\x0asecret", FLOAT, "Could not parse example input, value: 7 bytes"),
        (entry(b"\xff", b""), FLOAT, "Could not parse example input, value: 9 bytes"),
    ],
)
def test_refusals(serialized: bytes, feature: FeatureSpec, text: str) -> None:
    assert refusal([serialized], {"x": feature}) == text


def test_of_several_faults_the_first_example_s_is_told() -> None:
    good = example(x=[1.0], y=[1])
    assert "Key: y, Index: 1" in refusal([good, example(x=[1.0], y=[1.0]), example(y=[1])], {"x": FLOAT, "y": INTEGER})
    assert "Key: y, Index: 1" in refusal([good, example(x=[1.0], y=[1.0]), b"\xff"], {"x": FLOAT, "y": INTEGER})
    assert "Could not parse" in refusal([good, b"\xff", example()], {"x": FLOAT, "y": INTEGER})


def test_padding_and_defaults_multiply_within_a_limit() -> None:
    many = [b""] * 1000
    assert len(parse_examples(many, {"x": spec("DT_FLOAT", 4, default=(0.0,) * 4)}, limit=16000)["x"]) == 1000
    assert "more memory" in refusal(many, {"x": spec("DT_FLOAT", 4, default=(0.0,) * 4)}, limit=15999)
    long = example(x=[0] * 1000)
    assert "more memory" in refusal([long, *many], {"x": spec("DT_INT64", -1)}, limit=1_000_000)
    assert "more memory" in refusal([long], {"x": spec("DT_INT64", -1)}, limit=3000)
    assert "more memory" in refusal([example(x=[b""] * 1000)], {"x": spec("DT_STRING", -1)}, limit=100_000)
    features = {"x": spec("DT_FLOAT", 1, default=(0.0,)), "y": spec("DT_FLOAT", 1, default=(0.0,))}
    assert "Feature: y takes more memory" in refusal(many, features, limit=7999)


@pytest.mark.parametrize(
    ("dtype", "shape", "default"),
    [
        ("DT_DOUBLE", (1,), None),
        ("DT_FLOAT", (1, -1), None),
        ("DT_FLOAT", (-2,), None),
        ("DT_FLOAT", (-1, 0), None),
        ("DT_FLOAT", (2,), (1.0,)),
        ("DT_FLOAT", (-1,), (1.0, 2.0)),
        ("DT_FLOAT", (1,), ("a",)),
        ("DT_INT64", (1,), (2**63,)),
        ("DT_STRING", (1,), (1,)),
    ],
)
def test_features_that_cannot_be(dtype: str, shape: tuple[int, ...], default: Any) -> None:
    with pytest.raises(ValueError, match=r"value|size|feature"):
        FeatureSpec("t", dtype_named(dtype), shape, default)


def test_no_examples_and_no_features() -> None:
    assert parse_examples([], {"x": TWO, "s": STRING, "v": spec("DT_INT64", -1, 3)})["x"].shape == (0, 2)
    assert parse_examples([b""], {}) == {}


def test_thousands_of_features_that_nobody_asked_for() -> None:
    def crowd(size: int) -> bytes:
        entries = b"".join([b"\x0a\x07\x0a\x05%05x" % number for number in range(size)])
        length = bytes((len(entries) >> shift & 0x7F | 0x80) for shift in (0, 7, 14)) + bytes((len(entries) >> 21,))
        return example(x=[1.0]) + b"\x0a" + length + entries

    few, many = crowd(90_000), crowd(120_000)
    assert parse_examples([few, few], {"x": FLOAT})["x"].tolist() == [[1], [1]]
    assert refusal([few, many], {"x": FLOAT}) == f"An example has too many features: {len(many)} bytes"
