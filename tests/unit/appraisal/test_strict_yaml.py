from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from ensconce.appraisal import strict_yaml
from ensconce.errors import InputError
from ensconce.strict import StrictModel


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(StrictModel):
    name: str
    size: Annotated[int, Field(ge=1)] = 1
    colour: Colour | None = None


class Outer(StrictModel):
    version: Literal[1]
    items: tuple[Inner, ...] = ()
    by_name: Annotated[dict[str, Inner], Field(default_factory=dict)]
    only: Inner | None = None

    @model_validator(mode="after")
    def _names(self) -> Outer:
        if any(item.name == "forbidden" for item in self.items):
            raise ValueError("no item may be called forbidden")
        return self


def read(text: str, model: type[StrictModel] = Outer) -> StrictModel:
    return strict_yaml.parse(text.encode(), "f.yaml").validate(model)


def refused(text: str) -> InputError:
    with pytest.raises(InputError) as caught:
        read(text)
    return caught.value


def test_a_good_file_becomes_the_model(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(
        "# a comment\nversion: 1\nitems:\n  - {name: a, size: 3, colour: blue}\n  - name: 'b'\nonly: null\n"
    )
    expected = Outer(version=1, items=(Inner(name="a", size=3, colour=Colour.BLUE), Inner(name="b")))
    assert strict_yaml.load(path, Outer) == expected


def test_an_unknown_field_is_named_with_its_line_and_what_would_be_valid() -> None:
    error = refused("version: 1\nitems:\n  - name: a\n    sise: 4\n")
    assert error.check == "yaml.unknown_field"
    assert error.problem == "f.yaml line 4, field items[0].sise: unknown field"
    assert error.rule == "valid here: name, size, colour"
    assert error.remedy == "did you mean 'size'?"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("version: 1\nwhat: 2\n", "line 2, field what"),
        ("version: 1\nby_name:\n  x:\n    name: a\n    y: 1\n", "line 5, field by_name.x.y"),
        ("version: 1\nonly:\n  name: a\n  y: 1\n", "line 4, field only.y"),
    ],
)
def test_unknown_fields_are_found_everywhere(text: str, place: str) -> None:
    error = refused(text)
    assert error.check == "yaml.unknown_field"
    assert place in error.problem
    assert error.rule is not None
    assert error.rule.startswith("valid here: ")


@pytest.mark.parametrize(
    ("text", "check", "place", "rule"),
    [
        ("version: 2\n", "yaml.value", "line 1, field version", "1"),
        ("version: '1'\n", "yaml.value", "line 1, field version", "1"),
        ("version: 1\nitems: 3\n", "yaml.value", "line 2, field items", "valid: a list"),
        ("version: 1\nonly: 3\n", "yaml.value", "line 2, field only", "valid: a mapping"),
        ("version: 1\nitems:\n - name: a\n   size: 0\n", "yaml.value", "line 4, field items[0].size", "greater than"),
        ("version: 1\nitems:\n - name: a\n   size: '2'\n", "yaml.value", "line 4, field items[0].size", "integer"),
        ("version: 1\nitems:\n - name: a\n   size: yes\n", "yaml.value", "line 4, field items[0].size", "integer"),
        ("version: 1\nitems:\n - name: a\n   size: true\n", "yaml.value", "line 4, field items[0].size", "integer"),
        ("version: 1\nitems:\n - name: a\n   colour: pink\n", "yaml.value", "line 4, field items[0].colour", "'red'"),
        ("version: 1\nitems:\n - size: 1\n", "yaml.missing_field", "line 3, field items[0].name", "name, size"),
        ("items: []\n", "yaml.missing_field", "line 1, field version", "version, items"),
        ("- 1\n", "yaml.value", "line 1", "fields: version, items"),
        ("", "yaml.value", "line 1", "fields: version"),
        ("# nothing\n", "yaml.value", "line 1", "fields: version"),
        ("version: 1\nitems:\n - name: forbidden\n", "yaml.value", "line 1", "no item may be called forbidden"),
    ],
)
def test_wrong_values_are_named(text: str, check: str, place: str, rule: str) -> None:
    error = refused(text)
    assert error.check == check
    assert place in error.problem
    assert rule in (error.rule or "")


def test_a_number_where_text_is_due_says_to_quote_it() -> None:
    assert refused("version: 1\nonly: {name: 2024}\n").remedy == "write the value in quotes"


