"""Text stays text, whatever it holds."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.markup import Html, page, tag, visible


class Reader(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(), st.text())
def test_an_element_holds_what_it_was_given_and_nothing_else(text: str, value: str) -> None:
    reader = Reader()
    reader.feed(tag("p", text, title=value))
    reader.close()
    assert reader.tags == [("p", [("title", visible(value))])]
    assert reader.text == visible(text) + "\n"


@pytest.mark.parametrize("bad", ["\x1b[2J", "\u202eexe", "\u2066", "\0", "\r", "\u200b", "\u2028", "\ufeff"])
def test_what_steers_a_reader_is_shown(bad: str) -> None:
    assert "?" in visible(f"a{bad}b")
    assert bad[0] not in tag("p", bad, title=bad)


def test_elements_are_not_escaped_again() -> None:
    assert tag("p", tag("b", "<"), "&") == "<p><b>&lt;</b>\n&amp;</p>\n"
    assert tag("", "<", tag("br")) == "&lt;<br>"
    assert isinstance(tag("p"), Html)


def test_a_page_lets_in_its_own_style_alone() -> None:
    style = "p > a { color: red; }\n"
    made = page("a <title>", style, tag("p", "x"), class_="dark")
    assert made.startswith('<!DOCTYPE html>\n<html lang="en">')
    (kept,) = re.findall("<style>(.*?)</style>", made, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(kept.encode()).digest()).decode()
    reader = Reader()
    reader.feed(made)
    (policy,) = [
        dict(attrs)["content"] for _, attrs in reader.tags if ("http-equiv", "Content-Security-Policy") in attrs
    ]
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "<title>a &lt;title&gt;</title>" in made
    assert ("body", [("class", "dark")]) in reader.tags
