from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.serving.version_policy import Action, Phase, VersionView, choose_versions, next_action, parse_version
from ensconce.tfserving.messages import ModelConfig
from ensconce.tfserving.text import parse_text


def policy(text: str) -> object:
    return parse_text(ModelConfig, f"model_version_policy {{ {text} }}".encode(), "test").model_version_policy


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("1", 1),
        ("00000123", 123),
        ("0", 0),
        ("-0", 0),
        ("+7", 7),
        (" 7\t", 7),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", None),
        ("9" * 100_000, None),
        ("0" * 100_000 + "5", 5),
        ("-1", None),
        ("", None),
        ("1.0", None),
        ("1e3", None),
        ("0x10", None),
        ("1_0", None),
        ("٣", None),
        ("\xa05", None),
        ("1 2", None),
        ("v1", None),
        (".5.part", None),
    ],
)
def test_names_of_folders(name: str, version: int | None) -> None:
    assert parse_version(name) == version


@given(st.text(max_size=30))
def test_a_version_is_a_number_that_python_reads_alike(name: str) -> None:
    version = parse_version(name)
    assert version is None or (version == int(name) and 0 <= version < 2**63)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("", {10: "10"}),
        ("latest {}", {10: "10"}),
        ("latest { num_versions: 2 }", {10: "10", 3: "03"}),
        ("latest { num_versions: 99 }", {10: "10", 3: "03", 1: "1"}),
        ("all {}", {10: "10", 3: "03", 1: "1"}),
        ("specific { versions: [1, 3] }", {3: "03", 1: "1"}),
        ("specific { versions: [3, 7] }", {3: "03"}),
        ("specific {}", {}),
    ],
)
def test_policies(text: str, chosen: dict[int, str]) -> None:
    names = ["1", "03", "10", "tmp", "saved_model.pb"]
    assert choose_versions("m", policy(text), names) == chosen
    assert list(choose_versions("m", policy(text), reversed(names))) == sorted(chosen, reverse=True)


@pytest.mark.parametrize(("text", "folder"), [("latest {}", "1"), ("specific { versions: 1 }", "1"), ("all {}", "001")])
def test_of_two_folders_of_one_number_the_original_takes(
    text: str, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert choose_versions("m", policy(text), ["1", "001", "01"]) == {1: folder}
    assert "version 1 of model m is served from" in caplog.text


def test_a_version_that_is_asked_for_and_not_there_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        choose_versions("m", policy("specific { versions: 7 }"), ["1"])
    assert "version 7 of model m" in caplog.text


NEW, LOADING, READY = Phase.NEW, Phase.LOADING, Phase.READY
UNLOADING, FAILED = Phase.UNLOADING, Phase.FAILED


@pytest.mark.parametrize(
    ("versions", "action"),
    [
        ([], None),
        ([(1, NEW, True)], (Action.LOAD, 1)),
        ([(1, NEW, True), (3, NEW, True), (2, NEW, True)], (Action.LOAD, 3)),
        ([(1, READY, False), (2, NEW, True)], (Action.LOAD, 2)),
        ([(1, READY, False), (2, LOADING, True)], None),
        ([(1, READY, False), (2, FAILED, True)], None),
        ([(1, READY, False), (2, READY, True)], (Action.UNLOAD, 1)),
        ([(1, READY, False), (2, READY, False), (3, LOADING, True)], (Action.UNLOAD, 1)),
        ([(2, READY, False)], (Action.UNLOAD, 2)),
        ([(1, READY, False), (2, READY, False)], (Action.UNLOAD, 1)),
        ([(1, READY, False), (2, READY, True), (3, NEW, True)], (Action.UNLOAD, 1)),
        ([(1, UNLOADING, False), (2, READY, True)], None),
        ([(1, NEW, False)], None),
        ([(1, LOADING, False)], None),
    ],
)
def test_the_next_thing_to_do(versions: list[tuple[int, Phase, bool]], action: tuple[Action, int] | None) -> None:
    assert next_action([VersionView(*each) for each in versions]) == action
