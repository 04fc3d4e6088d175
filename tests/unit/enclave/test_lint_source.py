"""Templates: what stands in the place of what is computed, and that lines stay where they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.enclave.lint_source import is_template, read_manifest
from ensconce.errors import InputError


def test_an_expression_stays_in_place_as_text() -> None:
    text = """{% set entry = "server" -%}
x = "file:{{ gramine.libdir("a") }}/"
y = {{ n }}
z = '{{ 'q' }}'
w = "{{ entry }}"
"""
    (reading,) = read_manifest(text.encode())
    assert reading.get("x") == "file:{{ gramine.libdir('a') }}/"
    assert reading.get("y") == "{{ n }}"
    assert reading.get("z") == "{{ `q` }}"
    assert reading.get("w") == "server"
    assert [reading.line(key) for key in "xyzw"] == [2, 3, 4, 5]
    assert is_template(reading.get("y"))
    assert not is_template(reading.get("w"))


def test_comments_and_loops_leave_their_lines() -> None:
    text = '{# a\nb #}\na = [\n{% for p in paths %}\n "{{ p }}",\n{% endfor %}\n]\nb = 1\n'
    (reading,) = read_manifest(text.encode())
    assert reading.get("a") == ["{{ p }}"]
    assert reading.line("b") == 8


def test_each_branch_is_in_one_reading() -> None:
    text = "{% if a %}\nx = 1\n{% elif b %}\nx = 2\n{% else %}\nx = 3\n{% endif %}\n{% if c %}\ny = 1\n{% endif %}\n"
    readings = read_manifest(text.encode())
    assert [(each.get("x"), each.get("y")) for each in readings] == [(1, 1), (2, None), (3, 1)]


def test_a_condition_in_another_one() -> None:
    text = "{% if a %}\nx = 1\n{% if b %}\ny = 1\n{% else %}\ny = 2\n{% endif %}\n{% endif %}\nz = 1\n"
    readings = read_manifest(text.encode())
    assert [(each.get("x"), each.get("y"), each.get("z")) for each in readings] == [
        (1, 1, 1),
        (None, None, 1),
        (1, 2, 1),
    ]


def test_conditions_without_end_are_refused() -> None:
    text = "{% if a %}" * 7 + "x = 1" + "{% endif %}" * 7
    with pytest.raises(InputError) as caught:
        read_manifest(text.encode())
    assert caught.value.check == "manifest.template"


def test_an_imported_template_is_noticed() -> None:
    (reading,) = read_manifest(b"\n{% include 'x' %}\na = 1\n")
    assert reading.imports == (2,)


@given(st.text(alphabet="ab={}%#[]\"'\n .if endif else\\x", max_size=60))
def test_anything_is_read_or_refused(text: str) -> None:
    try:
        readings = read_manifest(text.encode())
    except InputError:
        return
    assert readings
