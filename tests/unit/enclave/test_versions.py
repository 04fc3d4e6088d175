"""What is served of what lies in ``models/``: real ciphertext, an owner and a clock of the test's own."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ensconce.encfile import encrypt_file
from ensconce.encfile.room import room
from ensconce.enclave.config import MAX_LOADED, EngineConfig, ModelConfig, VersionsConfig
from ensconce.enclave.versions import Versions
from ensconce.errors import EnsconceError, InputError, IntegrityError, RefusedError
from ensconce.models.contents import contents_bytes
from ensconce.models.layout import CONTENTS, embedded_path
from ensconce.serving.manager import ModelManager, State
from ensconce.tfserving.refusal import RequestError

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "openvino"
Wait = Callable[[Callable[[], object], str], None]


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def refusal(check: str) -> RefusedError:
    return RefusedError(check, "the owner refuses")


class World:
    """A folder ``models/``, an owner who grants or refuses, and the versions that come of it."""

    def __init__(self, base: Path, wait: Wait) -> None:
        self.base, self._wait = base, wait
        self.now = 1000.0
        self.asked: list[int] = []
        self.refused: dict[int, EnsconceError] = {}
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.manager = ModelManager()
        self.versions: Versions | None = None

    def lay(self, number: int, place: int | None = None) -> Path:
        target = self.base / "models" / "m" / str(place or number)
        target.mkdir(parents=True)
        names = ("model.xml", "model.bin", "signatures.json")
        listed = self.base / "contents"
        listed.write_bytes(contents_bytes(names))
        for name, path in ((CONTENTS, listed), *((name, DIGITS / name) for name in names)):
            encrypt_file(path, target / name, key(number), embedded_path=embedded_path("m", number, name))
        return target

    def start(self, *keys: int, refused: dict[int, EnsconceError] | None = None, **versions: Any) -> None:
        self.versions = Versions(
            self.base / "models",
            [ModelConfig(name="m", versions=VersionsConfig(**versions) if versions else None)],
            EngineConfig(threads=1),
            self.manager,
            self._ask,
            lambda event, **fields: self.told.append((event, fields)),
            clock=lambda: self.now,
        )
        self.versions.start(
            {("m", number): key(number) for number in keys},
            {("m", number): error for number, error in (refused or {}).items()},
        )
        self.versions.follow()

    def _ask(self, name: str, number: int) -> bytes:
        assert name == "m"
        self.asked.append(number)
        if number in self.refused:
            raise self.refused[number]
        return key(number)

    def look(self) -> None:
        assert self.versions is not None
        self.versions.look()

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Look again and again, in no time of the clock's."""

        def reached() -> object:
            self.look()
            return condition()

        self._wait(reached, what)

    def served(self) -> list[int]:
        return [number for _, number in self.manager.models()]

    def failed(self, number: int) -> list[str]:
        return [fields["check"] for event, fields in self.told if event == "failed" and fields.get("version") == number]

    def ended(self, number: int) -> bool:
        try:
            return self.manager.status("m", number)[0].state is State.END
        except RequestError:
            return False


@pytest.fixture
def world(tmp_path: Path, wait_for: Wait) -> Iterator[World]:
    (tmp_path / "models" / "m").mkdir(parents=True)
    world = World(tmp_path, wait_for)
    yield world
    if world.versions is not None:
        world.versions.close()


def test_keys_that_were_granted_are_asked_for_no_second_time(world: World) -> None:
    for number in (1, 2):
        world.lay(number)
    world.start(1, 2)
    assert world.served() == [1, 2]
    assert world.asked == []
    world.lay(3)
    world.until(lambda: world.served() == [1, 2, 3], "version 3")
    assert world.asked == [3]


def test_a_refused_key_is_asked_for_again_ever_more_seldom(world: World) -> None:
    world.lay(1)
    world.start(1)
    world.refused[2] = refusal("key.unknown")
    world.lay(2)
    for tries, wait in enumerate((5, 10, 20, 40, 80, 160, 320, 600, 600), 1):
        world.until(lambda tries=tries: len(world.failed(2)) == tries and world.ended(2), "a failure")
        for _ in range(3):
            world.look()
        world.now += wait - 1
        for _ in range(3):
            world.look()
        assert world.asked == [2] * tries
        world.now += 1
    world.refused.clear()
    world.until(lambda: world.served() == [1, 2], "version 2, once it is granted")


def test_a_retired_key_is_asked_for_once(world: World) -> None:
    world.lay(1)
    world.lay(2)
    world.start(1, refused={2: refusal("key.retired")})
    assert world.served() == [1]
    assert world.ended(2)
    world.refused[3] = refusal("key.retired")
    world.lay(3)
    world.until(lambda: world.failed(3), "version 3 to fail")
    for _ in range(5):
        world.now += 10_000
        world.look()
    world.lay(4)
    world.until(lambda: 4 in world.served(), "version 4")
    assert world.asked == [3, 4]


def test_a_folder_that_changes_is_tried_at_once(world: World) -> None:
    world.lay(1)
    world.start(1)
    target = world.lay(2)
    (target / "model.xml").rename(world.base / "kept")
    world.until(lambda: world.failed(2) == ["model.contents"], "version 2 to fail")
    (world.base / "kept").rename(target / "model.xml")
    world.until(lambda: world.served() == [1, 2], "version 2, in no time")


def test_a_copy_under_way_is_not_opened(world: World) -> None:
    world.lay(1)
    world.start(1)
    target = world.lay(2)
    for number in range(5):
        (target / f"more-{number}").write_text("")
        world.look()
    assert world.asked == []
    for number in range(5):
        (target / f"more-{number}").unlink()
    world.until(lambda: world.served() == [1, 2], "version 2")
    assert world.failed(2) == []


