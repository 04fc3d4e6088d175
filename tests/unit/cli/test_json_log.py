from __future__ import annotations

import json
import logging

from ensconce.cli.json_log import JsonLines


def line(message: str = "key.refused", exc_info: object = None, **fields: object) -> str:
    record = logging.LogRecord("ensconce.x", logging.WARNING, "x.py", 1, message, (), exc_info)  # type: ignore[arg-type]
    record.created = 1_800_000_000.1239
    if fields:
        record.fields = fields
    return JsonLines().format(record)


def test_one_object_for_each_line() -> None:
    assert json.loads(line(peer="127.0.0.1:5", count=3)) == {
        "time": "2027-01-15T08:00:00.123Z",
        "level": "warning",
        "logger": "ensconce.x",
        "event": "key.refused",
        "peer": "127.0.0.1:5",
        "count": 3,
    }


def test_what_strangers_say_cannot_fake_a_line_or_steer_a_terminal() -> None:
    text = line(found='x"}\n{"event":"key.released"}\x1b[2J\u202e\u2028')
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text)["event"] == "key.refused"


def test_fields_do_not_replace_the_lines_own() -> None:
    assert json.loads(line(event="key.released", time="never"))["event"] == "key.refused"


def test_exceptions_are_told_by_their_kind_and_objects_by_their_type() -> None:
    try:
        raise ValueError("the secret")
    except ValueError as error:
        text = line(exc_info=(type(error), error, error.__traceback__), value=object())
    assert "the secret" not in text
    assert json.loads(text)["exception"] == "ValueError"
    assert json.loads(text)["value"] == "object"
