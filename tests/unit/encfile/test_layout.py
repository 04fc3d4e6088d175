from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.encfile.layout import Layout, encrypted_size

GROUP = 96 * 4096


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, 4096),
        (1, 4096),
        (3072, 4096),
        (3073, 12288),
        (7168, 12288),
        (7169, 16384),
        (396288, 401408),
        (396289, 409600),
    ],
)
def test_sizes_that_gramine_writes(size: int, expected: int) -> None:
    assert encrypted_size(size) == expected


@given(st.integers(0, 2**45))
def test_spans_cover_everything_once(size: int) -> None:
    layout = Layout(size)
    if not layout.groups:
        assert size <= 3072
        return
    last = layout.groups - 1
    offset, length = layout.plain_span(last)
    assert offset + length == size
    assert 0 < length <= GROUP
    node, count = layout.node_span(last)
    assert (node + count) * 4096 == layout.encrypted_size
    assert layout.plain_span(0)[0] == 3072
    assert layout.node_span(0)[0] == 1


@given(st.integers(3073, 2**41), st.data())
def test_parents_come_before_children_and_know_them(size: int, data: st.DataObject) -> None:
    layout = Layout(size)
    group = data.draw(st.integers(0, layout.groups - 1))
    slots = layout.child_slots(group)
    children = range(slots.start // 32, slots.stop // 32)
    assert [(child - 1) // 32 for child in children] == [group] * len(children)
    assert bool(children) == (group < layout.first_leaf)
    if group:
        parent = layout.child_slots((group - 1) // 32)
        assert parent.start + 32 * ((group - 1) % 32) == layout.slot(group).start
        assert parent.stop >= layout.slot(group).stop