def test_the_first_of_several_mistakes_is_told_and_the_rest_counted() -> None:
    error = refused("version: 1\nitems:\n  - name: 1\n    size: x\nnope: 1\n")
    assert "line 3" in error.problem
    assert "(and 2 more)" in error.problem


@pytest.mark.parametrize(
    ("text", "check", "line"),
    [
        ("version: 1\nversion: 1\n", "yaml.duplicate_key", 2),
        ("version: 1\nitems:\n - name: a\n   name: b\n", "yaml.duplicate_key", 4),
        ("version: 1\nonly: &x {name: a}\n", "yaml.alias", 2),
        ("version: 1\nonly: *x\n", "yaml.alias", 2),
        ("version: !!int 1\n", "yaml.tag", 1),
        ("version: 1\nonly: !!python/object/apply:os.system ['true']\n", "yaml.tag", 2),
        ("version: 1\n--- \nversion: 1\n", "yaml.syntax", 2),
        ("version: 1\n  items: []\n", "yaml.syntax", 2),
        ("version: [1\n", "yaml.syntax", 2),
        ("version: 1\n\titems: []\n", "yaml.syntax", 2),
        ("version: 1\n? [a]\n: 1\n", "yaml.syntax", 2),
        ("version: 1\nitems: \x07\n", "yaml.syntax", 2),
        ('version: 1\nitems: "\\ud800"\n', "yaml.syntax", 2),
        ("version: 1\nitems: " + "[" * 40 + "]" * 40, "yaml.depth", 2),
    ],
)
def test_yaml_that_is_not_accepted(text: str, check: str, line: int) -> None:
    error = refused(text)
    assert error.check == check
    assert f"line {line}:" in error.problem


def test_bytes_that_are_not_utf8_are_refused_with_their_line() -> None:
    with pytest.raises(InputError, match="line 2: not UTF-8"):
        strict_yaml.parse(b"version: 1\nitems: \xff\n", "f.yaml")


def test_size_and_depth_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"#" * (strict_yaml.MAX_BYTES + 1))
    with pytest.raises(InputError, match="too large"):
        strict_yaml.load(path, Outer)
    with pytest.raises(InputError, match="too large"):
        strict_yaml.parse(path.read_bytes(), "f.yaml")
    with pytest.raises(InputError, match="deep"):
        strict_yaml.parse(b"[" * 100_000, "f.yaml")


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        strict_yaml.load(tmp_path / "none.yaml", Outer)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0" * 64, "0" * 64),
        ("1" * 64, "1" * 64),
        ("12e5", "12e5"),
        ("012", "012"),
        ("0x10", "0x10"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("no", "no"),
        ("on", "on"),
        ("<<", "<<"),
        ("7", 7),
        ("-7", -7),
        ("1.5", 1.5),
        ("true", True),
        ("~", None),
        ("'true'", "true"),
    ],
)
def test_plain_scalars_mean_what_they_look_like(text: str, value: object) -> None:
    assert strict_yaml.parse(f"x: {text}\n".encode(), "f").value == {"x": value}


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp"))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcdef", min_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abcdef", min_size=1), plain, max_size=4))
def test_json_reads_as_itself(value: dict[str, object]) -> None:
    assert strict_yaml.parse(json.dumps(value, ensure_ascii=False).encode(), "f").value == value


def outcome(data: bytes) -> str:
    """The check that refuses the file, or nothing; any other exception fails the test."""
    try:
        strict_yaml.parse(data, "f").validate(Outer)
    except InputError as error:
        return error.check
    return ""


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    assert outcome(data).startswith("yaml.")


@given(st.text(":-[]{}&*!|>'\"#\n ab1?,%@`~", max_size=60))
def test_any_punctuation_is_read_or_refused(text: str) -> None:
    assert outcome(text.encode()).startswith("yaml.")


@pytest.mark.parametrize("character", ["\x85", "\u2028", "\u2029", "\r", "\u202e", "\u2066", "\u200b", "\x1b"])
def test_a_line_that_looks_like_a_comment_is_one(character: str) -> None:
    # Editors show one comment; YAML ends the line at some of these, and others show it in another order.
    error = refused(f"version: 1\nitems:\n  - name: a\n  # gone: {character}  - name: b\n")
    assert error.check == "yaml.syntax"
    assert "line 4" in error.problem


def test_what_editors_add_is_no_secret() -> None:
    assert read("\ufeffversion: 1\r\n# caf\u00e9\r\nitems:\r\n  - name: a  # tab\t\r\n") == read(
        "version: 1\nitems: [{name: a}]"
    )
