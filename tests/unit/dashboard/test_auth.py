from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ensconce.addresses import Address
from ensconce.dashboard.auth import Gate, is_named, load_token, names_in, new_token
from ensconce.errors import InputError


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def value(cookie: str | None) -> str:
    assert cookie is not None
    return cookie.partition(";")[0]


def test_a_token_is_exchanged_once(clock: Clock) -> None:
    gate = Gate("a token", once=True, port=80, now=clock)
    assert gate.exchange("another") is None
    cookie = gate.exchange("a token")
    assert gate.exchange("a token") is None
    assert gate.admits(value(cookie))
    assert "a token" not in str(cookie)
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(str(cookie).split("; "))
    assert "Secure" not in str(cookie)


def test_a_lasting_token_is_exchanged_again(clock: Clock) -> None:
    gate = Gate("a token", once=False, port=443, now=clock, secure=True)
    first, second = gate.exchange("a token"), gate.exchange("a token")
    assert value(first) != value(second)
    assert gate.admits(value(first))
    assert "Secure" in str(second).split("; ")


@pytest.mark.parametrize(
    "cookies",
    [
        "",
        "ensconce-dashboard-80=",
        "ensconce-dashboard-80=wrong",
        "ensconce-dashboard-81={}",
        "other={}",
        "ensconce-dashboard-80={}x",
        "ensconce-dashboard-80=\ud800",
        "a=" + "x" * 5000 + "; ensconce-dashboard-80={}",
        "=;;=",
    ],
)
def test_nothing_else_is_admitted(cookies: str, clock: Clock) -> None:
    gate = Gate("a token", once=True, port=80, now=clock)
    secret = value(gate.exchange("a token")).partition("=")[2]
    assert not gate.admits(cookies.format(secret))


def test_a_cookie_ends_and_the_oldest_gives_way(clock: Clock) -> None:
    gate = Gate("a token", once=False, port=80, now=clock)
    cookies = [value(gate.exchange("a token")) for _ in range(17)]
    assert [gate.admits(each) for each in cookies] == [False, *[True] * 16]
    clock.now += 12 * 3600
    assert not gate.admits(cookies[-1])


def test_after_many_wrong_tokens_none_is_looked_at_for_a_while(clock: Clock) -> None:
    gate = Gate("a token", once=False, port=80, now=clock)
    cookie = value(gate.exchange("a token"))
    for _ in range(20):
        assert not gate.waits
        assert gate.exchange("another") is None
    assert gate.waits
    assert gate.exchange("a token") is None
    assert gate.admits(cookie)
    clock.now += 60
    assert gate.exchange("a token") is not None


@pytest.mark.parametrize(
    ("host", "listener", "names", "named"),
    [
        ("dash.example.test", "0.0.0.0:443", ["dash.example.test"], True),
        ("dash.example.test:443", "192.0.2.1:443", ["dash.example.test"], True),
        ("DASH.example.test:8443", "192.0.2.1:8443", ["dash.example.test"], True),
        ("dash.example.test:8443", "192.0.2.1:8443", ["*.example.test"], True),
        ("example.test:8443", "192.0.2.1:8443", ["*.example.test"], False),
        ("a.dash.example.test:8443", "192.0.2.1:8443", ["*.example.test"], False),
        ("dash.example.test", "192.0.2.1:8443", ["dash.example.test"], False),
        ("evil.test:8443", "0.0.0.0:8443", ["dash.example.test"], False),
        ("192.0.2.9:8443", "192.0.2.1:8443", ["192.0.2.9"], True),
        ("192.0.2.1", "192.0.2.1:443", [], True),
        ("192.0.2.1", "192.0.2.1:80", None, True),
        ("192.0.2.1", "192.0.2.1:443", None, False),
        ("[::1]", "[::1]:80", None, True),
        ("test", "0.0.0.0:443", ["*.test", "*."], False),
    ],
)
def test_with_tls_the_certificates_names_are_answered(
    host: str, listener: str, names: list[str] | None, named: bool
) -> None:
    assert is_named(host, Address.parse(listener), names) is named


@pytest.mark.parametrize(
    ("host", "listener", "named"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080", True),
        ("localhost:8080", "127.0.0.1:8080", True),
        ("LOCALHOST:8080", "127.0.0.1:8080", True),
        ("[::1]:8080", "[::1]:8080", True),
        ("127.0.0.1:8081", "127.0.0.1:8080", False),
        ("127.0.0.1", "127.0.0.1:8080", False),
        ("evil.test:8080", "127.0.0.1:8080", False),
        ("127.0.0.1.evil.test:8080", "127.0.0.1:8080", False),
        ("192.0.2.1:8080", "127.0.0.1:8080", False),
        ("", "127.0.0.1:8080", False),
        ("127.0.0.1:8080, evil.test:8080", "127.0.0.1:8080", False),
        ("192.0.2.1:8080", "0.0.0.0:8080", True),
        ("evil.test:8080", "0.0.0.0:8080", False),
        ("localhost:8080", "192.0.2.1:8080", False),
        ("dash.example.test:8080", "dash.example.test:8080", True),
        ("evil.test:8080", "dash.example.test:8080", False),
    ],
)
def test_only_names_of_the_listener_are_answered(host: str, listener: str, named: bool) -> None:
    assert is_named(host, Address.parse(listener)) is named


class TestFile:
    def test_it_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.touch(0o600)
        token = new_token()
        path.write_text(token + "\n")
        assert load_token(path) == token

    @pytest.mark.parametrize(
        "text", ["", "short", "x" * 31, "x " * 20, "ä" * 40, "x" * 513, "x" * 40 + "\n" + "y" * 40]
    )
    def test_what_is_none_is_refused(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.touch(0o600)
        path.write_text(text)
        with pytest.raises(InputError) as caught:
            load_token(path)
        assert caught.value.check in ("dashboard.token", "file.size", "file.too_long")
        assert "xxx" not in str(caught.value)

    def test_one_that_others_may_read_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_text("x" * 40)
        path.chmod(0o640)
        with pytest.raises(InputError, match=r"others may read.*chmod 600"):
            load_token(path)

    def test_a_missing_one_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="token"):
            load_token(tmp_path / "token")


def with_names(der: bytes | None) -> bytes:
    """A certificate with these subject alternative names, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    begin = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    end = begin + datetime.timedelta(days=30)
    made = x509.CertificateBuilder(x509.Name([]), x509.Name([]), key.public_key(), 1, begin, end)
    if der is not None:
        made = made.add_extension(x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, der), critical=False)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("der", "names"),
    [(None, set()), (b"\x30\x06\x87\x04\x7f\x00\x00\x01", {"127.0.0.1"}), (b"\x30\x03\x82\x01A", {"a"})],
)
def test_the_names_in_a_certificate(der: bytes | None, names: set[str]) -> None:
    assert names_in(with_names(der)) == names


@pytest.mark.parametrize("der", [b"\x04\x00", b"\x30\x03\x82\x01\xff", b"\x30\x05\x87\x03\x01\x02\x03"])
def test_names_that_cannot_be_read_are_refused(der: bytes) -> None:
    with pytest.raises(InputError) as refused:
        names_in(with_names(der))
    assert refused.value.check == "dashboard.certificate"
