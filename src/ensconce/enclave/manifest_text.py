"""A manifest as text: dotted keys, a line of comment above each choice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import tomli_w

__all__ = ["Choice", "lines", "value"]

Choice = tuple[str | None, str, Any]
"""What to say of an option, or nothing; its dotted key; its value, where a mapping is one line for each member."""


def lines(choices: Iterable[Choice]) -> Iterable[str]:
    """The text of each choice, comment first."""
    for comment, key, each in choices:
        if comment is not None:
            yield "".join(f"# {line}\n" for line in comment.splitlines())
        if isinstance(each, Mapping):
            yield from (f"{key}.{name} = {value(member)}\n" for name, member in each.items())
        else:
            yield f"{key} = {value(each)}\n"


def value(each: Any) -> str:
    """A value in TOML: arrays with a line for each element, tables inline."""
    if isinstance(each, list):
        return "[\n" + "".join(f"  {value(item)},\n" for item in each) + "]" if each else "[]"
    if isinstance(each, Mapping):
        return "{ " + ", ".join(f"{name} = {value(member)}" for name, member in each.items()) + " }"
    return tomli_w.dumps({"value": each}).removeprefix("value = ").rstrip("\n")
