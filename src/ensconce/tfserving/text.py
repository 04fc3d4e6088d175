"""Configuration files in protocol buffers' text format, as the original's flags name them.

The original parses with ``ParseProtoTextFile`` (util/proto_util.h), whose parser writes "Error parsing text-format
TYPE: LINE:COLUMN: ..." to the log; programs look for it there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format
from google.protobuf.message import Message

from ensconce.errors import InputError, printable
from ensconce.files import read_bounded
from ensconce.tfserving.messages import POOL, SSLConfig

__all__ = ["MAX_TEXT", "parse_text", "read_text_file"]

MAX_TEXT: Final = 1 << 20
"""Longest configuration, in bytes: some thousands of models."""
_MAX_DEPTH: Final = 50
"""Deepest nesting of messages and lists; the configurations go five deep."""
_MAX_REASON: Final = 200

# A string that has no end is passed over, too (the parser refuses it): looked for again behind each quote in it, an end
# that there is not takes time by the square of the text.
_NOT_STRUCTURE = re.compile(rb"#[^\n]*|\"(?:[^\"\\\n]|\\.)*\"?|'(?:[^'\\\n]|\\.)*'?")


def parse_text(kind: Any, text: bytes, source: str) -> Any:
    """The message that a text holds.

    Args:
        kind: class of the message, of :mod:`ensconce.tfserving.messages`.
        text: UTF-8.
        source: what the text is, for the error: its path.

    Raises:
        InputError: ``config.text``, longer than :data:`MAX_TEXT`, nested too deeply, no UTF-8, or no such message.
    """
    if len(text) > MAX_TEXT:
        raise _refused(kind, source, f"more than {MAX_TEXT} bytes")
    if _depth(text) > _MAX_DEPTH:
        raise _refused(kind, source, f"nested more than {_MAX_DEPTH} deep")
    message = kind()
    try:
        text_format.Parse(text.decode(), message, descriptor_pool=POOL)
    except UnicodeDecodeError as error:
        raise _refused(kind, source, f"byte {error.start} is no UTF-8") from None
    except text_format.ParseError as error:
        raise _refused(kind, source, _reason(kind, error)) from None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        # Of the parser's own making: a value that its field cannot hold, among others.
        raise _refused(kind, source, type(error).__name__) from None
    return message


def read_text_file(kind: Any, path: Path) -> Any:
    """The message that a file holds.

    Raises:
        InputError: ``config.text`` as :func:`parse_text`; ``file.read`` or ``file.size``, it cannot be read.
    """
    return parse_text(kind, read_bounded(path, MAX_TEXT), str(path))


def _depth(text: bytes) -> int:
    """How deep brackets go, outside of strings and comments; too much rather than too little."""
    deepest = depth = 0
    for byte in _NOT_STRUCTURE.sub(b"", text):
        if byte in b"{<[":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"}>]":
            depth -= 1
    return deepest


def _reason(kind: type[Message], error: text_format.ParseError) -> str:
    """Where and why, in one line. The parser quotes what it did not understand: never for a file that holds a key."""
    line, column = error.GetLine(), error.GetColumn()
    place = f"{line}:{column}: " if line is not None else ""
    if kind is SSLConfig:
        return f"{place}not understood"
    text = printable(re.sub(r"^\d+:\d+ : ", "", str(error)))
    return place + (text if len(text) <= _MAX_REASON else text[:_MAX_REASON] + "...")


def _refused(kind: Any, source: str, reason: str) -> InputError:
    return InputError(
        "config.text",
        f"Error parsing text-format {kind.DESCRIPTOR.full_name}: {reason}",
        found=source,
        rule="protocol buffers' text format",
        remedy="mend the file",
    )
