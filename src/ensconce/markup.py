"""HTML that is escaped by how it is made: a page of its own, without script, and with nothing from elsewhere.

What is text is escaped when it becomes the content or an attribute of an element; only :func:`tag` makes what is not.
"""

from __future__ import annotations

import base64
import hashlib
import html

from ensconce.errors import printable

__all__ = ["Html", "page", "tag", "visible"]

_VOID = frozenset({"br", "input", "link", "meta"})


class Html(str):
    """HTML already. Made by :func:`tag` alone."""

    __slots__ = ()


def visible(text: str) -> str:
    """Text with ``?`` for what a reader acts on although it is escaped: controls, and changes of direction."""
    return "\n".join(map(printable, text.split("\n")))


def tag(name: str, /, *content: str, **attributes: str) -> Html:
    """An element; without a name its content alone.

    Args:
        name: of the element.
        content: text, and elements.
        attributes: by name; ``_`` stands for ``-``, and one at the end for nothing, as in ``class_``.
    """
    inside = "".join(each if isinstance(each, Html) else html.escape(visible(each)) for each in content)
    if not name:
        return Html(inside)
    given = "".join(
        f' {key.removesuffix("_").replace("_", "-")}="{html.escape(visible(value))}"'
        for key, value in attributes.items()
    )
    return Html(f"<{name}{given}>" if name in _VOID else f"<{name}{given}>{inside}</{name}>\n")


def page(title: str, style: str, /, *body: Html, **attributes: str) -> str:
    """A whole document, UTF-8.

    Its own policy (Content Security Policy Level 3) lets in this style, by its hash, and nothing else.

    Args:
        title: text.
        style: CSS, of ours.
        body: what is in it.
        attributes: of the body, as in :func:`tag`.
    """
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Html(style)),
    )
    return "<!DOCTYPE html>\n" + tag("html", head, tag("body", *body, **attributes), lang="en")
