"""What cannot be read or written: a clear error, and nothing left behind."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ensconce import encfile
from ensconce.encfile.fileio import read_at, reader
from ensconce.errors import InputError

KEY = bytes(range(16))


def encrypt(source: Path, target: Path) -> None:
    encfile.encrypt_file(source, target, KEY, embedded_path="x")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_missing_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        encrypt(tmp_path / "in", tmp_path / "out")
    with pytest.raises(InputError, match="No such file"):
        encfile.decrypt_bytes(tmp_path / "in", KEY, verify_path=None)
    assert names(tmp_path) == []


def test_inputs_that_are_not_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for source in (tmp_path / "pipe", tmp_path / "folder", tmp_path / "socket", Path("/dev/zero")):
            with pytest.raises(InputError) as caught:
                encrypt(source, tmp_path / "out")
            assert caught.value.check == "encfile.input"
    assert not (tmp_path / "out").exists()


def test_outputs_that_cannot_be_meant(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "hard").hardlink_to(tmp_path / "in")
    (tmp_path / "soft").symlink_to("in")
    before = names(tmp_path)
    for target in ("in", "folder", "pipe", "hard", "soft", "/dev/full"):
        with pytest.raises(InputError) as caught:
            encrypt(tmp_path / "in", tmp_path / target)
        assert caught.value.check == "encfile.output"
    with pytest.raises(InputError, match="check the path, and that its folder exists"):
        encrypt(tmp_path / "in", tmp_path / "no" / "such")
    assert names(tmp_path) == before
    assert (tmp_path / "in").read_bytes() == b"x"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_leaves_nothing(tmp_path: Path, workers: int) -> None:
    # A limit on the size of files fails in the same call, with another errno, as a disk that is full.
    (tmp_path / "in").write_bytes(bytes(12 << 20))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6 << 20, hard))
    try:
        with pytest.raises(InputError, match="File too large") as caught:
            encfile.encrypt_file(tmp_path / "in", tmp_path / "out", KEY, embedded_path="x", workers=workers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.check == "file.write"
    assert names(tmp_path) == ["in"]


def test_a_source_that_changes_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.write_bytes(bytes(3 << 20))

    def grow(_count: int) -> None:
        with source.open("ab") as file:
            file.write(b"more")

    with pytest.raises(InputError) as caught:
        encfile.encrypt_file(source, tmp_path / "out", KEY, embedded_path="x", progress=grow)
    assert caught.value.check == "encfile.input_changed"

    def cut(_count: int) -> None:
        os.truncate(source, 10)

    with pytest.raises(InputError) as caught:
        encfile.encrypt_file(source, tmp_path / "out", KEY, embedded_path="x", progress=cut)
    assert caught.value.check == "encfile.input_changed"
    assert names(tmp_path) == ["in"]


def _helpers_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"ensconce.encfile.helper" in arguments and str(pid).encode() in arguments:
            found.append(int(entry.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_process_leaves_no_helper(
    tmp_path: Path, number: signal.Signals, wait_for: Callable[[Callable[[], object], str], None]
) -> None:
    with (tmp_path / "in").open("wb") as file:
        file.truncate(4 << 30)  # sparse
    program = (
        "import sys; from pathlib import Path; from ensconce import encfile; i, o = map(Path, sys.argv[1:]); "
        "encfile.encrypt_file(i, o, bytes(16), embedded_path='x', workers=2)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "in"), str(tmp_path / "out")], stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: _helpers_of(child.pid) or child.poll() is not None, "a helper")
        assert child.poll() is None
        child.send_signal(number)
        assert child.wait(30) != 0
        wait_for(lambda: not _helpers_of(child.pid), "its helpers to be gone")
    finally:
        child.kill()
    if number == signal.SIGINT:
        assert names(tmp_path) == ["in"]
    assert not (tmp_path / "out").exists()


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    with (tmp_path / "in").open("wb") as file:
        file.truncate(160 << 20)  # sparse
    (tmp_path / "small").write_bytes(bytes(2 << 20))
    program = (
        "import os, resource, sys; from pathlib import Path; from ensconce import encfile\n"
        "os.chdir(sys.argv[1]); sizes = []\n"
        "for name in ('small', 'in'):\n"
        "    encfile.encrypt_file(Path(name), Path('enc'), bytes(16), embedded_path='x', workers=1)\n"
        "    encfile.decrypt_file(Path('enc'), Path('out'), bytes(16), verify_path='x', workers=1)\n"
        "    sizes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        "print(sizes[1] - sizes[0])"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path)]
    grown = int(subprocess.run(arguments, check=True, capture_output=True).stdout)
    assert grown < 4096, f"{grown} KiB more for 160 MiB"


@pytest.mark.parametrize("error", [MemoryError(), OSError(12, "Cannot allocate memory"), OverflowError()])
def test_a_plaintext_that_there_is_no_memory_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def nothing(_size: int) -> memoryview:
        raise error

    (tmp_path / "in").write_bytes(bytes(5000))
    encrypt(tmp_path / "in", tmp_path / "out")
    monkeypatch.setattr("ensconce.encfile.decrypt.room", nothing)
    with pytest.raises(InputError) as caught:
        encfile.decrypt_to_memory(tmp_path / "out", KEY, verify_path="x")
    assert (caught.value.check, caught.value.found) == ("encfile.memory", "7168 bytes needed")


def test_a_device_that_fails_and_a_file_that_is_cut_off_while_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"short")
    with (tmp_path / "in").open("rb") as file:
        for read in (partial(_read_at, file.fileno()), reader(file.fileno(), tmp_path / "in")):
            with pytest.raises(InputError) as caught:
                read(memoryview(bytearray(10)), 0)
            assert caught.value.check == "encfile.input_changed"
    # Closed behind their backs, which is as good as a device that fails.
    file = (tmp_path / "in").open("rb")
    handle = file.fileno()
    readers = [partial(_read_at, handle), reader(handle, tmp_path / "in")]
    file.close()
    for read in readers:
        with pytest.raises(InputError, match="Bad file descriptor") as caught:
            read(memoryview(bytearray(1)), 0)
        assert caught.value.check == "encfile.input"


def _read_at(handle: int, view: memoryview, offset: int) -> None:
    read_at(handle, view, offset, Path("a file"))
