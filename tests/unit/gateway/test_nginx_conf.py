from __future__ import annotations

from pathlib import Path

import pytest

from ensconce.addresses import Address, check_host
from ensconce.errors import InputError
from ensconce.gateway.backends import Backend, pools
from ensconce.gateway.nginx_conf import quoted, render


def text(domain: str = "digits.example.test", backends: tuple[Backend, ...] = (), module: Path | None = None) -> str:
    return render(
        {"grpc": Address("127.0.0.1", 8500), "rest": Address("::1", 8501)},
        domain,
        pools(backends),
        stream_module=module,
        workers=2,
        open_files=1024,
    )


def test_one_name_and_nothing_else() -> None:
    made = text(backends=(Backend("r1", "127.0.0.1", 9001, 9002), Backend("r2", "::1", 9003, 9004)))
    assert made.count('default "";') == 2
    assert '"digits.example.test" grpc_replicas;' in made
    assert '"digits.example.test" rest_replicas;' in made
    assert "server 127.0.0.1:9001 " in made
    assert "server [::1]:9004 " in made
    assert "listen 127.0.0.1:8500 " in made
    assert "listen [::1]:8501 " in made
    assert "load_module" not in made


def test_no_replica_means_no_route() -> None:
    made = text()
    assert "upstream" not in made.replace("$upstream_addr", "").replace('"upstream"', "").replace("next_upstream", "")
    assert "digits.example.test" not in made


def test_words_of_map_itself() -> None:
    backend = Backend("r1", "127.0.0.1", 9001, 9002)
    assert r'"\\default" grpc_replicas;' in text("default", (backend,))


def test_quoting() -> None:
    assert quoted('a "b" \\c') == r'"a \"b\" \\c"'
    assert r'load_module "/a \"b\"/m.so";' in text(module=Path('/a "b"/m.so'))


@pytest.mark.parametrize("name", ["", "a..b", "-a.b", "a b", 'a";', "a\n", "$x", "a" * 64, "a." * 127 + "b", "ä.b"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InputError) as refused:
        text(name, (Backend("r1", "127.0.0.1", 9001, 9002),))
    assert refused.value.check == "address.domain"
    with pytest.raises(InputError):
        Backend("r1", name, 9001, 9002)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_ports_that_are_none(port: int) -> None:
    with pytest.raises(InputError) as refused:
        Backend("r1", "127.0.0.1", 9001, port)
    assert refused.value.check == "gateway.backend"


def test_hosts() -> None:
    assert check_host("::1") == "::1"
    assert check_host("Replica-1.internal") == "replica-1.internal"
    assert str(Address("::1", 1)) == "[::1]:1"
    assert str(Address("127.0.0.1", 1)) == "127.0.0.1:1"
