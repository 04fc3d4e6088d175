"""A configuration in force: what the folders hold is what is served."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensconce.serving.batching.scheduler import Scheduler
from ensconce.serving.core import CoreOptions, ServerCore
from ensconce.serving.loading import LoadOptions
from ensconce.serving.manager import ModelManager, State
from ensconce.tfserving.messages import ModelServerConfig
from ensconce.tfserving.refusal import Code, RequestError
from ensconce.tfserving.text import parse_text

WaitFor = Callable[[Callable[[], object], str], None]
Make = Callable[..., ServerCore]


def config(*models: str) -> Any:
    text = "".join(f'config {{ model_platform: "tensorflow" {model} }}' for model in models)
    return parse_text(ModelServerConfig, f"model_config_list {{ {text} }}".encode(), "test")


def model(name: str, folder: Path, more: str = "") -> str:
    return f'name: "{name}" base_path: "{folder}" {more}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a model with versions 1 and 2."""
    for version in ("1", "00000002"):
        (tmp_path / "m" / version).mkdir(parents=True)
    return tmp_path / "m"


@pytest.fixture
def core(loading: Any) -> Iterator[Make]:
    made: list[ServerCore] = []

    def make(options: CoreOptions | None = None, **more: Any) -> ServerCore:
        # Folders are looked into when the test says so.
        made.append(ServerCore(loading, options or CoreOptions(file_system_poll_wait_seconds=0), **more))
        return made[-1]

    yield make
    for held in loading.held.values():
        held.set()
    for each in made:
        each.close()


def versions(core: ServerCore) -> tuple[tuple[str, int], ...]:
    return core.manager.models()


def test_the_latest_version_is_there_when_reload_returns(core: Make, folder: Path, loading: Any) -> None:
    served = core()
    served.reload(config(model("m", folder)))
    assert versions(served) == (("m", 2),)
    assert loading.calls == [("m", 2, folder / "00000002")]
    assert served.config == config(model("m", folder))


def test_versions_come_and_go_with_their_folders(core: Make, folder: Path, wait_for: WaitFor) -> None:
    served = core()
    served.reload(config(model("m", folder)))
    (folder / "3").mkdir()
    served.poll()
    wait_for(lambda: versions(served) == (("m", 3),), "the new version")
    shutil.rmtree(folder / "3")
    served.poll()
    wait_for(lambda: versions(served) == (("m", 2),), "the old version")
    for path in list(folder.iterdir()):
        shutil.rmtree(path)
    served.poll()
    wait_for(lambda: versions(served) == (), "no version")


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ("latest { num_versions: 2 }", (1, 2)),
        ("all {}", (1, 2)),
        ("specific { versions: 1 }", (1,)),
    ],
)
def test_policies(core: Make, folder: Path, policy: str, wanted: tuple[int, ...], wait_for: WaitFor) -> None:
    served = core()
    served.reload(config(model("m", folder, f"model_version_policy {{ {policy} }}")))
    wait_for(lambda: versions(served) == tuple(("m", version) for version in wanted), "the versions")
    # A change of the policy is followed, too.
    served.reload(config(model("m", folder, "model_version_policy { specific { versions: [2] } }")))
    wait_for(lambda: versions(served) == (("m", 2),), "the other versions")


def test_folders_are_looked_into_again_and_again(core: Make, folder: Path, wait_for: WaitFor) -> None:
    served = core(CoreOptions(file_system_poll_wait_seconds=0.05))
    served.reload(config(model("m", folder)))
    (folder / "7").mkdir()
    wait_for(lambda: versions(served) == (("m", 7),), "the new version")


def test_folders_are_never_looked_into(core: Make, folder: Path) -> None:
    served = core(CoreOptions(file_system_poll_wait_seconds=-1))
    served.reload(config(model("m", folder)), wait=False)
    with pytest.raises(RequestError, match="Could not find any versions of model m"):
        served.manager.status("m")


def test_a_folder_that_vanishes_takes_nothing_with_it(
    core: Make, folder: Path, tmp_path: Path, wait_for: WaitFor, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "n" / "1").mkdir(parents=True)
    served = core()
    served.reload(config(model("m", folder), model("n", tmp_path / "n")))
    folder.rename(tmp_path / "away")
    (tmp_path / "n" / "2").mkdir()
    served.poll()
    wait_for(lambda: versions(served) == (("m", 2), ("n", 2)), "the other model's new version")
    served.poll()
    assert caplog.text.count("Could not find base path") == 1
    (tmp_path / "away").rename(folder)
    (folder / "5").mkdir()
    served.poll()
    wait_for(lambda: versions(served) == (("m", 5), ("n", 2)), "the version that came meanwhile")


