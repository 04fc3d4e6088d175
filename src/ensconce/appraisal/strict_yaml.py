"""YAML files that people write, read strictly: every field is known, every mistake has a line number.

A small, safe part of YAML 1.2's core schema is read, because whatever is not checked is not accepted:

* one document, UTF-8, at most 1 MiB, nested at most 16 deep;
* no control or formatting characters but tabs and newlines: where YAML sees the end of a line, an editor shows one line
  that goes on, and somebody signs what looks like a comment;
* no anchors, aliases, merge keys or tags, no key twice in one mapping;
* unquoted ``true`` and ``false`` are booleans, ``null``, ``~`` and nothing are null, decimal numbers without leading
  zeros of at most 18 digits are integers, numbers with a decimal point are floats. Anything else is text, so ``no``,
  ``1:30``, ``0x10`` or 64 digits that happen to hold no letter mean what they look like.

Parsing ends with plain Python objects and a line for each; the caller's pydantic model judges them.
"""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ensconce.errors import InputError
from ensconce.files import read_bounded

__all__ = ["MAX_BYTES", "Document", "Location", "load", "parse"]

MAX_BYTES = 1 << 20
MAX_DEPTH = 16

Location = tuple[str | int, ...]

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\Z")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}(?:[eE][-+]?[0-9]{1,2})?\Z")
_SURROGATE = re.compile("[\ud800-\udfff]")
# Unicode's general categories of controls, formatting, and separators of lines and paragraphs.
_INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp"})
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}

M = TypeVar("M", bound=BaseModel)


def load(path: Path, model: type[M]) -> M:
    """Read the file and check it against ``model``.

    Args:
        path: the YAML file.
        model: a pydantic model; it is validated strictly. Derive it from
            :class:`ensconce.strict.StrictModel`, so that unknown fields
            are errors.

    Raises:
        InputError: the file cannot be read; ``yaml.syntax``, ``yaml.duplicate_key``, ``yaml.alias``, ``yaml.tag``,
            ``yaml.depth``; ``yaml.unknown_field``, ``yaml.missing_field``, ``yaml.value``. All name file, line and
            field.
    """
    return parse(read_bounded(path, MAX_BYTES), str(path)).validate(model)


def parse(data: bytes, name: str) -> Document:
    """Parse one YAML document.

    Args:
        data: the file's bytes.
        name: what messages call the file, usually its path.

    Raises:
        InputError: as :func:`load`, but for the fields.
    """
    if len(data) > MAX_BYTES:
        raise InputError(
            "yaml.size", f"{name} is too large", found=f"{len(data)} bytes", rule=f"at most {MAX_BYTES} bytes"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            "yaml.syntax",
            f"{name} line {line}: not UTF-8",
            found=f"byte 0x{data[error.start]:02x}",
            remedy="save it as UTF-8",
        ) from None
    _refuse_invisible(text, name)
    try:
        return _Builder(name, iter(yaml.parse(text, Loader=yaml.SafeLoader))).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise InputError(
            "yaml.syntax",
            f"{name} line {line}: not valid YAML: {error.problem or error.context or 'cannot be parsed'}",
            remedy="check indentation, colons and quotes on this line and the one before",
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError("yaml.syntax", f"{name} line {line}: a character that YAML does not allow") from None


def _refuse_invisible(text: str, name: str) -> None:
    """Refuse what makes a file read differently from what it shows; a byte order mark in front shows nothing."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    unseen = {each for each in set(text) if unicodedata.category(each) in _INVISIBLE} - {"\n", "\t"}
    if unseen:
        first = min(map(text.index, unseen))
        raise InputError(
            "yaml.syntax",
            f"{name} line {text.count(chr(10), 0, first) + 1}: a character that cannot be seen, and may hide others",
            found=f"U+{ord(text[first]):04X}",
            remedy='remove it; in a value, write it as an escape, such as "\\u200d"',
        )


@dataclass(frozen=True)
class Document:
    """A parsed file: its plain value, and the line of every field."""

    name: str
    value: Any
    lines: dict[Location, int]

    def line(self, location: Location) -> int:
        """The line of a field, or of the nearest thing around it that is in the file (1 is the first line)."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)

    def error(
        self,
        location: Location,
        check: str,
        problem: str,
        *,
        found: str | None = None,
        rule: str | None = None,
        remedy: str | None = None,
    ) -> InputError:
        """An error about one field, to be raised by whoever judged it."""
        field = dotted(location)
        where = f"{self.name} line {self.line(location)}" + (f", field {field}" if field else "")
        return InputError(check, f"{where}: {problem}", found=found, rule=rule, remedy=remedy)

    def validate(self, model: type[M]) -> M:
        """The document as an instance of ``model``.

        Raises:
            InputError: about the first field, in the file's order, that does not fit; it says how many more do not.
        """
        if not isinstance(self.value, dict):
            raise self.error(
                (),
                "yaml.value",
                "the file must be a mapping of fields to values",
                found="nothing" if self.value is None else type(self.value).__name__,
                rule=f"fields: {', '.join(_names(model.model_json_schema(), ()))}",
            )
        try:
            # Through JSON, because there pydantic's strict mode takes arrays as tuples and strings as enumerations.
            return model.model_validate_json(json.dumps(self.value), strict=True)
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=True)
        raise self._first(details, model)

    def _first(self, details: list[ErrorDetails], model: type[BaseModel]) -> InputError:
        # A misspelt field is both unknown and missing: the unknown one tells more, so it comes first on equal lines.
        ordered = sorted(details, key=lambda d: (self.line(self._known(d["loc"])), d["type"] != "extra_forbidden"))
        detail = ordered[0]
        location = self._known(detail["loc"])
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        if detail["type"] == "extra_forbidden":
            names = _names(model.model_json_schema(), location[:-1])
            close = difflib.get_close_matches(str(location[-1]), names, n=1)
            return self.error(
                location,
                "yaml.unknown_field",
                f"unknown field{more}",
                found=_shown(location[-1]),
                rule=f"valid here: {', '.join(names)}" if names else "no field is valid here",
                remedy=f"did you mean {close[0]!r}?" if close else "remove the field",
            )
        if detail["type"] == "missing":
            location = (*self._known(detail["loc"][:-1]), detail["loc"][-1])
            return self.error(
                location,
                "yaml.missing_field",
                f"required field is missing{more}",
                rule=f"fields here: {', '.join(_names(model.model_json_schema(), location[:-1]))}",
                remedy=f"add {location[-1]!r}",
            )
        value = self._value(location)
        quote = detail["type"] == "string_type" and isinstance(value, bool | int | float)
        return self.error(
            location,
            "yaml.value",
            f"wrong value{more}",
            found=_shown(value),
            rule=f"valid: {_valid(detail)}",
            remedy="write the value in quotes" if quote else None,
        )

    def _known(self, location: Sequence[str | int]) -> Location:
        """The part of pydantic's location that is in the file (it adds names of union members and validators)."""
        known: Location = ()
        for part in location:
            if (*known, part) in self.lines:
                known = (*known, part)
        return known

    def _value(self, location: Location) -> Any:
        value = self.value
        for part in location:
            value = value[part]
        return value


