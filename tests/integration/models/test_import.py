"""`ensconce model import` and `fetch` as commands, in processes of their own; OpenVINO alone is needed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from ensconce.cli.main import app
from ensconce.cluster.importing import Wish, import_and_seal
from ensconce.cluster.owner import OwnerFolder
from ensconce.errors import InputError
from ensconce.models.description import parse_and_verify
from ensconce.models.importing.record import parse_record
from ensconce.models.load import open_sealed

UNIT = Path(__file__).parents[2] / "unit" / "models" / "importing" / "conftest.py"


def _unit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("importing_tiny", UNIT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


tiny = _unit().tiny


def ensconce(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ensconce", *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def new_owner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new")
    done = ensconce(folder, "init", "owner", "--domain", "d.example.test", "--model", "m")
    assert done.returncode == 0, done.stderr
    return folder / "owner"


@pytest.fixture
def owner(new_owner: Path, tmp_path: Path) -> OwnerFolder:
    shutil.copytree(new_owner, tmp_path / "owner")
    return OwnerFolder.open(tmp_path / "owner")


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_import_seals_in_one_step(tiny: Any, owner: OwnerFolder, tmp_path: Path) -> None:
    done = ensconce(
        tmp_path, *("model", "import", tiny.onnx, "--name", "m", "--version", "3", "--owner", "owner", "--json")
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["import"]["source_sha256"] == hashlib.sha256(tiny.onnx.read_bytes()).hexdigest()
    description = parse_and_verify((owner.bundle / "models" / "m" / "3.json").read_bytes(), owner.public_key())
    assert description.origin is not None
    assert said["sealed"]["origin"] == description.origin.model_dump(mode="json")
    files = open_sealed(owner.bundle / "models", "m", 3, owner.keystore().get(description.key_id))
    assert set(files) == {"model.xml", "model.bin", "signatures.json", "ensconce-import.json"}
    record = parse_record(bytes(files["ensconce-import.json"]))
    assert record.model_dump(mode="json") == said["import"]
    assert record.origin == description.origin
    assert record.source_sha256 not in (owner.bundle / "models" / "m" / "3.json").read_text()
    assert not [path for path in owner.path.iterdir() if path.name.startswith(".")]


def test_a_folder_that_seal_takes(tiny: Any, owner: OwnerFolder, tmp_path: Path) -> None:
    words = ("--name", "m", "--version", "1")
    (tmp_path / "out").mkdir()
    done = ensconce(tmp_path, "model", "import", tiny.frozen, *words, "--outputs", "predict", "--output", "out/m")
    assert done.returncode == 0, done.stderr
    assert "predict  largest difference" in done.stdout
    assert "random samples" in done.stdout
    names = ("ensconce-import.json", "model.bin", "model.xml", "signatures.json")
    assert everything(tmp_path / "out") == {"m", *(f"m/{name}" for name in names)}
    done = ensconce(tmp_path, "model", "seal", "out/m", *words, "--owner", "owner", "--json")
    assert json.loads(done.stdout)["origin"]["kind"] == "frozen-graph"
    done = ensconce(tmp_path, "model", "reseal", *words, "--owner", "owner", "--json")
    assert json.loads(done.stdout)["origin"]["kind"] == "frozen-graph"


@pytest.mark.parametrize(
    ("words", "check"),
    [
        (["--precision", "int8"], "import.options"),
        (["--tolerance", "inf"], "import.options"),
        (["--inputs", "x"], "import.options"),
        (["--engine", "tensorflow", "--output", "out"], "import.options"),
        (["--engine", "tensorflow"], "model.engine"),
        (["--name", "n"], "model.name"),
        (["--name", "N", "--output", "out"], "model.name"),
        (["--output", "owner"], "import.target"),
        (["--output", "file/out"], "import.target"),
        (["--output", "missing/out"], "import.target"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_refusals_before_anything_is_converted(
    tiny: Any, owner: OwnerFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], check: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    before = everything(tmp_path)
    always = ["model", "import", str(tiny.onnx), "--name", "m", "--version", "1", "--owner", "owner"]
    with pytest.raises(InputError) as caught:
        typer.main.get_command(app).main([*always, *words], standalone_mode=False)
    assert caught.value.check == check
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "status", "check"),
    [
        (["--tolerance", "1e-9", "--precision", "bf16"], 4, "import.tolerance"),
        (["--samples", "missing.npz"], 2, "import.samples"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_refusals_leave_nothing(
    tiny: Any, owner: OwnerFolder, tmp_path: Path, words: list[str], status: int, check: str
) -> None:
    before = everything(tmp_path)
    always = ("model", "import", tiny.onnx, "--name", "m", "--version", "1", "--owner", "owner", "--json")
    done = ensconce(tmp_path, *always, *words)
    assert (done.returncode, json.loads(done.stdout)["error"]["check"]) == (status, check), done.stdout
    assert everything(tmp_path) == before


def test_a_version_that_exists_is_refused_before_the_work(tiny: Any, owner: OwnerFolder) -> None:
    (owner.bundle / "models" / "m" / "1").mkdir(parents=True)
    with pytest.raises(InputError, match=r"model\.exists"):
        import_and_seal(owner, Wish(tiny.onnx), "m", 1)


def processes_in(folder: Path) -> set[int]:
    """Processes whose working directory is below a folder."""
    found = set[int]()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cwd").resolve().is_relative_to(folder):
                found.add(int(path.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interruptions_end_the_other_process(
    tiny: Any,
    owner: OwnerFolder,
    tmp_path: Path,
    wait_for: Callable[[Callable[[], object], str], None],
    number: signal.Signals,
) -> None:
    before = everything(tmp_path)
    os.mkfifo(tmp_path / "samples.npy")  # whoever reads it waits
    words = (
        "model",
        "import",
        tiny.onnx,
        "--name",
        "m",
        "--version",
        "1",
        "--owner",
        "owner",
        "--samples",
        "samples.npy",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "ensconce", *map(str, words)], cwd=tmp_path, stderr=subprocess.PIPE
    )
    try:
        wait_for(lambda: processes_in(owner.path), "the process that converts")
        assert process.poll() is None
        process.send_signal(number)
        process.wait(30)
        wait_for(lambda: not processes_in(owner.path), "its end")
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    (tmp_path / "samples.npy").unlink()
    if number != signal.SIGKILL:
        assert everything(tmp_path) == before


def test_a_process_that_dies_is_told_of(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "spoilt"))
    (tmp_path / "spoilt" / "openvino").mkdir(parents=True)
    (tmp_path / "spoilt" / "openvino" / "__init__.py").write_text("import os; print('about to die'); os.abort()")
    before = everything(tmp_path)
    words = ("model", "import", tiny.onnx, "--name", "m", "--version", "1", "--output", "out", "--json")
    done = ensconce(tmp_path, *words)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["check"] == "import.crashed"
    assert "status -6" in json.loads(done.stdout)["error"]["found"]
    assert {path for path in everything(tmp_path) if "__pycache__" not in path} == before


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path / "sources"))

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_fetch_and_import(tiny: Any, publisher: str, tmp_path: Path) -> None:
    expected = hashlib.sha256(tiny.frozen.read_bytes()).hexdigest()
    words = ("model", "fetch", "resnet50", "--url", f"{publisher}/m.pb")
    done = ensconce(tmp_path, *words, "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["check"]) == (2, "fetch.sha256")
    done = ensconce(tmp_path, *words, "--sha256", expected, "--json")
    assert json.loads(done.stdout) == {
        "file": "resnet50-v15-fp32.pb",
        "size": tiny.frozen.stat().st_size,
        "sha256": expected,
    }
    ends = ("--inputs", "input", "--outputs", "predict", "--name", "resnet50", "--version", "1", "--output", "out")
    done = ensconce(tmp_path, "model", "import", "resnet50-v15-fp32.pb", *ends)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
