from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ensconce.demo.witness import Witness
from ensconce.files import write_aside

WaitFor = Callable[[Callable[[], object], str], None]


def contents(archive: Path) -> set[bytes]:
    return {path.read_bytes() for path in archive.iterdir()}


def test_keeps_what_was_there_and_what_came_and_went(tmp_path: Path, wait_for: WaitFor) -> None:
    folder, archive = tmp_path / "folder", tmp_path / "archive"
    (folder / "old").mkdir(parents=True)
    (folder / "old" / "file").write_bytes(b"before")
    (folder / "link").symlink_to("/etc/passwd")
    with Witness(folder, archive) as witness:
        (folder / "new" / "deep").mkdir(parents=True)
        write_aside(folder / "new" / "deep" / "note", b"in passing")
        wait_for(lambda: witness.files >= 2, "a copy of the note")
        (folder / "new" / "deep" / "note").unlink()
        (folder / "old" / "file").unlink()
        write_aside(folder / "old" / "file", b"after")
        wait_for(lambda: witness.files >= 3, "a copy of what came after")
    assert contents(archive) == {b"before", b"in passing", b"after"}
    assert witness.missed == []


def test_says_what_it_missed(tmp_path: Path, wait_for: WaitFor) -> None:
    folder, archive = tmp_path / "folder", tmp_path / "archive"
    folder.mkdir()
    with Witness(folder, archive) as witness:
        archive.chmod(0o500)
        archive.rmdir()  # nothing can be kept from now on
        (folder / "secret").write_bytes(b"gone")
        wait_for(lambda: witness.missed, "the note of what was missed")
    assert witness.missed == ["secret"]
