"""On which line a TOML document has each of its keys: what ``tomllib`` does not tell.

Source: TOML 1.0. ``tomllib`` has accepted the document before, so nothing is checked here a second time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["key_lines"]

_TOKEN = re.compile(
    r"""(?P<space>(?:[ \t\r]|\#[^\n]*)+)
    |(?P<long>\"\"\"(?:\\.|[^\\])*?\"{3,5}|'''.*?'{3,5})
    |(?P<string>"(?:\\.|[^"\\\n])*"|'[^'\n]*')
    |(?P<newline>\n)
    |(?P<mark>[\[\]{},=.])
    |(?P<bare>[^\s\[\]{},=.\#"']+)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int


def key_lines(text: str) -> dict[str, int]:
    """The line, counted from 1, of every key, table and element of an array, by dotted name: ``sgx.files[2].uri``.

    Names are joined by dots as they are, without quotes. Of what comes twice, the first counts.
    """
    return _Scanner(text).document()


class _Scanner:
    """One pass over the tokens of a document that is known to be well-formed."""

    def __init__(self, text: str) -> None:
        self._tokens = list[_Token]()
        line = 1
        for match in _TOKEN.finditer(text):
            kind = match.lastgroup or ""
            if kind != "space":
                self._tokens.append(_Token(kind, match[0], line))
            if kind in ("newline", "long"):
                line += match[0].count("\n")
        self._at = 0
        self._lines = dict[str, int]()
        self._counts = dict[str, int]()

    def document(self) -> dict[str, int]:
        prefix = ""
        while self._at < len(self._tokens):
            if self._next_is("["):
                prefix = self._header()
            elif self._tokens[self._at].kind == "newline":
                self._at += 1
            else:
                self._pair(prefix)
        return self._lines

    def _next_is(self, *marks: str) -> bool:
        token = self._tokens[self._at] if self._at < len(self._tokens) else None
        return token is not None and token.kind in ("mark", "newline") and token.text in marks

    def _header(self) -> str:
        """``[a.b]``, or ``[[a.b]]``, which begins one more element; a part that has elements means its last one."""
        line = self._tokens[self._at].line
        array = False
        self._at += 1
        if self._next_is("["):
            array = True
            self._at += 1
        parts = self._key("]")
        self._at += 2 if array else 1
        path = ""
        for position, part in enumerate(parts):
            path = _joined(path, part)
            if array and position == len(parts) - 1:
                self._lines.setdefault(path, line)
                self._counts[path] = self._counts.get(path, -1) + 1
            if path in self._counts:
                path = f"{path}[{self._counts[path]}]"
            self._lines.setdefault(path, line)
        return path

    def _key(self, end: str) -> list[str]:
        parts = []
        while self._at < len(self._tokens) and not self._next_is(end):
            token = self._tokens[self._at]
            if token.kind in ("bare", "string"):
                parts.append(token.text[1:-1] if token.kind == "string" else token.text)
            self._at += 1
        return parts

    def _pair(self, prefix: str) -> None:
        line = self._tokens[self._at].line
        name = prefix
        for part in self._key("="):
            name = _joined(name, part)
            self._lines.setdefault(name, line)
        self._at += 1
        self._value(name)

    def _value(self, name: str) -> None:
        if self._next_is("["):
            self._array(name)
        elif self._next_is("{"):
            self._inline_table(name)
        else:
            while self._at < len(self._tokens) and not self._next_is("\n", ",", "]", "}"):
                self._at += 1

    def _array(self, name: str) -> None:
        self._at += 1
        index = 0
        while self._at < len(self._tokens) and not self._next_is("]"):
            if self._next_is("\n", ","):
                self._at += 1
                continue
            element = f"{name}[{index}]"
            self._lines.setdefault(element, self._tokens[self._at].line)
            self._value(element)
            index += 1
        self._at += 1

    def _inline_table(self, name: str) -> None:
        self._at += 1
        while self._at < len(self._tokens) and not self._next_is("}"):
            if self._next_is("\n", ","):
                self._at += 1
                continue
            self._pair(name)
        self._at += 1


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
