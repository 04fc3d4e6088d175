"""Finding nginx: the real one if it is there, and programs that only pretend to be able to."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensconce.addresses import Address
from ensconce.errors import InputError
from ensconce.gateway.choice import open_gateway
from ensconce.gateway.nginx_program import Nginx, NoNginx, find_nginx

BUILT = "nginx version: nginx/1.22.1\nconfigure arguments: --modules-path={modules} "
FULL = BUILT + "--with-stream=dynamic --with-stream_ssl_preread_module"


def pretend(folder: Path, told: str, test: str = "exit 0") -> Path:
    """A program that answers -V with ``told`` and -t with ``test``."""
    program = folder / "nginx"
    told = told.format(modules=folder / "modules")
    program.write_text(f"#!/bin/sh\ncase $1 in -V) echo '{told}' >&2;; -t) {test};; esac\n")
    program.chmod(0o755)
    return program


@pytest.fixture(autouse=True)
def nothing_in_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if "real" not in request.node.name:
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def test_the_real_one() -> None:
    found = find_nginx()
    if isinstance(found, NoNginx):
        pytest.skip(found.reason)
    assert found.program.name == "nginx"
    assert found.version[0].isdigit()
    assert found.stream_module is None or found.stream_module.is_file()


def test_none_at_all(tmp_path: Path) -> None:
    found = find_nginx([str(tmp_path)])
    assert isinstance(found, NoNginx)
    assert "no nginx" in found.reason
    assert "apt install" in found.remedy


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("openresty something", "does not name an nginx version"),
        (BUILT, "without the stream module"),
        (BUILT + "--with-stream", "without ssl_preread"),
        (FULL, "ngx_stream_module.so, which is not there"),
    ],
)
def test_builds_that_cannot(tmp_path: Path, told: str, reason: str) -> None:
    pretend(tmp_path, told)
    found = find_nginx([str(tmp_path)])
    assert isinstance(found, NoNginx)
    assert reason in found.reason


def test_one_that_does_not_run(tmp_path: Path) -> None:
    pretend(tmp_path, FULL).write_text("#!/bin/sh\nexit 1\n")
    found = find_nginx([str(tmp_path)])
    assert isinstance(found, NoNginx)
    assert "does not run" in found.reason


def test_a_module_that_does_not_load(tmp_path: Path) -> None:
    complaint = "echo 'nginx: [emerg] module is not binary compatible' >&2; exit 1"
    pretend(tmp_path, FULL, complaint)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "ngx_stream_module.so").write_bytes(b"")
    found = find_nginx([str(tmp_path)])
    assert isinstance(found, NoNginx)
    assert "not binary compatible" in found.reason


def test_a_dynamic_and_a_built_in_module(tmp_path: Path) -> None:
    pretend(tmp_path, FULL)
    (tmp_path / "modules").mkdir()
    module = tmp_path / "modules" / "ngx_stream_module.so"
    module.write_bytes(b"")
    assert find_nginx([str(tmp_path)]) == Nginx(tmp_path / "nginx", "1.22.1", module)
    pretend(tmp_path, FULL.replace("=dynamic", ""))
    assert find_nginx([str(tmp_path)]) == Nginx(tmp_path / "nginx", "1.22.1", None)


def test_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = NoNginx("no nginx anywhere", "apt install nginx")
    monkeypatch.setattr("ensconce.gateway.choice.find_nginx", lambda: missing)
    where = {"grpc": Address("127.0.0.1", 0), "rest": Address("127.0.0.1", 0), "domain": "a.test"}
    auto = open_gateway("auto", tmp_path, **where)  # type: ignore[arg-type]
    assert auto.kind == "embedded"
    assert "no nginx anywhere" in auto.about
    with pytest.raises(InputError) as refused:
        open_gateway("nginx", tmp_path, **where)  # type: ignore[arg-type]
    assert refused.value.check == "gateway.nginx"
    assert "apt install nginx" in (refused.value.remedy or "")
    with pytest.raises(InputError) as refused:
        open_gateway("embedded", tmp_path, **{**where, "domain": "not a name"})  # type: ignore[arg-type]
    assert refused.value.check == "address.domain"