def dotted(location: Location) -> str:
    """A location as people write it: ``identities[0].mr_enclave``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class _Builder:
    """Turns parser events into values, without recursion in the parser and with bounds in ours."""

    def __init__(self, name: str, events: Iterator[Any]) -> None:
        self._name = name
        self._events = events
        self._lines: dict[Location, int] = {}

    def document(self) -> Document:
        """Read all events; one document is required."""
        next(self._events)  # stream start
        event = next(self._events)
        value: Any = None
        if not isinstance(event, yaml.StreamEndEvent):
            value = self._node(next(self._events), ())
            next(self._events)  # document end
            event = next(self._events)
            if not isinstance(event, yaml.StreamEndEvent):
                raise self._error("yaml.syntax", event, "a second document in one file", "keep one document per file")
        return Document(self._name, value, self._lines)

    def _node(self, event: Any, location: Location) -> Any:
        self._lines.setdefault(location, _line(event))
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self._error("yaml.alias", event, "anchors and aliases are not accepted", "write the value out")
        if event.tag is not None:
            raise self._error("yaml.tag", event, "tags are not accepted", "remove the tag that starts with '!'")
        if len(location) > MAX_DEPTH:
            raise self._error("yaml.depth", event, f"nested more than {MAX_DEPTH} deep", "flatten it")
        if isinstance(event, yaml.ScalarEvent):
            self._text(event)
            return _scalar(event.value) if event.style is None else event.value
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(location)
        return self._mapping(location)

    def _sequence(self, location: Location) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            values.append(self._node(event, (*location, len(values))))
        return values

    def _mapping(self, location: Location) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.tag is not None or event.anchor is not None:
                raise self._error("yaml.syntax", event, "a field's name must be plain text", "check this line")
            key = self._text(event)
            here = (*location, key)
            if key in values:
                raise self._error(
                    "yaml.duplicate_key",
                    event,
                    f"{dotted(here)} is given twice (first on line {self._lines[here]})",
                    "keep one of the two",
                )
            self._lines[here] = _line(event)
            values[key] = self._node(next(self._events), here)
        return values

    def _text(self, event: Any) -> str:
        text = str(event.value)
        if _SURROGATE.search(text):
            raise self._error("yaml.syntax", event, "half of a surrogate pair", "write the character itself")
        return text

    def _error(self, check: str, event: Any, problem: str, remedy: str) -> InputError:
        return InputError(check, f"{self._name} line {_line(event)}: {problem}", remedy=remedy)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _scalar(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.match(text):
        return int(text)
    return float(text) if _FLOAT.match(text) else text


def _names(schema: dict[str, Any], location: Location) -> list[str]:
    """The field names that the model takes at ``location``, from its JSON schema."""
    definitions = schema.get("$defs", {})
    nodes = [schema]
    for part in (*location, None):
        nodes = [leaf for node in nodes for leaf in _resolved(node, definitions)]
        if part is None:
            break
        if isinstance(part, int):
            below = [node["items"] for node in nodes if isinstance(node.get("items"), dict)]
        else:
            below = [node["properties"][part] for node in nodes if part in node.get("properties", {})]
            below += [
                node["additionalProperties"]
                for node in nodes
                if part not in node.get("properties", {}) and isinstance(node.get("additionalProperties"), dict)
            ]
        nodes = below
    return [name for node in nodes for name in node.get("properties", {})]


def _resolved(node: dict[str, Any], definitions: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "$ref" in node:
        yield from _resolved(definitions[node["$ref"].rpartition("/")[2]], definitions)
        return
    yield node
    for key in ("anyOf", "oneOf", "allOf"):
        for choice in node.get(key, ()):
            yield from _resolved(choice, definitions)


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _valid(detail: ErrorDetails) -> str:
    if detail["type"] in ("list_type", "tuple_type", "set_type", "frozen_set_type"):
        return "a list"
    if detail["type"] in ("dict_type", "model_type", "model_attributes_type", "dataclass_type"):
        return "a mapping of fields to values"
    message = detail["msg"]
    for noise in ("Value error, ", "Input should be ", "a valid "):
        message = message.removeprefix(noise)
    return message[:1].lower() + message[1:] if message[1:2].islower() else message
