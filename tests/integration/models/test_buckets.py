"""Fetching a sealed version from S3, against moto's server: over HTTPS' plain form, and by fsspec's package for S3."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from moto.server import ThreadedMotoServer

from ensconce.errors import InputError, IntegrityError, UnreachableError
from ensconce.keys import FolderPlace, SealedKeystore, new_key_file
from ensconce.models.pull import pull
from ensconce.models.remote import open_remote
from ensconce.models.seal import seal
from ensconce.times import unix_now

Listing = dict[str, bytes]


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """S3's server, as AWS' own variables name it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "do-not-print",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_CONFIG_FILE": str(tmp_path / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no-credentials"),
    }.items():
        monkeypatch.setenv(name, value)
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> str:
    """A name for each test: the server's buckets outlive it in this process."""
    return f"models-{abs(hash(request.node.name))}"


@pytest.fixture
def uploaded(endpoint: str, bucket: str, tmp_path: Path) -> tuple[Ed25519PrivateKey, Listing]:
    """A sealed version in a bucket that everybody may read: the owner's key, and what lies there."""
    key, models = Ed25519PrivateKey.generate(), tmp_path / "models"
    (tmp_path / "version").mkdir()
    (tmp_path / "version" / "model.xml").write_bytes(b"<net/>")
    (tmp_path / "version" / "model.bin").write_bytes(bytes(3_000_000))
    (tmp_path / "version" / "signatures.json").write_bytes(b"{}")
    keystore = SealedKeystore.create(FolderPlace(tmp_path / "keystore"), new_key_file(tmp_path / "unlock.key"))
    seal(
        tmp_path / "version",
        models,
        name="digits",
        version=1,
        engine="openvino",
        keystore=keystore,
        signing_key=key,
        now=unix_now,
    )
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(
        Bucket=bucket, ACL="public-read", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    found = listing(models)
    for name, data in found.items():
        client.put_object(Bucket=bucket, Key=f"owner/models/{name}", Body=data, ACL="public-read")
    return key, found


def listing(folder: Path) -> Listing:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def url(request: pytest.FixtureRequest, endpoint: str, bucket: str) -> str:
    if request.param == "s3":
        pytest.importorskip("s3fs", reason="s3:// needs ensconce[storage]")
        # Its file systems remember who they were made for.
        pytest.importorskip("fsspec").AbstractFileSystem.clear_instance_cache()
        return f"s3://{bucket}/owner/models"
    return f"{endpoint}/{bucket}/owner/models"


@pytest.mark.parametrize("url", ["http", "s3"], indirect=True)
def test_from_a_bucket(
    url: str, uploaded: tuple[Ed25519PrivateKey, Listing], tmp_path: Path, endpoint: str, bucket: str
) -> None:
    key, sealed = uploaded
    here = tmp_path / "here"

    def fetch(version: int = 1) -> None:
        pull(open_remote(url), here, name="digits", version=version, owner_key=key.public_key())

    fetch()
    assert listing(here) == sealed
    with pytest.raises(UnreachableError, match=r"pull\.missing"):
        fetch(2)
    # Whoever has the bucket has no say in what is taken from it.
    boto3.client("s3", endpoint_url=endpoint).put_object(
        Bucket=bucket, Key="owner/models/digits/1/model.bin", Body=bytes(len(sealed["digits/1/model.bin"]))
    )
    (here / "digits" / "1" / "model.bin").unlink()
    with pytest.raises(IntegrityError):
        fetch()


def test_without_a_package_for_the_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match=r"pull\.scheme.*ensconce\[storage\]"):
        open_remote("gs://models-of-digits/models")
