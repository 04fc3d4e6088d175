from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ensconce.errors import InputError
from ensconce.serving.manager import ModelManager, State
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.signatures import Signature


class Nothing:
    signatures: Mapping[str, Signature] = {}

    def predict(self, signature_name: str, inputs: Mapping[str, Any], output_filter: Sequence[str] = ()) -> Any:
        return {}


@pytest.fixture
def manager() -> ModelManager:
    manager = ModelManager()
    for version in (2, 10, 1):
        manager.add("m", version, Nothing())
    return manager


def test_the_latest_version_answers_unless_another_is_asked_for(manager: ModelManager) -> None:
    assert manager.resolve("m").version == 10
    assert manager.resolve("m", 2).version == 2
    assert manager.models() == (("m", 1), ("m", 2), ("m", 10))


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("",), Code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        (("other",), Code.NOT_FOUND, "Servable not found for request: Latest(other)"),
        (("m", 3), Code.NOT_FOUND, "Servable not found for request: Specific(m, 3)"),
        (("m", -1), Code.NOT_FOUND, "Servable not found for request: Specific(m, -1)"),
        (("m", None, "stable"), Code.INVALID_ARGUMENT, "Unrecognized servable version label: stable"),
    ],
)
def test_what_is_not_there_is_refused_in_the_originals_words(
    manager: ModelManager, arguments: tuple[Any, ...], code: Code, text: str
) -> None:
    with pytest.raises(RequestError) as caught:
        manager.resolve(*arguments)
    assert (caught.value.code, caught.value.problem) == (code, text)
    assert caught.value.check == f"serving.{code.name.lower()}"


def test_status(manager: ModelManager) -> None:
    assert [status.version for status in manager.status("m")] == [10, 2, 1]
    assert manager.status("m", 2)[0].state is State.AVAILABLE
    with pytest.raises(RequestError, match="Could not find any versions of model other"):
        manager.status("other")
    with pytest.raises(RequestError, match="Could not find version 3 of model m"):
        manager.status("m", 3)


@pytest.mark.parametrize(("name", "version"), [("m", 2), ("", 1), ("m", -1)])
def test_versions_that_cannot_be_added_are_refused(manager: ModelManager, name: str, version: int) -> None:
    with pytest.raises(InputError) as caught:
        manager.add(name, version, Nothing())
    assert caught.value.check == "serving.model"
