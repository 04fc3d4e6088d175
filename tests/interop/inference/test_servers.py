"""``ensconce bench`` against servers of others that speak the Open Inference Protocol, unmodified, really run."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ensconce.cli.main import app
from ensconce.errors import InputError

# What is found in the environments that the variables name.
SERVERS = {"triton": "nvidia-pytriton", "mlserver": "mlserver", "kserve": "kserve"}
PROTOCOLS = ("v2-grpc", "v2-rest", "v2-rest-binary")
# MLServer 1.7 has no binary tensors; KServe 0.21 has, but takes strings in them for UTF-8.
NOT_BINARY = ("mlserver",)
TEXT_ONLY = {("kserve", "v2-rest-binary"), *((name, "v2-rest") for name in SERVERS)}


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    wait_for: Any,
    find_port: Callable[[], int],
) -> Iterator[tuple[str, int, int]]:
    """A running server: its name, its gRPC port, its HTTP port."""
    name = request.param
    variable = f"ENSCONCE_{name.upper()}_PYTHON"
    python = os.environ.get(variable)
    if python is None:
        pytest.skip(f"{variable} names no Python that has {SERVERS[name]}")
    folder, ports = tmp_path_factory.mktemp(name), (find_port(), find_port())
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [python, "-P", Path(__file__).with_name(f"{name}_start.py"), folder / "work", *map(str, ports)],
            cwd=folder,
            env={"PATH": path, "HOME": str(folder)},
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: process.poll() is not None or _is_ready(ports[1]), name)
        assert process.poll() is None, (folder / "log").read_text()[-4000:]
        yield name, *ports
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(port: int) -> bool:
    try:
        for model in ("double", "sizes"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/{model}/ready", timeout=1).close()
    except (OSError, urllib.error.HTTPError):
        return False
    return True


def bench(server: tuple[str, int, int], protocol: str, *arguments: object) -> Any:
    name, grpc_port, http_port = server
    at = f"127.0.0.1:{grpc_port if protocol == 'v2-grpc' else http_port}"
    done = CliRunner().invoke(
        app, ["bench", at, "--plain", "--protocol", protocol, "--warm-up", "2", "--json", "-", *map(str, arguments)]
    )
    if protocol == "v2-rest-binary" and name in NOT_BINARY:
        assert isinstance(done.exception, InputError)
        assert done.exception.check == "bench.refused"
        pytest.skip(f"{name} has no binary tensors, and bench says so")
    assert done.exit_code == 0, done.exception or done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numbers(server: tuple[str, int, int], protocol: str) -> None:
    found = bench(server, protocol, "--model", "double", "--batch", 3, "--concurrency", 4, "--requests", 40)
    assert found["requests"] == {"sent": 40, "answered": 40, "failed": 0}
    assert found["inputs"] == {"x": {"dtype": "float", "shape": [3, 4]}}
    # Three times four floats came back.
    assert found["answer_bytes"] > 48


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_strings(server: tuple[str, int, int], protocol: str, tmp_path: Path) -> None:
    pictures = [tmp_path / f"{number}.jpg" for number in range(3)]
    for number, path in enumerate(pictures):
        path.write_bytes(b"text" * number + (b"" if (server[0], protocol) in TEXT_ONLY else b"\xff\xd8\xff"))
    given = [part for path in pictures for part in ("--input", path)]
    found = bench(server, protocol, "--model", "sizes", "--requests", 9, *given)
    assert (found["requests"]["answered"], found["batches"]) == (9, 3)
    assert found["inputs"] == {"x": {"dtype": "string", "shape": [1, 1]}}
