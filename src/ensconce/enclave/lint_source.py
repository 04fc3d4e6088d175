"""Other people's manifests, read for the lint: TOML or a template of it, with the line of every key.

Source: Gramine 1.9, "Manifest syntax" and "gramine-manifest" (templates are Jinja's). A template is not rendered: it
is a program, its variables are the builder's, and one rendering shows one branch of each condition. Instead each
``{{ ... }}`` stays in place as text, and the manifest is read as often as it takes to see every branch of every
condition; whatever is wrong in any reading is found.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ensconce.enclave.lint_lines import key_lines
from ensconce.errors import InputError
from ensconce.platform.manifest import MAX_MANIFEST_SIZE, load_signed, load_toml

__all__ = ["Reading", "is_template", "read_manifest", "read_signed"]

_MAX_READINGS = 64
_MAX_TEMPLATE = 1 << 18
_MAX_DEPTH = 32
_OPENING = re.compile(r"\{[#%{]")
_CLOSING = {"{#": "#}", "{%": "%}", "{{": "}}"}
_STATEMENT = re.compile(r"\{%[-+]?\s*(\w*)(.*?)[-+]?%\}", re.DOTALL)
_LITERAL = re.compile(r"\s*(\w+)\s*=\s*(?:\"([^\"'\\{}]*)\"|'([^\"'\\{}]*)')\s*")
_BRANCHES = frozenset({"elif", "else"})
_IMPORTS = frozenset({"include", "import", "extends", "from"})
_KEY = re.compile(r"[A-Za-z_][\w.-]*")
_MAKE = re.compile(r"\s*\$\(\w+\)\s*")
_VALUE = re.compile(r"(?:true|false|[-+]?\d+|0x[0-9a-fA-F]+)")


@dataclass(frozen=True)
class Reading:
    """One way to read a manifest.

    Attributes:
        document: its keys and values; a value that a template computes is the text ``{{ ... }}``.
        lines: the line of each key and of each element of an array, by dotted name; ``sgx.allowed_files[2]``.
        imports: lines on which a template draws in others, which are not read.
    """

    document: Mapping[str, Any]
    lines: Mapping[str, int]
    imports: tuple[int, ...] = ()

    def get(self, key: str) -> Any:
        """The value under a dotted key; None where there is none."""
        value: Any = self.document
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return None
            value = value[part]
        return value

    def table(self, key: str) -> Mapping[str, Any]:
        """The table under a dotted key; empty where there is none."""
        value = self.get(key)
        return value if isinstance(value, Mapping) else {}

    def line(self, key: str) -> int | None:
        """The line of a key; None when it is not there."""
        return self.lines.get(key)

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """Every dotted key with its value; arrays whole."""
        pending: list[tuple[str, Any]] = [("", self.document)]
        while pending:
            prefix, value = pending.pop()
            if isinstance(value, Mapping) and (value or not prefix):
                pending += [(f"{prefix}.{name}" if prefix else name, value[name]) for name in reversed(value)]
            else:
                yield prefix, value


def is_template(value: object) -> bool:
    """The value, or a part of it, is known only when the template is rendered; ``$(...)`` is Graphene's."""
    return isinstance(value, str) and ("{{" in value or "$(" in value)


def read_manifest(data: bytes) -> tuple[Reading, ...]:
    """Read a manifest, signed, unsigned or a template, of Gramine or of Graphene.

    Raises:
        InputError: ``manifest.*``: not UTF-8, too large, too deep, or not TOML once the template's marks are taken out.
    """
    text = _text(data)
    tags = _tags(text)
    if not tags:
        return (_parsed(text),)
    _check_size(data, _MAX_TEMPLATE)  # it is read several times
    variables = dict(_literals(tags))
    imports = tuple(text.count("\n", 0, tag.start) + 1 for tag in tags if tag.word in _IMPORTS)
    bodies: dict[str, Reading] = {}
    # Marks that stand in comments and strings of a manifest hide nothing from Gramine.
    with contextlib.suppress(ValueError, RecursionError):
        load_toml(text)
        bodies[text] = _parsed(text, imports)
    conditions = _conditions(tags)
    readings = max([each.stride * each.size for each in conditions.values()], default=1)
    if readings > _MAX_READINGS:
        raise InputError(
            "manifest.template",
            "the template has too many conditions within conditions",
            found=f"{readings} ways to read it",
            rule=f"at most {_MAX_READINGS}",
            remedy="lint what gramine-manifest makes of it",
        )
    for take in range(readings):
        body = _without_tags(text, tags, take, conditions, variables)
        if body not in bodies:
            bodies[body] = _parsed(body, imports)
    return tuple(bodies.values())


