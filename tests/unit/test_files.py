"""Files that are written aside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ensconce.errors import InputError
from ensconce.files import write_aside


def test_a_file_is_replaced_and_a_link_to_one(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to(path)
    for data in (b"first", b"second"):
        write_aside(path, data)
        assert path.read_bytes() == data
    write_aside(link, b"third")
    assert link.read_bytes() == b"third"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_nothing_else_loses_its_place_to_a_file(tmp_path: Path, make) -> None:
    path, link = tmp_path / "special", tmp_path / "link"
    make(path)
    link.symlink_to(path)
    for each in (path, link):
        with pytest.raises(InputError) as caught:
            write_aside(each, b"data")
        assert caught.value.check == "file.create"
    assert not path.is_file()
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [link, path]
