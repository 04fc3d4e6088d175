import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ensconce.enclave.layers import ImageFile, LayerCache, copy_all, default_cache, hash_file
from ensconce.errors import InputError

KEY = "a" * 64


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "one").write_bytes(b"1" * 3_000_000)
    (folder / "sub" / "two").write_bytes(b"")
    return folder


@pytest.fixture
def files(source: Path, tmp_path: Path) -> tuple[ImageFile, ...]:
    return copy_all([(source / name, name) for name in ("sub/two", "one")], tmp_path / "image")


@pytest.fixture
def cache(tmp_path: Path, files: tuple[ImageFile, ...]) -> LayerCache:
    cache = LayerCache(tmp_path / "cache")
    cache.save(KEY, tmp_path / "image", files, [ImageFile("/usr/bin/python3", 1, "00" * 32)])
    return cache


def test_copies_are_hashed_and_sorted(files: tuple[ImageFile, ...], source: Path) -> None:
    assert [file.path for file in files] == ["one", "sub/two"]
    assert files[0] == hash_file(source / "one", "one")
    assert files[1].size == 0


def test_a_layer_comes_back_as_it_was(cache: LayerCache, files: tuple[ImageFile, ...], tmp_path: Path) -> None:
    restored = cache.restore(KEY, tmp_path / "again")
    assert restored == (files, (ImageFile("/usr/bin/python3", 1, "00" * 32),))
    assert (tmp_path / "again" / "one").read_bytes() == b"1" * 3_000_000
    assert (tmp_path / "again" / "one").stat().st_nlink == 1


def test_an_unknown_layer_is_none(cache: LayerCache, tmp_path: Path) -> None:
    assert cache.restore("b" * 64, tmp_path / "again") is None


def flip(entry: Path) -> None:
    data = bytearray((entry / "tree" / "one").read_bytes())
    data[7] ^= 1
    (entry / "tree" / "one").write_bytes(data)


def cut(entry: Path) -> None:
    (entry / "tree" / "one").write_bytes(b"1" * 1000)


def lose(entry: Path) -> None:
    (entry / "tree" / "sub" / "two").unlink()


def half_index(entry: Path) -> None:
    (entry / "index.json").write_bytes((entry / "index.json").read_bytes()[:40])


def odd_index(entry: Path) -> None:
    (entry / "index.json").write_text(json.dumps({"files": [{"path": "one"}], "system_files": []}))


@pytest.mark.parametrize("damage", [flip, cut, lose, half_index, odd_index])
def test_a_damaged_layer_is_dropped(
    cache: LayerCache, files: tuple[ImageFile, ...], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(cache.folder / KEY)
    assert cache.restore(KEY, tmp_path / "again") is None
    assert not (cache.folder / KEY).exists()
    assert not [path for path in (tmp_path / "again").rglob("*") if path.is_file()]
    cache.save(KEY, tmp_path / "image", files)
    assert cache.restore(KEY, tmp_path / "again") == (files, ())


def test_two_that_save_the_same_layer_agree(cache: LayerCache, files: tuple[ImageFile, ...], tmp_path: Path) -> None:
    cache.save(KEY, tmp_path / "image", files)
    assert [path.name for path in cache.folder.iterdir()] == [KEY]


def test_layers_not_used_for_long_go(cache: LayerCache, files: tuple[ImageFile, ...], tmp_path: Path) -> None:
    for number in range(8):
        cache.save(f"{number:064x}", tmp_path / "image", files)
        os.utime(cache.folder / f"{number:064x}", (number, number))
    os.utime(cache.folder / KEY, (0, 0))
    assert cache.restore(KEY, tmp_path / "again") is not None
    cache.save("f" * 64, tmp_path / "image", files)
    left = {path.name for path in cache.folder.iterdir()}
    assert len(left) == 8
    assert KEY in left
    assert f"{0:064x}" not in left


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path, files: tuple[ImageFile, ...]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        LayerCache(tmp_path / "file" / "cache").save(KEY, tmp_path / "image", files)
    assert caught.value.check == "image.cache"


def test_nothing_half_made_is_seen_when_saving_fails(
    tmp_path: Path, cache: LayerCache, files: tuple[ImageFile, ...]
) -> None:
    shutil.rmtree(tmp_path / "image" / "sub")
    with pytest.raises(InputError):
        cache.save("c" * 64, tmp_path / "image", files)
    assert [path.name for path in cache.folder.iterdir()] == [KEY]


def test_layers_are_kept_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "ensconce" / "images"


def test_what_killed_processes_left_goes_after_a_while(
    cache: LayerCache, files: tuple[ImageFile, ...], tmp_path: Path
) -> None:
    for name, age in ((".old", 7200), (".new", 10)):
        (cache.folder / name / "tree").mkdir(parents=True)
        os.utime(cache.folder / name, (time.time() - age,) * 2)
    cache.save("d" * 64, tmp_path / "image", files)
    assert {path.name for path in cache.folder.iterdir()} == {KEY, "d" * 64, ".new"}
