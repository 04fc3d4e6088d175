from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensconce.serving.core import CoreOptions, ServerCore
from ensconce.serving.manager import ModelManager, State
from ensconce.tfserving.messages import ModelServerConfig
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.text import parse_text

WaitFor = Callable[[Callable[[], object], str], None]
Make = Callable[..., ServerCore]


def test_models_come_and_go_with_the_configuration(
    core: Make, folder: Path, tmp_path: Path, wait_for: WaitFor, config: Any, model: Any
) -> None:
    (tmp_path / "n" / "9").mkdir(parents=True)
    served = core()
    served.reload(config(model("m", folder)))
    served.reload(config(model("n", tmp_path / "n")))
    assert ("n", 9) in served.manager.models()
    wait_for(lambda: served.manager.models() == (("n", 9),), "the old model to go")
    assert served.manager.status("m")[0].state is State.END
    # What was unloaded before can be loaded again.
    served.reload(config(model("m", folder), model("n", tmp_path / "n")))
    assert served.manager.models() == (("m", 2), ("n", 9))
    # An empty list unloads all.
    empty = ModelServerConfig()
    empty.model_config_list.SetInParent()
    served.reload(empty)
    wait_for(lambda: served.manager.models() == (), "all to go")


def test_another_base_path(
    core: Make, folder: Path, tmp_path: Path, wait_for: WaitFor, loading: Any, config: Any, model: Any
) -> None:
    (tmp_path / "other" / "4").mkdir(parents=True)
    (tmp_path / "same" / "4").mkdir(parents=True)
    served = core()
    served.reload(config(model("m", folder)))
    served.reload(config(model("m", tmp_path / "other")))
    wait_for(lambda: served.manager.models() == (("m", 4),), "the version in the other folder")
    served.reload(config(model("m", tmp_path / "same")))
    served.reload(config(model("m", folder)))
    wait_for(lambda: served.manager.models() == (("m", 2),), "the version in the first folder")
    assert (tmp_path / "same" / "4") not in [path for _, _, path in loading.calls]


def test_an_empty_configuration_is_none(core: Make, folder: Path, config: Any, model: Any) -> None:
    served = core()
    served.reload(ModelServerConfig())
    served.reload(config(model("m", folder)))
    with pytest.raises(RequestError, match="only legal to transition") as caught:
        served.reload(ModelServerConfig())
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert served.manager.models() == (("m", 2),)


def test_a_refused_configuration_changes_nothing(
    core: Make, folder: Path, tmp_path: Path, config: Any, model: Any
) -> None:
    served = core()
    served.reload(config(model("m", folder)))
    served.reload(config(model("m", folder, 'version_labels { key: "stable" value: 2 }')))
    before = served.config
    for bad in (
        config(model("m", folder), model("m", folder)),
        config(model("m", Path("relative"))),
        config(model("m", folder, 'version_labels { key: "stable" value: 1 }')),
        config(model("n", tmp_path, 'version_labels { key: "x" value: 1 }')),
    ):
        with pytest.raises(RequestError):
            served.reload(bad)
        assert served.config == before
        assert served.manager.resolve("m", label="stable").version == 2
        assert served.manager.models() == (("m", 2),)


def test_labels(core: Make, folder: Path, config: Any, model: Any) -> None:
    both = "model_version_policy { all {} }"
    stable, canary = 'version_labels { key: "stable" value: 1 }', 'version_labels { key: "canary" value: 2 }'
    served = core(CoreOptions(file_system_poll_wait_seconds=0))
    with pytest.raises(RequestError, match="Request to assign label to version 1 of model m, which is not currently"):
        served.reload(config(model("m", folder, both + stable)))
    served.reload(config(model("m", folder, both)))
    served.reload(config(model("m", folder, both + canary)))
    assert served.manager.resolve("m", label="canary").version == 2
    with pytest.raises(RequestError, match="Unrecognized servable version label: stable"):
        served.manager.resolve("m", label="stable")
    served.reload(config(model("m", folder, both)))
    with pytest.raises(RequestError, match="Unrecognized servable version label: canary"):
        served.manager.resolve("m", label="canary")


def test_labels_of_versions_that_are_to_come(core: Make, folder: Path, config: Any, model: Any) -> None:
    label = 'version_labels {{ key: "stable" value: {} }}'
    served = core(CoreOptions(file_system_poll_wait_seconds=0, allow_version_labels_for_unavailable_models=True))
    served.reload(config(model("m", folder, label.format(2))))
    assert served.manager.resolve("m", label="stable").version == 2
    # A label that is given already goes to no version that is not there.
    with pytest.raises(RequestError, match="which is not currently available for inference"):
        served.reload(config(model("m", folder, label.format(7))))
    served.reload(config(model("m", folder, label.format(2) + 'version_labels { key: "next" value: 7 }')))
    with pytest.raises(RequestError, match=r"Servable not found for request: Specific\(m, 7\)"):
        served.manager.resolve("m", label="next")


def test_following_a_file(
    core: Make,
    folder: Path,
    tmp_path: Path,
    wait_for: WaitFor,
    caplog: pytest.LogCaptureFixture,
    config: Any,
    model: Any,
) -> None:
    (tmp_path / "n" / "1").mkdir(parents=True)
    file = tmp_path / "models.config"

    def write(text: str) -> None:
        aside = tmp_path / "aside"
        aside.write_text(text)
        aside.replace(file)

    served = core()
    write(str(config(model("m", folder))))
    served.reload(parse_text(ModelServerConfig, file.read_bytes(), "file"))
    served.follow(file, 0.05)
    write(str(config(model("n", tmp_path / "n"))))
    wait_for(lambda: served.manager.models() == (("n", 1),), "the file to be followed")
    with caplog.at_level(logging.ERROR):
        write("model_config_list { nonsense")
        wait_for(lambda: "Failed to read ModelServerConfig file" in caplog.text, "the file to be refused")
        write("custom_model_config {}")
        wait_for(lambda: "PollFilesystemAndReloadConfig failed to ReloadConfig: Cannot" in caplog.text, "the config")
        file.unlink()
        wait_for(lambda: "there is no such file" in caplog.text, "the missing file")
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig" in caplog.text
    assert served.manager.models() == (("n", 1),)
    write(str(config(model("m", folder), model("n", tmp_path / "n"))))
    wait_for(lambda: served.manager.models() == (("m", 2), ("n", 1)), "the mended file")
    # What was changed in another way goes back to what the file says.
    served.reload(config(model("m", folder)))
    wait_for(lambda: served.manager.models() == (("m", 2), ("n", 1)), "the file to win")


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_file_that_is_not_followed(core: Make, tmp_path: Path, seconds: int) -> None:
    served = core()
    before = threading.active_count()
    served.follow(tmp_path / "missing", seconds)
    assert threading.active_count() == before


def test_a_table_of_ones_own(core: Make, folder: Path, config: Any, model: Any) -> None:
    manager = ModelManager()
    served = core(manager=manager)
    served.reload(config(model("m", folder)))
    assert manager.resolve("m").version == 2
