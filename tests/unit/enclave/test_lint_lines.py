"""Lines of keys, compared with what tomllib reads of the same text."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from ensconce.enclave.lint_lines import key_lines

TEXT = '''# a comment with [brackets] and "quotes"
a.b = 1
"quoted" = 'it''s'
[table]  # of its own
x = ["one", "two # no comment",
  # [not = this]
  "three", { p = "}", q = [1, 2] },
]
long = """
] = [
"""
date = 1979-05-27 07:32:00
[[list]]
y = 1.5
[[list]]
y = true
[list.sub]
z = 0
'''.replace("'it''s'", "'its'")


def test_every_key_has_its_line() -> None:
    tomllib.loads(TEXT)
    assert key_lines(TEXT) == {
        "a": 2,
        "a.b": 2,
        "quoted": 3,
        "table": 4,
        "table.x": 5,
        "table.x[0]": 5,
        "table.x[1]": 5,
        "table.x[2]": 7,
        "table.x[3]": 7,
        "table.x[3].p": 7,
        "table.x[3].q": 7,
        "table.x[3].q[0]": 7,
        "table.x[3].q[1]": 7,
        "table.long": 9,
        "table.date": 12,
        "list": 13,
        "list[0]": 13,
        "list[0].y": 14,
        "list[1]": 15,
        "list[1].y": 16,
        "list[1].sub": 17,
        "list[1].sub.z": 18,
    }


_NAMES = st.text(alphabet="abcXYZ_09-", min_size=1, max_size=6)
_VALUES = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.text(max_size=12) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=12,
)


def _keys(value: Any, prefix: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            key = f"{prefix}.{name}" if prefix else name
            yield key
            yield from _keys(each, key)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield f"{prefix}[{index}]"
            yield from _keys(each, f"{prefix}[{index}]")


@given(st.dictionaries(_NAMES, _VALUES, max_size=4))
def test_every_key_that_tomllib_reads_has_a_line(document: dict[str, Any]) -> None:
    text = tomli_w.dumps(document)
    read = tomllib.loads(text)
    lines = key_lines(text)
    assert set(_keys(read, "")) <= set(lines)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())
