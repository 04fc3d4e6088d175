from __future__ import annotations

import datetime as dt
import hashlib
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ensconce.errors import InputError, IntegrityError, UnreachableError
from ensconce.models.fetch import fetch, published

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        match self.path:
            case "/moved":
                self.send_response(302)
                self.send_header("Location", "/model.pb")
                self.end_headers()
                return
            case "/missing":
                self.send_error(404)
                return
        self.send_response(200)
        if self.path not in ("/unsaid", "/endless"):
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: 1000 if self.path == "/cut" else None])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()
        thread.join()


@pytest.fixture
def refuses(tmp_path: Path) -> Callable[..., Exception]:
    """Fetches what must not be kept, and gives the refusal."""

    def run(url: str, sha256: str | None = SHA256, **options: int) -> Exception:
        with pytest.raises((InputError, UnreachableError, IntegrityError)) as caught:
            fetch(url, tmp_path / "m.pb", sha256, **options)  # type: ignore[arg-type]
        assert not list(tmp_path.iterdir())
        return caught.value

    return run


@pytest.mark.parametrize("path", ["model.pb", "unsaid"])
def test_the_expected_file_is_kept(server: str, tmp_path: Path, path: str) -> None:
    told = list[tuple[int, int | None]]()
    size = fetch(f"{server}/{path}", tmp_path / "m.pb", SHA256.upper(), progress=lambda *said: told.append(said))
    assert size == len(CONTENT)
    assert (tmp_path / "m.pb").read_bytes() == CONTENT
    assert told[-1] == (size, size if path == "model.pb" else None)
    assert [path.name for path in tmp_path.iterdir()] == ["m.pb"]


def test_another_file_is_not(server: str, refuses: Callable[..., Exception]) -> None:
    error = refuses(f"{server}/model.pb", "ab" * 32)
    assert isinstance(error, IntegrityError)
    assert error.check == "fetch.changed"
    assert SHA256 in str(error.found)


@pytest.mark.parametrize(
    ("path", "check", "options"),
    [
        ("moved", "fetch.status", {}),
        ("missing", "fetch.status", {}),
        ("cut", "fetch.connect", {}),
        ("model.pb", "fetch.size", {"limit": len(CONTENT) - 1}),
        ("unsaid", "fetch.size", {"limit": len(CONTENT) - 1}),
    ],
)
def test_servers_that_do_not_give_it(
    server: str, refuses: Callable[..., Exception], path: str, check: str, options: dict[str, int]
) -> None:
    error = refuses(f"{server}/{path}", **options)
    assert isinstance(error, UnreachableError)
    assert error.check == check


def test_nobody_there(refuses: Callable[..., Exception], find_port: Callable[[], int]) -> None:
    error = refuses(f"http://127.0.0.1:{find_port()}/")
    assert isinstance(error, UnreachableError)
    assert error.check == "fetch.connect"


def test_a_certificate_that_nobody_vouches_for(
    tmp_path_factory: pytest.TempPathFactory, refuses: Callable[..., Exception]
) -> None:
    folder = tmp_path_factory.mktemp("tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _write_leaf(folder)
    context.load_cert_chain(folder / "leaf.pem", folder / "leaf.key")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            error = refuses(f"https://127.0.0.1:{listening.server_address[1]}/model.pb")
        finally:
            listening.shutdown()
            thread.join()
    assert isinstance(error, UnreachableError)
    assert "CERTIFICATE_VERIFY_FAILED" in str(error.found)


def _write_leaf(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    begin, end = dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(2090, 1, 1, tzinfo=dt.UTC)
    leaf = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, end).sign(key, hashes.SHA256())
    (folder / "leaf.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "leaf.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))


@pytest.mark.parametrize("url", ["http://example.test/m.pb", "ftp://127.0.0.1/", "m.pb", "https://", "http://[", ""])
def test_urls_that_are_not_asked(refuses: Callable[..., Exception], url: str) -> None:
    error = refuses(url)
    assert isinstance(error, InputError)
    assert error.check == "fetch.url"


def test_a_password_is_not_told(refuses: Callable[..., Exception]) -> None:
    error = refuses("https://somebody:hidden@127.0.0.1:1/m.pb")
    assert isinstance(error, InputError)
    assert error.check == "fetch.url"
    assert "hidden" not in str(error)


@pytest.mark.parametrize("sha256", [None, "", "ab" * 31, "g" * 64])
def test_nothing_is_fetched_without_a_hash(refuses: Callable[..., Exception], sha256: str | None) -> None:
    error = refuses("http://127.0.0.1:1/", sha256)
    assert isinstance(error, InputError)
    assert error.check == "fetch.sha256"


def test_nothing_is_overwritten(server: str, tmp_path: Path) -> None:
    (tmp_path / "m.pb").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"fetch\.exists"):
        fetch(f"{server}/model.pb", tmp_path / "m.pb", SHA256)
    assert (tmp_path / "m.pb").read_bytes() == b"mine"


def test_what_is_known() -> None:
    known = published("resnet50")
    assert known.url.startswith("https://")
    assert (known.inputs, known.outputs, known.sha256) == ("input", "predict", None)
    with pytest.raises(InputError, match=r"fetch\.model"):
        published("resnet51")