def test_models_come_and_go_with_the_configuration(core: Make, folder: Path, tmp_path: Path, wait_for: WaitFor) -> None:
    (tmp_path / "n" / "9").mkdir(parents=True)
    served = core()
    served.reload(config(model("m", folder)))
    served.reload(config(model("n", tmp_path / "n")))
    assert ("n", 9) in versions(served)
    wait_for(lambda: versions(served) == (("n", 9),), "the old model to go")
    assert served.manager.status("m")[0].state is State.END
    # What was unloaded before can be loaded again.
    served.reload(config(model("m", folder), model("n", tmp_path / "n")))
    assert versions(served) == (("m", 2), ("n", 9))
    # An empty list unloads all.
    empty = ModelServerConfig()
    empty.model_config_list.SetInParent()
    served.reload(empty)
    wait_for(lambda: versions(served) == (), "all to go")


def test_another_base_path(core: Make, folder: Path, tmp_path: Path, wait_for: WaitFor, loading: Any) -> None:
    (tmp_path / "other" / "4").mkdir(parents=True)
    (tmp_path / "same" / "4").mkdir(parents=True)
    served = core()
    served.reload(config(model("m", folder)))
    served.reload(config(model("m", tmp_path / "other")))
    wait_for(lambda: versions(served) == (("m", 4),), "the version in the other folder")
    served.reload(config(model("m", tmp_path / "same")))
    served.reload(config(model("m", folder)))
    wait_for(lambda: versions(served) == (("m", 2),), "the version in the first folder")
    assert (tmp_path / "same" / "4") not in [path for _, _, path in loading.calls]


def test_a_first_model_that_does_not_load(core: Make, folder: Path, tmp_path: Path, loading: Any) -> None:
    (tmp_path / "n" / "1").mkdir(parents=True)
    loading.broken["m", 2] = [RequestError(Code.NOT_FOUND, "no graph")]
    served = core(CoreOptions(loading=LoadOptions(max_num_load_retries=0), file_system_poll_wait_seconds=0))
    with pytest.raises(RequestError) as caught:
        served.reload(config(model("m", folder), model("n", tmp_path / "n")))
    assert caught.value.code is Code.UNKNOWN
    assert caught.value.problem == (
        "1 servable(s) did not become available: {{{name: m version: 2} due to error: NOT_FOUND: no graph}, }"
    )
    assert versions(served) == (("n", 1),)


def test_a_later_model_that_does_not_load_leaves_the_others(
    core: Make, folder: Path, tmp_path: Path, loading: Any
) -> None:
    (tmp_path / "n" / "1").mkdir(parents=True)
    served = core(CoreOptions(loading=LoadOptions(max_num_load_retries=0), file_system_poll_wait_seconds=0))
    served.reload(config(model("m", folder)))
    loading.broken["n", 1] = [RequestError(Code.INTERNAL, "x")]
    with pytest.raises(RequestError, match=r"1 model\(s\) did not become available: \{\{\{name: n version: 1\}"):
        served.reload(config(model("m", folder), model("n", tmp_path / "n")))
    assert served.manager.resolve("m").version == 2


def test_a_model_without_versions_is_waited_for(
    core: Make, folder: Path, tmp_path: Path, wait_for: WaitFor, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "n" / "v1").mkdir(parents=True)
    served = core()
    done = threading.Event()

    def reload() -> None:
        served.reload(config(model("m", folder), model("n", tmp_path / "n")))
        done.set()

    thread = threading.Thread(target=reload)
    thread.start()
    wait_for(lambda: versions(served) == (("m", 2),), "the model that has a version")
    assert not done.is_set()
    assert "is named as a number" in caplog.text
    (tmp_path / "n" / "1").mkdir()
    served.poll()
    thread.join(60)
    assert done.is_set()
    assert versions(served) == (("m", 2), ("n", 1))


def test_a_configuration_that_waits_can_be_mended(core: Make, folder: Path, tmp_path: Path, wait_for: WaitFor) -> None:
    served = core()
    refused: list[RequestError] = []

    def reload() -> None:
        try:
            served.reload(config(model("missing", tmp_path / "missing")))
        except RequestError as error:
            refused.append(error)

    thread = threading.Thread(target=reload)
    thread.start()
    wait_for(lambda: served.config.model_config_list.config, "the first configuration")
    served.reload(config(model("m", folder)))
    thread.join(60)
    assert [error.code for error in refused] == [Code.ABORTED]
    assert versions(served) == (("m", 2),)


def test_who_waits_is_told_when_the_server_stops(core: Make, tmp_path: Path, wait_for: WaitFor) -> None:
    served = core()
    refused: list[RequestError] = []

    def reload() -> None:
        try:
            served.reload(config(model("missing", tmp_path / "missing")))
        except RequestError as error:
            refused.append(error)

    thread = threading.Thread(target=reload)
    thread.start()
    wait_for(lambda: served.config.model_config_list.config, "the configuration")
    served.close()
    thread.join(60)
    assert [(error.code, error.problem) for error in refused] == [(Code.UNAVAILABLE, "The server is stopping")]