def test_the_latest_that_loads_is_served_and_what_fails_counts_for_nothing(world: World) -> None:
    for number in (1, 2):
        world.lay(number)
    world.lay(1, 3)
    world.start(1, 2, 3, latest=1)
    assert world.served() == [2]
    assert world.failed(3) == ["encfile.metadata_mac"]
    assert world.failed(1) == []
    world.lay(4)
    world.until(lambda: world.served() == [4], "version 4 alone")
    # Nothing older comes back, whatever the host takes away.
    for number in (2, 3, 4):
        shutil.rmtree(world.base / "models" / "m" / str(number))
    for _ in range(5):
        world.now += 1000
        world.look()
    assert world.served() == [4]
    assert [fields for event, fields in world.told if event == "missing"] == [
        {"model": "m", "version": 4, "served": True}
    ]


def test_a_version_that_is_withdrawn_may_be_granted_again(world: World) -> None:
    for number in (1, 2):
        world.lay(number)
    world.start(1, 2)
    assert world.versions is not None
    world.refused[2] = refusal("policy.receives")
    world.versions.withdraw("m", 2, world.refused[2])
    assert world.served() == [1]
    world.until(lambda: world.ended(2) and world.manager.status("m", 2)[0].text, "version 2 to end, and say why")
    assert "the owner refuses" in world.manager.status("m", 2)[0].text
    assert world.asked == []
    world.refused.clear()
    world.now += 10
    world.until(lambda: world.served() == [1, 2], "version 2 once more")
    assert world.asked == [2]


def test_a_version_that_is_withdrawn_for_good_leaves_its_place_to_an_older_one(world: World) -> None:
    for number in (1, 2):
        world.lay(number)
    world.start(2, latest=1)
    assert world.versions is not None
    world.versions.withdraw("m", 2, refusal("key.retired"))
    assert world.served() == []
    world.until(lambda: world.served() == [1], "version 1")
    assert world.asked == [1]
    world.now += 10_000
    world.look()
    assert world.asked == [1]


def test_only_what_is_named_is_looked_at(world: World) -> None:
    for number in (1, 2, 3):
        world.lay(number)
    world.start(1, 3, specific=[1, 3, 5])
    assert world.served() == [1, 3]
    world.lay(4)
    world.lay(5)
    world.until(lambda: world.served() == [1, 3, 5], "version 5")
    assert world.asked == [5]


def test_policies_may_change(world: World) -> None:
    for number in (1, 2, 3):
        world.lay(number)
    world.start(1, 2, 3)
    assert world.versions is not None
    world.versions.serve([ModelConfig(name="m", versions=VersionsConfig(latest=1))])
    world.until(lambda: world.served() == [3], "the latest alone")
    world.versions.serve([])
    world.until(lambda: world.served() == [], "none")
    world.versions.serve([ModelConfig(name="m")])
    world.until(lambda: world.served() == [1, 2, 3], "all")


def test_what_is_too_much_is_left_out_and_told_once(world: World) -> None:
    world.lay(1)
    world.start(1)
    for number in range(2, MAX_LOADED + 5):
        (world.base / "models" / "m" / str(number)).mkdir()
        world.refused[number] = refusal("key.unknown")
    newest = MAX_LOADED + 4
    world.until(lambda: len(set(world.asked)) >= MAX_LOADED - 1, "failures")
    assert world.served() == [1]
    assert world.asked[: MAX_LOADED - 1] == list(range(newest, newest - MAX_LOADED + 1, -1))
    told = [fields for event, fields in world.told if event == "failed" and "version" not in fields]
    assert [each["check"] for each in told] == ["replica.models"]
    # What has failed makes room for what has not.
    world.lay(newest + 1)
    world.until(lambda: world.served() == [1, newest + 1], "the version that is right")


def test_nothing_that_loads_is_the_newest_ones_error(world: World) -> None:
    world.lay(1, 2)
    world.lay(3, 1)
    with pytest.raises(IntegrityError) as caught:
        world.start(1, 2)
    assert "version 2" in str(caught.value.found)


def test_folders_that_went_before_they_were_looked_at_are_an_error(world: World) -> None:
    with pytest.raises(InputError, match="nothing to serve any more"):
        world.start(1)


def test_a_folder_that_cannot_be_read_changes_nothing_and_is_told_once(world: World) -> None:
    world.lay(1)
    world.start(1)
    folder = world.base / "models" / "m"
    folder.rename(world.base / "models" / "away")
    folder.symlink_to("m")
    for _ in range(3):
        world.look()
    assert world.served() == [1]
    assert [fields["check"] for event, fields in world.told if event == "failed"] == ["replica.models"]


def test_an_unforeseen_error_says_only_its_kind(world: World) -> None:
    world.lay(1)
    world.start(1)
    world.refused[2] = ValueError("the secret of the model")  # type: ignore[assignment]
    world.lay(2)
    world.until(lambda: world.failed(2), "version 2 to fail")
    assert "secret" not in str(world.told)
    assert world.served() == [1]


def test_a_version_that_fails_leaves_nothing_of_itself_in_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms: list[weakref.ref[memoryview]] = []

    def noting(size: int) -> memoryview:
        made = room(size)
        rooms.append(weakref.ref(made))
        return made

    monkeypatch.setattr("ensconce.encfile.decrypt.room", noting)
    world.lay(1)
    world.start(1)
    target = world.lay(2)
    rooms.clear()
    with (target / "model.xml").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes((last[0] ^ 1,)))
    world.until(lambda: world.failed(2) == ["encfile.node_mac"], "version 2 to fail")
    assert len(rooms) == 3  # the list of files, model.bin, and model.xml, which is plaintext but for its last part
    gc.collect()
    assert [each() for each in rooms] == [None] * 3