def read_signed(data: bytes) -> Reading:
    """Read the signed form of a manifest, which is TOML and no template.

    Raises:
        InputError: ``manifest.*``: not UTF-8, too large, too deep, not TOML, or not the same to Gramine.
    """
    text = _text(data)
    try:
        document = load_signed(text)
    except (ValueError, RecursionError) as error:
        raise _no_toml(error) from None
    return _read(document, text, ())


def _text(data: bytes) -> str:
    _check_size(data, MAX_MANIFEST_SIZE)
    try:
        return data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InputError("manifest.text", "the manifest is not UTF-8", found=f"byte {error.start}") from None


def _check_size(data: bytes, limit: int) -> None:
    if len(data) > limit:
        raise InputError(
            "manifest.size", "the manifest is too large", found=f"{len(data)} bytes", rule=f"at most {limit} bytes"
        )


def _parsed(body: str, imports: tuple[int, ...] = ()) -> Reading:
    try:
        document = load_toml(body)
    except (ValueError, RecursionError) as error:
        imports += tuple(at for at, line in enumerate(body.split("\n"), start=1) if _MAKE.fullmatch(line))
        body = _quoted(body)
        try:
            document = load_toml(body)
        except (ValueError, RecursionError):
            raise _no_toml(error) from None
    return _read(document, body, imports)


def _read(document: dict[str, Any], text: str, imports: tuple[int, ...]) -> Reading:
    _check_depth(document)
    return Reading(MappingProxyType(document), MappingProxyType(key_lines(text)), imports)


def _no_toml(error: Exception) -> InputError:
    return InputError(
        "manifest.toml",
        "the manifest is not TOML",
        found=str(error)[:200],
        rule="TOML 1.0, or a Jinja template of it",
        remedy="lint what gramine-manifest makes of it",
    )


def _check_depth(document: dict[str, Any]) -> None:
    pending: list[tuple[Any, int]] = [(document, 0)]
    while pending:
        value, depth = pending.pop()
        if depth > _MAX_DEPTH:
            raise InputError("manifest.depth", "the manifest is nested too deeply", rule=f"at most {_MAX_DEPTH} levels")
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        pending += [(child, depth + 1) for child in children]


def _quoted(text: str) -> str:
    """Graphene's first format as TOML: values are bare words, and ``make`` fills in lines of its own."""
    lines = []
    for line in text.split("\n"):
        key, equals, rest = line.partition("=")
        value, mark, comment = rest.partition("#")
        value = value.strip()
        if _MAKE.fullmatch(line):
            line = ""
        elif (
            equals
            and _KEY.fullmatch(key.strip())
            and value[:1] not in ('"', "'", "[", "{")
            and not _VALUE.fullmatch(value)
        ):
            line = f"{key}= '{value.replace(chr(39), '`')}' {mark}{comment}"
        lines.append(line)
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Tag:
    """A mark of Jinja's: where it begins, its text, and for a statement its first word, ``if`` or ``endfor``."""

    start: int
    text: str
    word: str


def _tags(text: str) -> list[_Tag]:
    found, at = list[_Tag](), 0
    never = set[str]()  # closings that do not come any more: looking again for each opening would take the square
    while opening := _OPENING.search(text, at):
        at = opening.end()
        closing = _CLOSING[opening[0]]
        end = -1 if closing in never else text.find(closing, at)
        if end < 0:
            never.add(closing)
            continue
        at = end + 2
        mark = text[opening.start() : at]
        statement = _STATEMENT.fullmatch(mark) if mark[1] == "%" else None
        found.append(_Tag(opening.start(), mark, statement[1] if statement else ""))
    return found


