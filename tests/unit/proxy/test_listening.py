from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from ensconce.addresses import Address
from ensconce.errors import InputError
from ensconce.proxy.listening import is_local, open_listener, place_in


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8500", Address("127.0.0.1", 8500)),
        ("[::1]:0", Address("::1", 0)),
        ("unix:/run/proxy", Path("/run/proxy")),
        ("unix:proxy", Path("proxy")),
    ],
)
def test_places(text, expected) -> None:
    assert place_in(text) == expected


@pytest.mark.parametrize("text", ["8500", "", "unix:", "unix:" + "x" * 108])
def test_what_is_no_place(text) -> None:
    with pytest.raises(InputError):
        place_in(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_this_machine(host) -> None:
    assert is_local(Address(host, 1))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "::ffff:192.0.2.1", "digits.example.test"])
def test_in_the_clear_it_listens_nowhere_else(host) -> None:
    with pytest.raises(InputError) as caught:
        open_listener(Address(host, 0), encrypted=False)
    assert caught.value.check == "proxy.cleartext"


def test_with_tls_it_does() -> None:
    with open_listener(Address("0.0.0.0", 0), encrypted=True) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"


def test_a_socket_is_for_this_user(tmp_path: Path) -> None:
    path = tmp_path / "proxy"
    with open_listener(path, encrypted=False):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(InputError) as caught:
            open_listener(path, encrypted=False)
        assert caught.value.check == "proxy.listen"


def test_what_a_dead_proxy_left_is_in_nobodys_way(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "proxy"))
    with open_listener(tmp_path / "proxy", encrypted=False):
        pass


def test_a_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "proxy").write_text("mine")
    with pytest.raises(InputError):
        open_listener(tmp_path / "proxy", encrypted=False)
    assert (tmp_path / "proxy").read_text() == "mine"
