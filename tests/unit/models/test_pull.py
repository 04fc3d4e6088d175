"""Fetching sealed versions: whole, as their owner described them, from places that are believed in nothing."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typer.testing import CliRunner

from ensconce.cli.main import app
from ensconce.errors import EnsconceError, InputError, IntegrityError, UnreachableError
from ensconce.models.load import open_sealed
from ensconce.models.pull import load_owner_key, pull
from ensconce.models.remote import open_remote

if TYPE_CHECKING:
    from conftest import Owner


@pytest.fixture
def fetch(owner: Owner, tmp_path: Path) -> Callable[..., list[str]]:
    """Fetches digits/1 into ``here``; gives the files that are there then."""

    def run(url: str | None = None, version: int = 1, key: Ed25519PrivateKey | None = None) -> list[str]:
        here = tmp_path / "here"
        pull(
            open_remote(url or owner.models.as_uri()),
            here,
            name="digits",
            version=version,
            owner_key=(key or owner.signing_key).public_key(),
        )
        return sorted(path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file())

    return run


@pytest.fixture
def web(owner: Owner) -> Iterator[str]:
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(owner.models))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_version_comes_whole_and_opens(owner: Owner, fetch: Callable[..., list[str]], tmp_path: Path) -> None:
    owner.seal()
    assert fetch() == owner.listing()
    opened = open_sealed(tmp_path / "here", name="digits", version=1, key=owner.key())
    assert set(opened) == set(owner.plain())


def test_from_a_web_server(owner: Owner, fetch: Callable[..., list[str]], web: str) -> None:
    owner.seal()
    assert fetch(f"{web}/") == owner.listing()
    with pytest.raises(UnreachableError, match=r"pull\.missing.*HTTP status 404"):
        fetch(web, 2)


def test_through_fsspec(owner: Owner, fetch: Callable[..., list[str]]) -> None:
    fsspec: Any = pytest.importorskip("fsspec")
    owner.seal()
    fsspec.filesystem("memory").put(str(owner.models), "/bucket", recursive=True)
    assert fetch("memory://bucket") == owner.listing()
    with pytest.raises(UnreachableError, match=r"pull\.missing"):
        fetch("memory://bucket", 2)
    with pytest.raises(InputError, match=r"pull\.(url|scheme)"):
        open_remote("nosuchscheme://bucket")


def test_a_second_time_nothing_is_fetched(owner: Owner, fetch: Callable[..., list[str]]) -> None:
    owner.seal()
    fetch()
    for path in (owner.models / "digits" / "1").rglob("*.bin"):
        path.unlink()
    assert len(fetch()) == 7


def change(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "shorter":
        data = data[:-1]
    elif how == "longer":
        data += b"x"
    elif how == "missing":
        path.unlink()
        return
    else:
        data[100] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["shorter", "longer", "missing", "changed"])
def test_what_is_not_as_described_is_not_kept(
    owner: Owner, fetch: Callable[..., list[str]], tmp_path: Path, how: str
) -> None:
    owner.seal()
    change(owner.models / "digits" / "1" / "model.bin", how)
    with pytest.raises(EnsconceError) as caught:
        fetch()
    assert caught.value.check == ("pull.missing" if how == "missing" else "pull.file")
    assert list((tmp_path / "here" / "digits").iterdir()) == []


def test_what_was_kept_is_checked(owner: Owner, fetch: Callable[..., list[str]], tmp_path: Path) -> None:
    owner.seal()
    fetch()
    change(tmp_path / "here" / "digits" / "1" / "model.bin", "shorter")
    with pytest.raises(IntegrityError, match=r"pull\.kept"):
        fetch()


def test_the_description_is_the_owners_and_of_this_version(owner: Owner, fetch: Callable[..., list[str]]) -> None:
    owner.seal()
    with pytest.raises(IntegrityError, match=r"description\.key"):
        fetch(key=Ed25519PrivateKey.generate())
    shutil.copy(owner.models / "digits" / "1.json", owner.models / "digits" / "2.json")
    with pytest.raises(IntegrityError, match=r"description\.version"):
        fetch(version=2)


def test_a_description_is_bounded(owner: Owner, fetch: Callable[..., list[str]]) -> None:
    owner.seal()
    with (owner.models / "digits" / "1.json").open("ab") as file:
        file.truncate(9 * 1024 * 1024)
    with pytest.raises(IntegrityError, match=r"pull\.size"):
        fetch()


def test_remains_of_a_killed_one_are_swept(owner: Owner, fetch: Callable[..., list[str]], tmp_path: Path) -> None:
    owner.seal()
    remains = tmp_path / "here" / "digits" / ".1.pulling"
    remains.mkdir(parents=True)
    (remains / "model.bin").write_bytes(b"half")
    assert fetch() == owner.listing()
    assert not remains.exists()


def test_one_at_a_time(owner: Owner, fetch: Callable[..., list[str]], tmp_path: Path) -> None:
    owner.seal()
    folder = tmp_path / "here" / "digits"
    folder.mkdir(parents=True)
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(InputError, match=r"pull\.busy"):
        fetch()
    os.close(handle)


@pytest.mark.parametrize(
    "url",
    [
        "models",
        "https://",
        "https://user:secret@models.example.test/",
        "https://models.example.test/?token=secret",
        "file://elsewhere/models",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(InputError, match=r"pull\.url"):
        open_remote(url)


def test_nobody_there(fetch: Callable[..., list[str]], find_port: Callable[[], int]) -> None:
    with pytest.raises(UnreachableError, match=r"pull\.connect"):
        fetch(f"http://127.0.0.1:{find_port()}")


def test_the_command(owner: Owner, tmp_path: Path) -> None:
    owner.seal()
    key = owner.signing_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "owner.pub").write_bytes(key)
    arguments = ["model", "pull", owner.models.as_uri(), str(tmp_path / "here"), "--owner-key"]
    done = CliRunner().invoke(app, [*arguments, str(tmp_path / "owner.pub"), "--model", "digits/1"])
    assert done.exit_code == 0, done.output
    assert "digits/1: 6 files" in done.output
    refused = CliRunner().invoke(app, [*arguments, str(tmp_path / "owner.pub"), "--model", "digits"])
    assert isinstance(refused.exception, InputError)
    (tmp_path / "owner.pub").write_text("no key")
    with pytest.raises(InputError, match=r"pull\.owner_key"):
        load_owner_key(tmp_path / "owner.pub")
