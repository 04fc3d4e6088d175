import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ensconce
from ensconce.enclave import contents
from ensconce.enclave.image import build_image
from ensconce.enclave.layers import LayerCache
from ensconce.enclave.manifest import ARGUMENTS
from ensconce.enclave.trace import ENVIRONMENT, FLAGS, interpreter_path, system_files
from ensconce.errors import InputError


def on_disk(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


@pytest.fixture
def cwd(staged: Any, tmp_path: Path) -> Path:
    """A working folder as a replica has it, elsewhere."""
    folder = tmp_path / "run" / "replicas" / "1"
    (tmp_path / "host" / "enclave").mkdir(parents=True)
    (tmp_path / "host" / "enclave" / "image").symlink_to(staged.folder)
    folder.mkdir(parents=True)
    (folder / "enclave").symlink_to(tmp_path / "host" / "enclave")
    return folder


def test_the_image_is_what_it_says(staged: Any) -> None:
    assert on_disk(staged.folder) == [file.path for file in staged.image.files]
    for file in staged.image.files[::50]:
        data = (staged.folder / file.path).read_bytes()
        assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert staged.image.size < 230_000_000
    assert {Path(path).suffix for path in on_disk(staged.folder)} <= {".pyc", ".so"} | {
        Path(file.path).suffix for file in staged.image.files if ".so." in file.path
    }
    assert not [path for path in on_disk(staged.folder) if "openvino_telemetry" in path]


def test_the_same_inputs_give_the_same_bytes_elsewhere(staged: Any, tmp_path: Path) -> None:
    image = build_image(tmp_path / "another", cache=LayerCache(tmp_path / "another-cache"))
    assert image == staged.image


def test_the_second_build_is_a_copy(staged: Any, tmp_path: Path) -> None:
    said: list[str] = []
    image = build_image(tmp_path / "second", progress=said.append, cache=staged.cache)
    assert image == staged.image
    assert said == []
    assert on_disk(tmp_path / "second") == on_disk(staged.folder)


def test_a_damaged_cache_is_not_believed(staged: Any, tmp_path: Path) -> None:
    entry = next(path for path in staged.cache.folder.iterdir() if (path / "tree" / "site" / "ensconce").is_dir())
    victim = entry / "tree" / "site" / "ensconce" / "errors.pyc"
    victim.write_bytes(victim.read_bytes()[:-1] + b"!")
    said: list[str] = []
    assert build_image(tmp_path / "third", progress=said.append, cache=staged.cache) == staged.image
    assert len(said) == 1


def test_another_library_of_the_system_is_noticed(staged: Any, tmp_path: Path) -> None:
    entry = next(path for path in staged.cache.folder.iterdir() if (path / "tree" / "site" / "ensconce").is_dir())
    index = json.loads((entry / "index.json").read_text())
    index["system_files"][-1]["sha256"] = "00" * 32
    (entry / "index.json").write_text(json.dumps(index))
    said: list[str] = []
    assert build_image(tmp_path / "fourth", progress=said.append, cache=staged.cache) == staged.image
    assert len(said) == 1
    assert json.loads((entry / "index.json").read_text())["system_files"][-1]["sha256"] != "00" * 32


def test_a_disk_without_room_is_an_error_and_leaves_nothing(staged: Any, tmp_path: Path) -> None:
    program = """
import pathlib, resource, sys
from ensconce.enclave.image import build_image
from ensconce.enclave.layers import LayerCache
from ensconce.errors import InputError
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    build_image(pathlib.Path(sys.argv[1]), cache=LayerCache(pathlib.Path(sys.argv[2])))
except InputError as error:
    print(error.check)
"""
    run = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "image", staged.cache.folder],
        env={**os.environ, "PYTHONPATH": str(Path(ensconce.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "image.stage\n"
    assert list(tmp_path.iterdir()) == []


def test_the_interpreter_runs_on_the_image_and_on_nothing_else(staged: Any, cwd: Path) -> None:
    program = """
import json, sys
import cryptography.x509, google.protobuf.message, hpack, numpy, openvino
import OpenSSL.SSL, pydantic, ssl
from openvino import opset13 as ops
node = ops.parameter([2, 3], numpy.float32)
model = openvino.Core().compile_model(openvino.Model([ops.add(node, node)], [node]), "CPU")
total = float(model([numpy.ones((2, 3), numpy.float32)])[0].sum())
files = [module.__file__ for module in sys.modules.values() if getattr(module, "__file__", None)]
maps = {line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if line.count("/")}
told = {"total": total, "path": sys.path, "files": files, "maps": sorted(maps), "modules": list(sys.modules)}
print(json.dumps(told))
"""
    run = subprocess.run(
        [interpreter_path(), *FLAGS, "-c", program],
        env=ENVIRONMENT,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["total"] == 12.0
    assert all((cwd / path).is_relative_to(cwd / "enclave" / "image") for path in told["path"])
    root = f"{staged.folder.resolve()}{os.sep}"
    assert not [file for file in told["files"] if not os.path.realpath(cwd / file).startswith(root)]
    listed = {file.path for file in staged.image.system_files}
    assert not [
        path for path in told["maps"] if Path(path).is_file() and not path.startswith(root) and path not in listed
    ]
    assert "site" not in told["modules"]
    assert "openvino_telemetry" not in told["modules"]


def test_the_replica_starts_with_exactly_its_argv_and_says_why_it_stops(cwd: Path) -> None:
    run = subprocess.run(
        [interpreter_path(), *ARGUMENTS], env=ENVIRONMENT, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert json.loads(run.stderr)["error"]["check"] == "file.read"
    assert run.returncode == 2


def test_nothing_in_the_working_directory_is_taken_for_part_of_the_interpreter(cwd: Path) -> None:
    """As where Python is built: a note that says where, and modules there."""
    (cwd / "pybuilddir.txt").write_text("build")
    (cwd / "Modules").mkdir()
    (cwd / "Modules" / "Setup.local").touch()
    (cwd / "build").mkdir()
    for name in ("_socket", "_struct", "math", "_ssl", "ensconce"):
        (cwd / "build" / f"{name}.py").write_text("print('the host runs')")
        (cwd / f"{name}.py").write_text("print('the host runs')")
    run = subprocess.run(
        [interpreter_path(), *ARGUMENTS], env=ENVIRONMENT, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert "the host runs" not in run.stdout
    assert json.loads(run.stderr)["error"]["check"] == "file.read"


def test_the_files_of_the_system_are_real_and_absolute(staged: Any) -> None:
    paths = [file.path for file in staged.image.system_files]
    assert staged.image.interpreter in paths
    assert any(Path(path).name.startswith("ld-") for path in paths)
    assert any(Path(path).name.startswith("libc.so") for path in paths)
    assert [path for path in paths if os.path.realpath(path) != path] == []


def test_telemetry_stays_out_and_the_build_says_so(
    staged: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "lib" / "openvino_telemetry-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: openvino-telemetry\nVersion: 1.0\n")
    (tmp_path / "lib" / "openvino_telemetry.py").write_text("")
    (metadata / "RECORD").write_text("openvino_telemetry.py,,\n")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    said: list[str] = []
    image = build_image(tmp_path / "image", progress=said.append, cache=staged.cache)
    assert image.left_out == ("openvino-telemetry",)
    assert image.files == staged.image.files
    assert "openvino-telemetry is installed" in said[0]


def test_a_folder_that_exists_is_left_alone(staged: Any, tmp_path: Path) -> None:
    (tmp_path / "keep").write_text("")
    with pytest.raises(InputError) as caught:
        build_image(tmp_path, cache=staged.cache)
    assert caught.value.check == "image.create"
    assert on_disk(tmp_path) == ["keep"]


def test_nothing_is_left_of_a_failure(staged: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ensconce" / "enclave").mkdir(parents=True)
    (tmp_path / "ensconce" / "__init__.py").write_text("")
    (tmp_path / "ensconce" / "enclave" / "__init__.py").write_text("")
    (tmp_path / "ensconce" / "enclave" / "replica.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.setattr("ensconce.__file__", str(tmp_path / "ensconce" / "__init__.py"))
    with pytest.raises(InputError) as caught:
        build_image(tmp_path / "image", cache=staged.cache)
    assert caught.value.check == "image.trace"
    assert "a_module_that_is_not_there" in str(caught.value)
    assert not (tmp_path / "image").exists()


def test_code_from_elsewhere_is_refused(staged: Any, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text("")
    (tmp_path / "image").mkdir()
    for part in staged.folder.iterdir():
        (tmp_path / "image" / part.name).symlink_to(part)
    (tmp_path / "image" / "site").unlink()
    (tmp_path / "image" / "site").symlink_to(tmp_path)
    with pytest.raises(InputError) as caught:
        system_files(tmp_path / "image", modules=["elsewhere"], shared_objects=[], unwelcome=[])
    assert caught.value.check == "image.closed"


def test_an_unwelcome_module_is_refused(staged: Any) -> None:
    with pytest.raises(InputError) as caught:
        system_files(staged.folder, modules=["json"], shared_objects=[], unwelcome=["json"])
    assert caught.value.check == "image.closed"


def test_every_shared_object_of_the_image_was_loaded_once(staged: Any) -> None:
    # The list of system files is complete because nothing native in the image was left unloaded.
    native = [file.path for file in staged.image.files if not file.path.endswith(".pyc")]
    assert len(native) > 20
    again = system_files(staged.folder, modules=[contents.ENTRY_MODULE], shared_objects=native, unwelcome=[])
    assert [str(path) for path in again] == [file.path for file in staged.image.system_files]
