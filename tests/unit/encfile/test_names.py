from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.encfile.names import normal_path, path_bytes, shown
from ensconce.errors import InputError


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b", "a/b"),
        ("./a//b/.", "a/b"),
        ("a/../b", "b"),
        ("../a", "../a"),
        ("a/../../b", "../b"),
        ("../../a", "../../a"),
        ("/../a", "/a"),
        ("//a/", "/a"),
        ("a/..", ""),
        ("", ""),
    ],
)
def test_normal_path(path: str, expected: str) -> None:
    assert normal_path(path) == expected


@given(st.text(st.sampled_from("ab./"), max_size=20))
def test_normal_path_is_settled(path: str) -> None:
    assert normal_path(normal_path(path)) == normal_path(path)


@pytest.mark.parametrize("path", ["", "/", ".", "a/..", "a\0b", "a" * 772, "é" * 386])
def test_paths_that_cannot_be_embedded(path: str) -> None:
    with pytest.raises(InputError) as caught:
        path_bytes(path)
    assert caught.value.check == "encfile.path"


def test_longest_path() -> None:
    assert len(path_bytes("a" * 771)) == 771
    assert path_bytes("\udcff") == b"\xff"


def test_shown_escapes_what_a_terminal_would_obey() -> None:
    assert shown(b"caf\xc3\xa9 \x1b[2J\xff\n") == "café \\x1b[2J\\udcff\\n"