def _literals(tags: list[_Tag]) -> Iterator[tuple[str, str]]:
    """Variables that the template itself sets to a plain string."""
    for tag in tags:
        statement = _STATEMENT.fullmatch(tag.text) if tag.word == "set" else None
        match = _LITERAL.fullmatch(statement[2]) if statement else None
        if match:
            yield match[1], match[2] or match[3] or ""


def _without_tags(
    text: str, tags: list[_Tag], take: int, conditions: Mapping[int, _Condition], variables: Mapping[str, str]
) -> str:
    """The template's text as it is read for the time number ``take``; as many lines as before."""
    pieces, open_ifs, at, quote = list[str](), list[_If](), 0, ""
    for tag in tags:
        piece, mark, word = text[at : tag.start], tag.text, tag.word
        at = tag.start + len(mark)
        skipped = any(not each.taken for each in open_ifs)
        pieces.append(_lines_of(piece) if skipped else piece)
        quote = _open_quote(quote, piece)
        if word == "if":
            condition = conditions[tag.start]
            open_ifs.append(_If(wanted=take // condition.stride % condition.size))
        elif word in _BRANCHES and open_ifs:
            open_ifs[-1].branch += 1
        elif word == "endif" and open_ifs:
            open_ifs.pop()
        computed = mark.startswith("{{") and not skipped
        pieces.append(_expression(mark, variables, quote) if computed else _lines_of(mark))
    pieces.append(text[at:])
    return "".join(pieces)


def _open_quote(quote: str, piece: str) -> str:
    """The mark of the string that is open behind ``piece``, when ``quote`` was open before it; strings of one line."""
    escaped = False
    for char in piece:
        if char == "\n":
            quote = ""
        elif escaped:
            escaped = False
        elif char == "\\" and quote == '"':
            escaped = True
        elif char == quote:
            quote = ""
        elif char in "\"'" and not quote:
            quote = char
    return quote


@dataclass
class _If:
    """A condition that is being passed: the number of the branch that is wanted, and of the one that we are in."""

    wanted: int
    branch: int = 0

    @property
    def taken(self) -> bool:
        return self.branch == self.wanted


@dataclass
class _Condition:
    """An ``if``: how many branches it has, the empty one of a missing ``else`` included, and those around it together.

    In the reading number n it has branch n // stride % size, so that a condition within another one goes through its
    branches while the outer one stays with each of its own.
    """

    size: int = 1
    stride: int = 1
    has_else: bool = False


def _conditions(tags: list[_Tag]) -> dict[int, _Condition]:
    """Every condition by the place where it begins."""
    found, inside = dict[int, _Condition](), dict[int, list[int]]()
    pending = list[int]()
    for tag in tags:
        word = tag.word
        if word == "if":
            inside[tag.start] = pending[-_MAX_DEPTH:]
            found[tag.start] = _Condition()
            pending.append(tag.start)
        elif word in _BRANCHES and pending:
            found[pending[-1]].size += 1
            found[pending[-1]].has_else |= word == "else"
        elif word == "endif" and pending:
            pending.pop()
    for condition in found.values():
        condition.size += not condition.has_else
    for start, around in inside.items():
        found[start].stride = math.prod(found[each].size for each in around)
    return found


def _expression(mark: str, variables: Mapping[str, str], quote: str) -> str:
    """What stands in the place of ``{{ ... }}``: a known variable's value, or the expression itself, as text."""
    inner = mark[2:-2].strip("-+ \t\n")
    known = variables.get(inner)
    text = known if known is not None else "{{ " + " ".join(inner.split()).replace("\\", "/") + " }}"
    if quote == "'":
        return text.replace("'", "`")
    text = text.replace('"', "'")
    return text if quote else f'"{text}"{_lines_of(mark)}'


def _lines_of(text: str) -> str:
    return "\n" * text.count("\n")
