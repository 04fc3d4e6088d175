import hashlib
import importlib.util
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ExtensionFileLoader
from pathlib import Path

import pytest

from ensconce.enclave import early, replica
from ensconce.enclave.early import Libraries
from ensconce.errors import IntegrityError

FIRST, SECOND = b"one library" * 1000, b"another"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "memory").mkdir()
    entries = []
    for module, name, data in (
        ("", "a.so", FIRST),
        ("numbers.fast", "b.so", SECOND),
        ("", "c.so", b""),
        ("late", "d.so", FIRST),
    ):
        (tmp_path / name).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        entries.append(
            {"module": module, "file": name, "target": f"memory/{name}", "size": len(data), "sha256": digest}
        )
    path = tmp_path / "bulk.json"
    path.write_text(json.dumps(entries))
    return path


def started(index: Path) -> Libraries:
    libraries = Libraries(index)
    libraries.start()
    return libraries


def test_a_module_is_found_in_memory_once_what_is_before_it_is_there(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries = Libraries(index)
    # While OpenVINO reads a model, the process's working folder is another one.
    monkeypatch.chdir("/")
    libraries.start()
    found = libraries.find_spec("numbers.fast")
    assert found is not None
    assert found.origin == str(index.parent / "memory" / "b.so")
    assert isinstance(found.loader, ExtensionFileLoader)
    assert (index.parent / "memory" / "a.so").read_bytes() == FIRST
    assert (index.parent / "memory" / "b.so").read_bytes() == SECOND


def test_other_modules_are_others_to_find_at_once(index: Path) -> None:
    libraries = Libraries(index)
    assert libraries.find_spec("json") is None
    assert libraries.find_spec("numbers") is None


def test_an_import_waits(index: Path) -> None:
    libraries = Libraries(index)
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(libraries.find_spec, "late")
        with pytest.raises(TimeoutError):
            found.result(0.05)
        libraries.start()
        assert found.result(60) is not None


def test_a_large_library_comes_in_parts(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "_PART", 1000)
    assert started(index).find_spec("late") is not None
    assert (index.parent / "memory" / "d.so").read_bytes() == FIRST


@pytest.mark.parametrize("data", [b"", SECOND[:-1], SECOND + b"x", b"x" + SECOND[1:]])
def test_a_changed_library_is_never_put_in_place(index: Path, data: bytes) -> None:
    (index.parent / "b.so").write_bytes(data)
    if data == SECOND + b"x":
        # Only what was measured is read of a file that has grown.
        entries = json.loads(index.read_text())
        entries[1]["size"] += 1
        index.write_text(json.dumps(entries))
    libraries = started(index)
    for module in ("numbers.fast", "late"):
        with pytest.raises(IntegrityError) as caught:
            libraries.find_spec(module)
        assert caught.value.check == "replica.library"
    assert [path.name for path in (index.parent / "memory").iterdir()] == ["a.so"]


@pytest.mark.parametrize("name", ["a.so", "d.so"])
def test_a_missing_library_is_told(index: Path, name: str) -> None:
    (index.parent / name).unlink()
    libraries = started(index)
    with pytest.raises(IntegrityError) as caught:
        libraries.find_spec("late")
    assert caught.value.check == "replica.library"
    assert caught.value.found == str(index.parent / name)


def test_what_lies_in_its_place_already_is_not_believed(index: Path) -> None:
    (index.parent / "memory" / "b.part").write_bytes(b"another's")
    with pytest.raises(IntegrityError) as caught:
        started(index).find_spec("numbers.fast")
    assert caught.value.check == "replica.library"
    assert not (index.parent / "memory" / "b.so").exists()


def test_the_replica_begins_with_it(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import of one of its modules leads to the library that was checked."""
    monkeypatch.setattr(early, "INDEX", str(index))
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    seen = []
    monkeypatch.setattr(replica, "main", lambda: seen.append(importlib.util.find_spec("late")))
    early.main()
    assert seen[0].origin == str(index.parent / "memory" / "d.so")


def test_a_replica_that_cannot_be_imported_says_why(
    index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (index.parent / "d.so").write_bytes(SECOND)
    monkeypatch.setattr(early, "INDEX", str(index))
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    # A replica whose first import is of a library that was changed.
    monkeypatch.delattr(sys.modules["ensconce.enclave"], "replica")
    monkeypatch.delitem(sys.modules, "ensconce.enclave.replica")
    folder = index.parent / "ensconce-enclave"
    folder.mkdir()
    (folder / "replica.py").write_text("import late\n")
    monkeypatch.setattr(sys.modules["ensconce.enclave"], "__path__", [str(folder)])
    with pytest.raises(SystemExit) as caught:
        early.main()
    assert caught.value.code == IntegrityError.exit_status
    assert json.loads(capsys.readouterr().err)["error"]["check"] == "replica.library"


def test_each_library_is_read_once_since_the_host_may_answer_otherwise_the_next_time(index: Path) -> None:
    source = index.parent / "a.so"
    source.unlink()
    os.mkfifo(source)
    # Opened by whoever writes first, so that the one read meets its end as that of a file.
    with ThreadPoolExecutor(1) as host:
        written = host.submit(source.write_bytes, FIRST)
        libraries = started(index)
        assert libraries.find_spec("numbers.fast") is not None
        written.result()
    assert (index.parent / "memory" / "a.so").read_bytes() == FIRST
    libraries.join()
    # Nobody has it open, or opens it again.
    with pytest.raises(OSError, match="No such device or address"):
        os.open(source, os.O_WRONLY | os.O_NONBLOCK)
