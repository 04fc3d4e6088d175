import sys
from pathlib import Path

import pytest

from ensconce.enclave import contents
from ensconce.enclave.contents import (
    ENTRY_MODULE,
    distribution_items,
    distributions,
    own_items,
    stdlib_items,
    unwelcome,
)
from ensconce.errors import InputError


def package(folder: Path, **modules: str) -> Path:
    for name, text in {"__init__": "", "enclave/__init__": "", **modules}.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def targets(folder: Path) -> list[str]:
    return [item.target.removeprefix("site/ensconce/").removesuffix(".py") for item in own_items(folder)]


def test_own_modules_are_those_that_imports_lead_to(tmp_path: Path) -> None:
    folder = package(
        tmp_path,
        **{
            "enclave/replica": "import sys\nfrom ensconce.a import thing\ndef f():\n    import ensconce.late.deep\n",
            "enclave/build": "",
            "a": "from . import b\nfrom .errors import E\n",
            "b": "",
            "errors": "",
            "late/__init__": "from ensconce.late import beside\n",
            "late/deep": "",
            "late/beside": "",
            "late/unused": "",
            "cli/__init__": "",
        },
    )
    assert targets(folder) == [
        "__init__", "a", "b", "enclave/__init__", "enclave/replica", "errors",
        "late/__init__", "late/beside", "late/deep",
    ]  # fmt: skip


def test_imports_for_type_checkers_do_not_count(tmp_path: Path) -> None:
    text = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ensconce.a\nelse:\n    import ensconce.b\n"
        "def f():\n    if TYPE_CHECKING:\n        import ensconce.a\n"
    )
    folder = package(tmp_path, a="", b="", **{"enclave/replica": text})
    assert "a" not in targets(folder)
    assert "b" in targets(folder)


def test_a_package_without_the_replica_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        own_items(package(tmp_path))
    assert caught.value.check == "image.entry"
    assert ENTRY_MODULE in caught.value.problem


def test_the_replica_reaches_nothing_of_the_owner_the_host_or_the_client() -> None:
    import ensconce

    inside = {item.target.split("/")[2] for item in own_items(Path(ensconce.__file__).parent)}
    assert {"errors.py", "evidence", "platform", "enclave"} <= inside
    assert not inside & {"cli", "cluster", "gateway", "keys", "audit", "client", "appraisal", "demo"}
    beside = {item.target for item in own_items(Path(ensconce.__file__).parent) if "/enclave/" in item.target}
    ours = ("__init__", "asking", "config", "early", "present", "reload", "replica", "telling", "versions")
    assert beside == {f"site/ensconce/enclave/{name}.py" for name in ours}


def test_the_standard_library_comes_without_what_a_server_has_no_use_for() -> None:
    inside = {item.target.removeprefix(f"{contents.stdlib()}/") for item in stdlib_items()}
    assert {"os.py", "encodings/__init__.py", "asyncio/base_events.py", "importlib/_bootstrap.py"} <= inside
    tops = {target.split("/")[0] for target in inside}
    assert not tops & {"test", "idlelib", "tkinter", "lib2to3", "ensurepip", "turtledemo", "site-packages", "venv"}
    assert not tops & {"dist-packages", "sitecustomize.py", "usercustomize.py", "__pycache__"}
    assert not [target for target in inside if "config-" in target or "/test/" in target or "/tests/" in target]
    assert any(target.startswith("lib-dynload/_ssl.") for target in inside) or "_ssl" in sys.builtin_module_names
    assert not [target for target in inside if "_tkinter" in target or "_sqlite3" in target]


def test_distributions_are_the_closure_of_what_the_server_needs() -> None:
    names = {distribution.name.lower().replace("_", "-") for distribution in distributions()}
    assert {"hpack", "cryptography", "cffi", "openvino", "pydantic-core", "numpy"} <= names
    assert not names & {"openvino-telemetry", "pycparser", "pytest", "typer", "httpx", "dcap-qvl", "ensconce"}


def test_of_a_distribution_only_code_goes_in() -> None:
    by_name = {distribution.name.lower(): distribution for distribution in distributions()}
    openvino = {item.target for item in distribution_items(by_name["openvino"])}
    assert "site/openvino/__init__.py" in openvino
    libraries = {target.split("/")[3].split(".")[0] for target in openvino if target.startswith("site/openvino/libs/")}
    assert libraries == {
        "libopenvino", "libopenvino_intel_cpu_plugin", "libopenvino_ir_frontend", "libtbb", "libtbbmalloc",
    }  # fmt: skip
    for distribution in by_name.values():
        for item in distribution_items(distribution):
            assert item.target.endswith(".py") or ".so" in item.target
            assert "/tests/" not in item.target
            assert item.source.is_file()


def install(folder: Path, name: str, record: bool = True) -> None:
    metadata = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    module = folder / name.replace("-", "_")
    module.mkdir()
    (module / "__init__.py").write_text("")
    if record:
        (metadata / "RECORD").write_text(f"{module.name}/__init__.py,,\n{metadata.name}/METADATA,,\n")


def test_telemetry_is_noticed_and_never_part_of_the_closure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unwelcome() == ()
    install(tmp_path, "openvino-telemetry")
    monkeypatch.syspath_prepend(tmp_path)
    assert unwelcome() == ("openvino-telemetry",)
    assert "openvino-telemetry" not in {distribution.name for distribution in distributions()}


def test_a_missing_distribution_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_ROOTS", ("grpcio", "no-such-thing"))
    with pytest.raises(InputError) as caught:
        distributions()
    assert caught.value.check == "image.distribution"
    assert "no-such-thing is not installed" in caught.value.problem


def test_a_distribution_without_a_list_of_files_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "bare-thing", record=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(contents, "_ROOTS", ("bare-thing",))
    with pytest.raises(InputError, match="without a list of its files"):
        distributions()
