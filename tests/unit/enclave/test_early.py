import hashlib
import json
from pathlib import Path

import pytest

from ensconce.enclave.early import Libraries
from ensconce.errors import IntegrityError

FIRST, SECOND = b"one library" * 1000, b"another"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "memory").mkdir()
    entries = []
    for package, name, data in (("numpy", "a.so", FIRST), ("openvino", "b.so", SECOND)):
        (tmp_path / name).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        entries.append(
            {"package": package, "file": name, "target": f"memory/{name}", "size": len(data), "sha256": digest}
        )
    path = tmp_path / "bulk.json"
    path.write_text(json.dumps(entries))
    return path


def test_an_import_waits_until_what_it_needs_is_there(index: Path) -> None:
    libraries = Libraries(index)
    libraries.start()
    assert libraries.find_spec("openvino") is None
    assert libraries.find_spec("json") is None
    assert (index.parent / "memory" / "a.so").read_bytes() == FIRST
    assert (index.parent / "memory" / "b.so").read_bytes() == SECOND


@pytest.mark.parametrize("data", [b"", SECOND[:-1], SECOND + b"x", b"x" + SECOND[1:]])
def test_a_changed_library_is_never_put_in_place(index: Path, data: bytes) -> None:
    (index.parent / "b.so").write_bytes(data)
    if data == SECOND + b"x":
        # Only what was measured is read of a file that has grown.
        entries = json.loads(index.read_text())
        entries[1]["size"] += 1
        index.write_text(json.dumps(entries))
    libraries = Libraries(index)
    libraries.start()
    with pytest.raises(IntegrityError) as caught:
        libraries.find_spec("openvino")
    assert caught.value.check == "replica.library"
    assert not (index.parent / "memory" / "b.so").exists()


def test_a_missing_library_is_told(index: Path) -> None:
    (index.parent / "a.so").unlink()
    libraries = Libraries(index)
    libraries.start()
    with pytest.raises(IntegrityError) as caught:
        libraries.find_spec("numpy")
    assert caught.value.check == "replica.library"
    assert caught.value.found is not None
    assert caught.value.found.endswith("a.so")
