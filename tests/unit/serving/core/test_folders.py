from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensconce.serving.core import CoreOptions, ServerCore
from ensconce.tfserving.refusal import RequestError

WaitFor = Callable[[Callable[[], object], str], None]
Make = Callable[..., ServerCore]


def test_the_latest_version_is_there_when_reload_returns(
    core: Make, folder: Path, loading: Any, config: Any, model: Any
) -> None:
    served = core()
    served.reload(config(model("m", folder)))
    assert served.manager.models() == (("m", 2),)
    assert loading.calls == [("m", 2, folder / "00000002")]
    assert served.config == config(model("m", folder))


def test_versions_come_and_go_with_their_folders(
    core: Make, folder: Path, wait_for: WaitFor, config: Any, model: Any
) -> None:
    served = core()
    served.reload(config(model("m", folder)))
    (folder / "3").mkdir()
    served.poll()
    wait_for(lambda: served.manager.models() == (("m", 3),), "the new version")
    shutil.rmtree(folder / "3")
    served.poll()
    wait_for(lambda: served.manager.models() == (("m", 2),), "the old version")
    for path in list(folder.iterdir()):
        shutil.rmtree(path)
    served.poll()
    wait_for(lambda: served.manager.models() == (), "no version")


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ("latest { num_versions: 2 }", (1, 2)),
        ("all {}", (1, 2)),
        ("specific { versions: 1 }", (1,)),
    ],
)
def test_policies(
    core: Make, folder: Path, policy: str, wanted: tuple[int, ...], wait_for: WaitFor, config: Any, model: Any
) -> None:
    served = core()
    served.reload(config(model("m", folder, f"model_version_policy {{ {policy} }}")))
    wait_for(lambda: served.manager.models() == tuple(("m", version) for version in wanted), "the versions")
    # A change of the policy is followed, too.
    served.reload(config(model("m", folder, "model_version_policy { specific { versions: [2] } }")))
    wait_for(lambda: served.manager.models() == (("m", 2),), "the other versions")


def test_folders_are_looked_into_again_and_again(
    core: Make, folder: Path, wait_for: WaitFor, config: Any, model: Any
) -> None:
    served = core(CoreOptions(file_system_poll_wait_seconds=0.05))
    served.reload(config(model("m", folder)))
    (folder / "7").mkdir()
    wait_for(lambda: served.manager.models() == (("m", 7),), "the new version")


def test_folders_are_never_looked_into(core: Make, folder: Path, config: Any, model: Any) -> None:
    served = core(CoreOptions(file_system_poll_wait_seconds=-1))
    served.reload(config(model("m", folder)), wait=False)
    with pytest.raises(RequestError, match="Could not find any versions of model m"):
        served.manager.status("m")


def test_a_folder_that_vanishes_takes_nothing_with_it(
    core: Make,
    folder: Path,
    tmp_path: Path,
    wait_for: WaitFor,
    caplog: pytest.LogCaptureFixture,
    config: Any,
    model: Any,
) -> None:
    (tmp_path / "n" / "1").mkdir(parents=True)
    served = core()
    served.reload(config(model("m", folder), model("n", tmp_path / "n")))
    folder.rename(tmp_path / "away")
    (tmp_path / "n" / "2").mkdir()
    served.poll()
    wait_for(lambda: served.manager.models() == (("m", 2), ("n", 2)), "the other model's new version")
    served.poll()
    assert caplog.text.count("Could not find base path") == 1
    (tmp_path / "away").rename(folder)
    (folder / "5").mkdir()
    served.poll()
    wait_for(lambda: served.manager.models() == (("m", 5), ("n", 2)), "the version that came meanwhile")
