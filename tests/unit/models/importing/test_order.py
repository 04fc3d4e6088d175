from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ensconce.errors import InputError
from ensconce.models.importing.order import kind_of, source_sha256


def test_kinds(tmp_path: Path, tiny: object) -> None:
    sources = tmp_path / "sources"
    (sources / "m.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    (sources / "sm").mkdir()
    (sources / "sm" / "saved_model.pb").write_bytes(b"")
    kinds = {path.name: kind_of(path) for path in sources.iterdir() if path.suffix != ".npz"}
    assert kinds == {"m.onnx": "onnx", "m.pb": "frozen-graph", "m.tflite": "tflite", "sm": "saved-model"}
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "m.onnx").write_bytes(b"\x0a\x08location\x12\x01w")
    assert kind_of(tmp_path / "split") == "onnx"


@pytest.mark.parametrize(
    ("name", "content", "remedy"),
    [
        ("m.keras", b"PK", "model.export"),
        ("m.tflite", b"nonsense", "export"),
        ("saved_model.pb", b"", "folder"),
        ("m.txt", b"", "export"),
        ("m.onnx", b"x" * (1 << 20) + b"\x0a\x08location\x12\x01w", "name the folder"),
    ],
)
def test_files_that_are_not_taken(tmp_path: Path, name: str, content: bytes, remedy: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        kind_of(tmp_path / name)
    assert caught.value.check == "import.source"
    assert caught.value.remedy is not None
    assert remedy in caught.value.remedy


def test_external_weights_are_seen_across_what_is_read_at_once(tmp_path: Path) -> None:
    for start in range((1 << 20) - 12, (1 << 20) + 1):
        (tmp_path / "m.onnx").write_bytes(b"\0" * start + b"\x0a\x08location\x12")
        with pytest.raises(InputError, match="files of their own"):
            kind_of(tmp_path / "m.onnx")


def test_folders_that_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    for source in (tmp_path, tmp_path / "1", tmp_path / "missing"):
        with pytest.raises(InputError) as caught:
            kind_of(source)
        assert caught.value.check == "import.source"


def test_the_hash_is_what_sha256sum_says(tmp_path: Path) -> None:
    (tmp_path / "d" / "variables").mkdir(parents=True)
    (tmp_path / "d" / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "d" / "variables" / "data").write_bytes(np.arange(9).tobytes())
    assert source_sha256(tmp_path / "d" / "saved_model.pb") == hashlib.sha256(b"graph").hexdigest()
    script = r"find . -type f -printf '%P\n' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    said = subprocess.run(["bash", "-c", script], cwd=tmp_path / "d", capture_output=True, text=True, check=True)
    assert source_sha256(tmp_path / "d") == said.stdout.split()[0]


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match=r"model\.layout"):
        source_sha256(tmp_path)


def test_a_source_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> str:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("ensconce.models.importing.order._sha256", fail)
    (tmp_path / "m.onnx").write_bytes(b"")
    for source in (tmp_path, tmp_path / "m.onnx"):
        with pytest.raises(InputError, match=r"m\.onnx: Input/output error") as caught:
            source_sha256(source)
        assert caught.value.check == "import.source"
