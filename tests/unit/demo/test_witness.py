from __future__ import annotations

import time
from pathlib import Path

from ensconce.demo.witness import Witness
from ensconce.files import write_aside


def contents(archive: Path) -> set[bytes]:
    return {path.read_bytes() for path in archive.iterdir()}


def test_keeps_what_was_there_and_what_came_and_went(tmp_path: Path) -> None:
    folder, archive = tmp_path / "folder", tmp_path / "archive"
    (folder / "old").mkdir(parents=True)
    (folder / "old" / "file").write_bytes(b"before")
    (folder / "link").symlink_to("/etc/passwd")
    with Witness(folder, archive) as witness:
        (folder / "new" / "deep").mkdir(parents=True)
        write_aside(folder / "new" / "deep" / "note", b"in passing")
        deadline = time.monotonic() + 10
        while witness.files < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        (folder / "new" / "deep" / "note").unlink()
        (folder / "old" / "file").unlink()
        write_aside(folder / "old" / "file", b"after")
        while witness.files < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
    assert contents(archive) == {b"before", b"in passing", b"after"}
    assert witness.missed == []


def test_says_what_it_missed(tmp_path: Path) -> None:
    folder, archive = tmp_path / "folder", tmp_path / "archive"
    folder.mkdir()
    with Witness(folder, archive) as witness:
        archive.chmod(0o500)
        archive.rmdir()  # nothing can be kept from now on
        (folder / "secret").write_bytes(b"gone")
        deadline = time.monotonic() + 10
        while not witness.missed and time.monotonic() < deadline:
            time.sleep(0.005)
    assert witness.missed == ["secret"]
