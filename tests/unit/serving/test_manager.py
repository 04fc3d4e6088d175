from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ensconce.errors import InputError
from ensconce.serving.manager import ModelManager, State, VersionStatus
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


def test_a_version_that_is_taken_out_answers_no_new_request(manager: ModelManager) -> None:
    request = manager.resolve("m")
    manager.remove("m", 10)
    assert manager.resolve("m").version == 2
    assert request.version == 10
    assert manager.status("m", 10)[0].state is State.END
    manager.remove("m", 2, State.UNLOADING)
    assert [status.state for status in manager.status("m")] == [State.END, State.UNLOADING, State.AVAILABLE]
    manager.remove("m", 1)
    assert manager.models() == ()
    with pytest.raises(RequestError, match=r"Servable not found for request: Latest\(m\)"):
        manager.resolve("m")
    with pytest.raises(RequestError, match=r"Servable not found for request: Specific\(m, 1\)"):
        manager.resolve("m", 1)
    manager.add("m", 10, Nothing())
    assert manager.status("m", 10)[0].state is State.AVAILABLE


def test_what_is_not_loaded_cannot_be_taken_out(manager: ModelManager) -> None:
    for name, version in (("m", 3), ("other", 1)):
        with pytest.raises(InputError, match="is not loaded"):
            manager.remove(name, version)


def test_every_request_is_answered_by_the_same_object(manager: ModelManager) -> None:
    assert manager.resolve("m") is manager.resolve("m", 10)


def test_states_that_others_tell(manager: ModelManager) -> None:
    manager.note("m", VersionStatus(11, State.END, Code.DATA_LOSS, "damaged"))
    assert manager.status("m")[0] == VersionStatus(11, State.END, Code.DATA_LOSS, "damaged")
    assert manager.resolve("m").version == 10


def test_of_versions_that_have_ended_the_oldest_are_forgotten(manager: ModelManager) -> None:
    for version in range(1000, 1150):
        manager.note("m", VersionStatus(version, State.END))
    manager.note("m", VersionStatus(1060, State.END, Code.INTERNAL, "again"))
    versions = [status.version for status in manager.status("m")]
    assert versions == [*range(1149, 1049, -1), 10, 2, 1]
    manager.note("m", VersionStatus(2000, State.END))
    assert [status.version for status in manager.status("m")][-4:] == [1051, 10, 2, 1]
    assert manager.status("m", 1060)[0].text == "again"


def test_labels(manager: ModelManager) -> None:
    manager.label({"m": {"stable": 2, "canary": 10}})
    assert manager.resolve("m", label="stable").version == 2
    for name, label in (("m", "other"), ("m", ""), ("n", "stable")):
        with pytest.raises(RequestError, match="Unrecognized servable version label") as caught:
            manager.resolve(name, label=label)
        assert caught.value.code is Code.INVALID_ARGUMENT
    manager.label({"m": {"stable": 10}})
    assert manager.resolve("m", label="stable").version == 10
    with pytest.raises(RequestError, match="Unrecognized servable version label: canary"):
        manager.resolve("m", label="canary")
    manager.remove("m", 10)
    with pytest.raises(RequestError, match=r"Servable not found for request: Specific\(m, 10\)"):
        manager.resolve("m", label="stable")


@pytest.mark.parametrize("state", [None, State.START, State.LOADING, State.UNLOADING, State.END])
def test_a_label_goes_to_a_version_that_is_available(manager: ModelManager, state: State | None) -> None:
    manager.label({"m": {"stable": 2}})
    if state is not None:
        manager.note("m", VersionStatus(11, state))
    with pytest.raises(RequestError) as caught:
        manager.label({"m": {"new": 1, "stable": 11}})
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert caught.value.problem == (
        "Request to assign label to version 11 of model m, which is not currently available for inference"
    )
    assert manager.resolve("m", label="stable").version == 2
    with pytest.raises(RequestError, match="Unrecognized"):
        manager.resolve("m", label="new")


def test_labels_of_versions_that_are_to_come(manager: ModelManager) -> None:
    manager.label({"m": {"next": 11}, "n": {"first": 1}}, allow_unavailable=True)
    with pytest.raises(RequestError, match=r"Specific\(n, 1\)"):
        manager.resolve("n", label="first")
    # Said again it is the same; another version it may only mean when that is there.
    manager.label({"m": {"next": 11}}, allow_unavailable=True)
    with pytest.raises(RequestError, match="version 12 of model m, which is not currently available"):
        manager.label({"m": {"next": 12}}, allow_unavailable=True)
    manager.label({"m": {"next": 2}}, allow_unavailable=True)
    assert manager.resolve("m", label="next").version == 2
