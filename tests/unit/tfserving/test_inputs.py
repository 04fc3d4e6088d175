from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.tfserving.inputs import examples_of, with_context
from ensconce.tfserving.messages import Example, Input
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.signatures import MAX_AXIS
from ensconce.tfserving.wire import MalformedError, delimited, varint


def example(**features: float) -> Any:
    made = Example()
    for name, value in features.items():
        made.features.feature[name].float_list.value.append(value)
    return made


def refused(given: Any, **options: int) -> tuple[Code, str]:
    with pytest.raises(RequestError) as caught:
        examples_of(given, **options)
    return caught.value.code, caught.value.problem


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40), st.booleans())
def test_examples_come_out_as_they_went_in(values: list[float], unread: bool) -> None:
    given = Input()
    given.example_list.examples.extend([example(x=value) for value in values])
    found = examples_of(given.SerializeToString() if unread else given)
    assert found == [example(x=value).SerializeToString() for value in values]


def test_context_is_merged_and_gives_way() -> None:
    given = Input()
    given.example_list_with_context.context.CopyFrom(example(x=1, y=2))
    given.example_list_with_context.examples.extend([example(x=5), example()])
    merged = [Example.FromString(each) for each in examples_of(given)]
    assert merged == [example(x=5, y=2), example(x=1, y=2)]
    # In whichever order they arrive.
    assert examples_of(b"\x12\x06\x12\x02cc\x0a\x00") == [b"cc"]


@pytest.mark.parametrize(
    "given",
    [b"", b"\x0a\x00", b"\x12\x00", b"\x12\x02\x12\x00", Input()],
    ids=["nothing", "list", "list with context", "context alone", "message"],
)
def test_nothing_is_refused(given: Any) -> None:
    assert refused(given) == (Code.INVALID_ARGUMENT, "Input is empty.")


@pytest.mark.parametrize(
    "given",
    [
        b"\x0a",
        b"\x0a\x05\x0a\x00",
        b"\x1a\x00",
        b"\x0a\x02\x12\x00",
        b"\x0a\x02\x0a\x01",
        b"\x0a\x00\x0a\x00",
        b"\x0a\xff\xff\xff\xff\xff\x01",
    ],
)
def test_what_is_no_input_is_refused(given: bytes) -> None:
    assert refused(given) == (Code.INTERNAL, "Error parsing serialized input.")


def test_no_more_examples_than_can_be_computed() -> None:
    def empty(count: int) -> bytes:
        return b"\x0a" + varint(2 * count) + b"\x0a\x00" * count

    assert examples_of(empty(MAX_AXIS)) == [b""] * MAX_AXIS
    assert "too many" in refused(empty(MAX_AXIS + 1))[1]
    assert "too many" in refused(empty(10 * MAX_AXIS))[1]
    contexts = b"\x12\x00" * (2 * MAX_AXIS) + b"\x0a\x00"
    assert refused(b"\x12" + varint(len(contexts)) + contexts)[0] is Code.INVALID_ARGUMENT


def test_a_context_multiplies_within_a_limit() -> None:
    assert with_context([b"a", b"bc"], b"xx", limit=7) == [b"xxa", b"xxbc"]
    with pytest.raises(RequestError, match="more than 6 bytes"):
        with_context([b"a", b"bc"], b"xx", limit=6)


@given(st.lists(st.binary(max_size=300)))
def test_what_is_delimited_is_found(values: list[bytes]) -> None:
    data = b"".join(b"\x0a" + varint(len(value)) + value for value in values)
    assert delimited(data, 0x0A, len(values) + 1) == values
    assert delimited(data, 0x0A, 1) == values[:1]


@given(st.binary(max_size=40))
def test_anything_is_cut_up_or_refused(data: bytes) -> None:
    try:
        values = delimited(data, 0x0A, 100)
    except MalformedError:
        return
    assert sum(map(len, values)) <= len(data)
