from __future__ import annotations

import logging

import pytest

from ensconce.cli.text_log import TextLines


def line(message: str = "policy.refused", **fields: object) -> str:
    record = logging.LogRecord("ensconce.x", logging.ERROR, "x.py", 1, message, (), None)
    if fields:
        record.fields = fields
    return TextLines().format(record)


def test_a_record_without_fields() -> None:
    assert line() == "ERROR ensconce.x: policy.refused"


def test_fields_follow_the_message() -> None:
    text = line(peer="127.0.0.1:5", count=3, problem="it is older", key_ids=["a", "b"])
    assert text == 'ERROR ensconce.x: policy.refused peer=127.0.0.1:5 count=3 problem="it is older" key_ids=["a", "b"]'


@pytest.mark.parametrize("said", ["x check=none", 'x" check="none', "x\ncheck=none", "\x1b[2J", "\u202ex", ""])
def test_what_strangers_say_fakes_no_field_and_steers_no_terminal(said: str) -> None:
    text = line(found=said, check="policy.debug")
    assert text.isascii()
    assert text.isprintable()
    assert text.startswith('ERROR ensconce.x: policy.refused found="')
    assert text.endswith(" check=policy.debug")


def test_objects_are_told_by_their_type() -> None:
    assert line(value=object()).endswith('value="object"')
