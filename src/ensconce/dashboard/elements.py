"""What the page is made of: a document, sections, tables, and words in colours that are not needed to read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ensconce.errors import EnsconceError
from ensconce.markup import Html, tag

__all__ = ["cut", "document", "faint", "mark", "message", "moment", "pairs", "problem", "section", "span", "table"]

_LONGEST: Final = 300
"""Characters of what others said."""


def document(title: str, *body: Html, with_script: bool = False) -> bytes:
    """A whole page around ``body``; style and script are files of the same origin."""
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("link", rel="stylesheet", href="/static/dashboard.css"),
        tag("link", rel="icon", href="data:,"),
    ]
    if with_script:
        head.append(tag("script", src="/static/dashboard.js", defer="defer"))
    return ("<!DOCTYPE html>\n" + tag("html", tag("head", *head), tag("body", *body), lang="en")).encode()


def message(heading: str, text: str, *more: Html) -> bytes:
    """A page that only says something."""
    return document(f"{heading} · Ensconce", tag("main", tag("h1", heading), tag("p", text), *more, id="main"))


def section(key: str, heading: str, *content: Html) -> Html:
    """A section with its heading, which a screen reader lists as a region."""
    return tag("section", tag("h2", heading, id=f"{key}-heading"), *content, id=key, aria_labelledby=f"{key}-heading")


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Html | str]]) -> Html:
    """A table; on narrow screens each row becomes a card, in which cells are told by their columns."""
    head = tag("tr", *(tag("th", column, scope="col") for column in columns))
    body = [
        tag(
            "tr",
            *(
                tag(
                    "th" if index == 0 else "td",
                    _content(cell),
                    data_label=column,
                    **({"scope": "row"} if index == 0 else {}),
                )
                for index, (column, cell) in enumerate(zip(columns, row, strict=True))
            ),
        )
        for row in rows
    ]
    return tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))


def pairs(pairs: Mapping[str, str]) -> Html:
    """Names and values."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value, class_="mono")) for name, value in pairs.items()))


def mark(kind: str, word: str) -> Html:
    """A word that says how something is; ``kind`` is ``good``, ``warn`` or ``bad``."""
    return tag("span", cut(word), class_=f"mark {kind}")


def moment(text: str) -> Html:
    """A time, on one line."""
    return tag("span", text, class_="moment")


def problem(error: EnsconceError) -> Html:
    """What is wrong."""
    return tag("p", cut(str(error), 600), class_="problem")


def faint(text: str) -> Html:
    """A remark."""
    return tag("p", text, class_="faint")


def cut(value: object, most: int = _LONGEST) -> str:
    """Text of at most so many characters, however long what others said is."""
    text = ", ".join(map(str, value[:20])) if isinstance(value, tuple | list) else str(value)
    return text if len(text) <= most else text[:most] + "…"


def span(seconds: float) -> str:
    """How long, in the unit that suits it."""
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _content(cell: Html | str) -> Html:
    return cell if isinstance(cell, Html) else tag("", cut(cell))
