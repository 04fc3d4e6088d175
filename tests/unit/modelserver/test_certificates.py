from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from google.protobuf import text_format

from ensconce.errors import InputError
from ensconce.modelserver.certificates import issue_files, write_files
from ensconce.modelserver.files import tls_of
from ensconce.tfserving.messages import SSLConfig
from ensconce.tfserving.text import parse_text

NOW = dt.datetime.now(dt.UTC)
DOMAIN = "models.example.test"


def made(folder: Path, *, mutual: bool = False) -> Path:
    write_files(folder / "tls", issue_files(DOMAIN, days=30, mutual=mutual, now=NOW))
    return folder / "tls"


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str = DOMAIN) -> None:
    """A handshake over a real pair of sockets; raises what the client's side, or else the server's, raises."""
    ours, theirs = socket.socketpair()
    errors: list[Exception] = []

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as stream:
                stream.sendall(b"x")
        except OSError as error:
            errors.append(error)
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as stream:
            received = stream.recv(1)
    finally:
        ours.close()
        thread.join(10)
    if errors or received != b"x":
        raise errors[0] if errors else AssertionError("nothing came")


def contexts(folder: Path, trusted: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.crt", folder / "server.key")
    return server, ssl.create_default_context(cafile=str(folder / trusted))


def test_one_way(tmp_path: Path) -> None:
    folder = made(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["server.crt", "server.key", "ssl.cfg"]
    shake_hands(*contexts(folder, "server.crt"))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(*contexts(folder, "server.crt"), name="other.example.test")


def test_mutual(tmp_path: Path) -> None:
    folder = made(tmp_path, mutual=True)
    config = parse_text(SSLConfig, (folder / "ssl.cfg").read_bytes(), "ssl.cfg")
    assert config.client_verify
    server, client = contexts(folder, "ca.crt")
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(cadata=config.custom_ca)
    with pytest.raises(OSError):
        shake_hands(server, client)
    client.load_cert_chain(folder / "client.crt", folder / "client.key")
    shake_hands(server, client)


def test_the_configuration_holds_key_and_certificate(tmp_path: Path) -> None:
    folder = made(tmp_path)
    config = parse_text(SSLConfig, (folder / "ssl.cfg").read_bytes(), "ssl.cfg")
    assert config.server_key == (folder / "server.key").read_text()
    assert config.server_cert == (folder / "server.crt").read_text()
    assert not config.client_verify
    certificate = x509.load_pem_x509_certificate(config.server_cert.encode())
    assert certificate.not_valid_after_utc == (NOW + dt.timedelta(days=30)).replace(microsecond=0)


def test_who_may_read_what(tmp_path: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in made(tmp_path, mutual=True).iterdir()}
    public = {"server.crt", "ca.crt", "client.crt"}
    assert modes == {name: 0o644 if name in public else 0o600 for name in modes}
    assert len(modes) == 7


@pytest.mark.parametrize("days", [0, -1, 826])
def test_days_that_cannot_be(days: int) -> None:
    with pytest.raises(InputError) as caught:
        issue_files(DOMAIN, days=days, mutual=False, now=NOW)
    assert caught.value.check == "tls.days"


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    before = (made(tmp_path) / "server.key").read_bytes()
    with pytest.raises(InputError) as caught:
        made(tmp_path)
    assert caught.value.check == "tls.folder"
    assert (tmp_path / "tls" / "server.key").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["tls"]


def test_an_empty_folder_is_filled_and_a_missing_parent_refused(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    made(tmp_path)
    with pytest.raises(InputError) as caught:
        made(tmp_path / "nowhere")
    assert caught.value.check == "tls.folder"


def test_an_authority_that_is_none_is_refused_and_not_told(tmp_path: Path) -> None:
    folder = made(tmp_path, mutual=True)
    config = parse_text(SSLConfig, (folder / "ssl.cfg").read_bytes(), "ssl.cfg")
    config.custom_ca = "no certificate"
    (folder / "ssl.cfg").write_text(text_format.MessageToString(config))
    with pytest.raises(InputError) as caught:
        tls_of(folder / "ssl.cfg")
    assert caught.value.check == "config.custom_ca"
    assert "no certificate" not in (caught.value.found or "")
