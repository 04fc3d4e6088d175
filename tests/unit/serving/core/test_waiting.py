from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensconce.serving.core import CoreOptions, ServerCore
from ensconce.serving.loading import LoadOptions
from ensconce.tfserving.refusal import Code, RequestError

WaitFor = Callable[[Callable[[], object], str], None]
Make = Callable[..., ServerCore]


def test_a_first_model_that_does_not_load(
    core: Make, folder: Path, tmp_path: Path, loading: Any, config: Any, model: Any
) -> None:
    (tmp_path / "n" / "1").mkdir(parents=True)
    loading.broken["m", 2] = [RequestError(Code.NOT_FOUND, "no graph")]
    served = core(CoreOptions(loading=LoadOptions(max_num_load_retries=0), file_system_poll_wait_seconds=0))
    with pytest.raises(RequestError) as caught:
        served.reload(config(model("m", folder), model("n", tmp_path / "n")))
    assert caught.value.code is Code.UNKNOWN
    assert caught.value.problem == (
        "1 servable(s) did not become available: {{{name: m version: 2} due to error: NOT_FOUND: no graph}, }"
    )
    assert served.manager.models() == (("n", 1),)


def test_a_later_model_that_does_not_load_leaves_the_others(
    core: Make, folder: Path, tmp_path: Path, loading: Any, config: Any, model: Any
) -> None:
    (tmp_path / "n" / "1").mkdir(parents=True)
    served = core(CoreOptions(loading=LoadOptions(max_num_load_retries=0), file_system_poll_wait_seconds=0))
    served.reload(config(model("m", folder)))
    loading.broken["n", 1] = [RequestError(Code.INTERNAL, "x")]
    with pytest.raises(RequestError, match=r"1 model\(s\) did not become available: \{\{\{name: n version: 1\}"):
        served.reload(config(model("m", folder), model("n", tmp_path / "n")))
    assert served.manager.resolve("m").version == 2


def test_a_model_without_versions_is_waited_for(
    core: Make,
    folder: Path,
    tmp_path: Path,
    wait_for: WaitFor,
    caplog: pytest.LogCaptureFixture,
    config: Any,
    model: Any,
) -> None:
    (tmp_path / "n" / "v1").mkdir(parents=True)
    served = core()
    done = threading.Event()

    def reload() -> None:
        served.reload(config(model("m", folder), model("n", tmp_path / "n")))
        done.set()

    thread = threading.Thread(target=reload)
    thread.start()
    wait_for(lambda: served.manager.models() == (("m", 2),), "the model that has a version")
    assert not done.is_set()
    assert "is named as a number" in caplog.text
    (tmp_path / "n" / "1").mkdir()
    served.poll()
    thread.join(60)
    assert done.is_set()
    assert served.manager.models() == (("m", 2), ("n", 1))


@pytest.fixture
def refused(core: Make, tmp_path: Path, wait_for: WaitFor, config: Any, model: Any) -> Callable[[Any], Any]:
    """What becomes of a configuration that waits for a model without versions, once something else is done."""

    def after(do: Callable[[ServerCore], None]) -> RequestError:
        served, refused = core(), list[RequestError]()

        def reload() -> None:
            try:
                served.reload(config(model("missing", tmp_path / "missing")))
            except RequestError as error:
                refused.append(error)

        thread = threading.Thread(target=reload)
        thread.start()
        wait_for(lambda: served.config.model_config_list.config, "the configuration")
        do(served)
        thread.join(60)
        return refused[0]

    return after


def test_a_configuration_that_waits_can_be_mended(refused: Any, folder: Path, config: Any, model: Any) -> None:
    def mend(served: ServerCore) -> None:
        served.reload(config(model("m", folder)))
        assert served.manager.models() == (("m", 2),)

    assert refused(mend).code is Code.ABORTED


def test_who_waits_is_told_when_the_server_stops(refused: Any) -> None:
    error = refused(lambda served: served.close())
    assert (error.code, error.problem) == (Code.UNAVAILABLE, "The server is stopping")