def test_an_empty_configuration_is_none(core: Make, folder: Path) -> None:
    served = core()
    served.reload(ModelServerConfig())
    served.reload(config(model("m", folder)))
    with pytest.raises(RequestError, match="only legal to transition") as caught:
        served.reload(ModelServerConfig())
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert versions(served) == (("m", 2),)


def test_a_refused_configuration_changes_nothing(core: Make, folder: Path, tmp_path: Path) -> None:
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
        assert versions(served) == (("m", 2),)


def test_labels(core: Make, folder: Path) -> None:
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


def test_labels_of_versions_that_are_to_come(core: Make, folder: Path) -> None:
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
    core: Make, folder: Path, tmp_path: Path, wait_for: WaitFor, caplog: pytest.LogCaptureFixture
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
    wait_for(lambda: versions(served) == (("n", 1),), "the file to be followed")
    with caplog.at_level(logging.ERROR):
        write("model_config_list { nonsense")
        wait_for(lambda: "Failed to read ModelServerConfig file" in caplog.text, "the file to be refused")
        write("custom_model_config {}")
        wait_for(lambda: "PollFilesystemAndReloadConfig failed to ReloadConfig: Cannot" in caplog.text, "the config")
        file.unlink()
        wait_for(lambda: "there is no such file" in caplog.text, "the missing file")
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig" in caplog.text
    assert versions(served) == (("n", 1),)
    write(str(config(model("m", folder), model("n", tmp_path / "n"))))
    wait_for(lambda: versions(served) == (("m", 2), ("n", 1)), "the mended file")
    # What was changed in another way goes back to what the file says.
    served.reload(config(model("m", folder)))
    wait_for(lambda: versions(served) == (("m", 2), ("n", 1)), "the file to win")


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_file_that_is_not_followed(core: Make, tmp_path: Path, seconds: int) -> None:
    served = core()
    before = threading.active_count()
    served.follow(tmp_path / "missing", seconds)
    assert threading.active_count() == before


def test_a_table_of_ones_own(core: Make, folder: Path) -> None:
    manager = ModelManager()
    served = core(manager=manager)
    served.reload(config(model("m", folder)))
    assert manager.resolve("m").version == 2


@pytest.fixture
def quick_turns() -> Iterator[None]:
    """Threads take turns fifty times as often: more interleavings, and nobody waits long for a busy thread."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 50)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("quick_turns")
def test_no_request_is_lost_while_versions_are_swapped(core: Make, tmp_path: Path, wait_for: WaitFor) -> None:
    """Threads predict while versions change forty times: each is answered, by a version that may still answer."""
    base = tmp_path / "m"
    (base / "1").mkdir(parents=True)
    options = CoreOptions(
        loading=LoadOptions(num_load_threads=2, num_unload_threads=1, max_num_load_retries=0),
        file_system_poll_wait_seconds=0,
    )
    served = core(options)
    served.reload(config(model("m", base)))
    stop = threading.Event()
    counts, errors = [0] * 3, []

    def ask(index: int) -> None:
        last = 0
        try:
            while not stop.is_set():
                loaded = served.manager.resolve("m")
                state = served.manager.status("m", loaded.version)[0].state
                assert state is not State.END, "a version ended while a request held it"
                assert loaded.servable.predict("", {}) == {"version": loaded.version}
                assert loaded.version >= last, "an older version answered after a newer one"
                last = loaded.version
                counts[index] += 1
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for version in range(2, 42):
        (base / str(version)).mkdir()
        (base / str(version - 1)).rmdir()
        before = list(counts)
        served.poll()
        wait_for(lambda: versions(served) == (("m", version),), "the switch")  # noqa: B023  # called at once
        wait_for(lambda: errors or all(a > b for a, b in zip(counts, before, strict=True)), "a request")  # noqa: B023
    stop.set()
    for thread in threads:
        thread.join(60)
    assert errors == []
    wait_for(lambda: served.manager.status("m", 40)[0].state is State.END, "the last but one to end")
    statuses = served.manager.status("m")
    assert [status.version for status in statuses if status.state is not State.END] == [41]


async def test_a_version_ends_although_the_scheduler_computed_with_it(
    core: Make, folder: Path, wait_for: WaitFor
) -> None:
    """What computes keeps no version longer than a request does: otherwise none would ever end on an idle server."""
    served, scheduler = core(), Scheduler()
    try:
        served.reload(config(model("m", folder)))
        for _ in range(3):
            await scheduler.predict(served.manager.resolve("m"), "serving_default", {"x": np.zeros((1, 1), np.float32)})
        (folder / "3").mkdir()
        served.poll()
        await asyncio.to_thread(
            wait_for, lambda: served.manager.status("m", 2)[0].state is State.END, "the old version to end"
        )
    finally:
        await scheduler.close()
