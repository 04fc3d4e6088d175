import importlib.util
import json
import marshal
import subprocess
import sys
from pathlib import Path
from types import CodeType

import pytest

from ensconce.enclave import compiler
from ensconce.enclave.compiler import compile_source

SOURCE = b"'''Doc.'''\nimport os\nNAMES = {'b', 'a', 'c'}\nPICK = 'x' in {'p', 'q', 'r'}\ndef f(x):\n    return x + 1\n"


def test_the_file_is_an_unchecked_hash_based_pyc(tmp_path: Path) -> None:
    data = compile_source(SOURCE, "site/pkg/mod.py")
    assert data[:4] == importlib.util.MAGIC_NUMBER
    assert data[4:8] == b"\1\0\0\0"
    assert data[8:16] == importlib.util.source_hash(SOURCE)
    (tmp_path / "mod.pyc").write_bytes(data)
    loaded = importlib.util.spec_from_file_location("mod", tmp_path / "mod.pyc")
    assert loaded is not None
    assert loaded.loader is not None
    module = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(module)
    assert module.f(1) == 2


def test_names_of_files_are_relative_all_the_way_down() -> None:
    pending = [marshal.loads(compile_source(SOURCE, "site/pkg/mod.py")[16:])]
    while pending:
        code = pending.pop()
        assert code.co_filename == "site/pkg/mod.py"
        pending += [constant for constant in code.co_consts if isinstance(constant, CodeType)]


def run(jobs: list[list[str]], seed: str = "0") -> list[str]:
    done = subprocess.run(
        [sys.executable, "-S", "-B", compiler.__file__],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": seed},
    )
    return json.loads(done.stdout)


def test_neither_order_nor_hash_seed_nor_folder_changes_the_bytes(tmp_path: Path) -> None:
    folder = Path(json.__file__).parent
    names = sorted(path.name for path in folder.glob("*.py"))
    for out, order, seed in (("one", names, "1"), ("two", names[::-1], "2")):
        run([[str(folder / name), str(tmp_path / out / name), f"json/{name}"] for name in order], seed)
    assert names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("source", [b"def (", b"\0", b"\xff\xfe"])
def test_what_is_no_python_is_left_out_and_told(tmp_path: Path, source: bytes) -> None:
    (tmp_path / "bad.py").write_bytes(source)
    jobs = [[str(tmp_path / "bad.py"), str(tmp_path / "out" / "bad.pyc"), "bad.py"]]
    assert run(jobs) == [str(tmp_path / "bad.py")]
    assert not (tmp_path / "out").exists()
