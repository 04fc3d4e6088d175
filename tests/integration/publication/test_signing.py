"""``ensconce publish --sigstore``: the real library asks an instance of the tests' own; clients go by the identity."""

from __future__ import annotations

import base64
import datetime
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from typer.testing import CliRunner

from ensconce.cli.main import app
from ensconce.client.published import PublishedList
from ensconce.cluster.deployment import Deployment
from ensconce.cluster.owner import OwnerFolder
from ensconce.enclave.sign import sign_manifest
from ensconce.errors import EnsconceError, EvidenceError, InputError, UnreachableError
from ensconce.platform.manifest import parse_manifest
from ensconce.publication import signing
from ensconce.publication.sigstore import SigstoreIdentity
from ensconce.state.folder import FolderStore

IDENTITY, ISSUER = "releases@example.test", "https://issuer.example.test"
CODE = bytes(range(32))
MANIFEST = b'[libos]\nentrypoint = "a"\n[sgx]\nenclave_size = "256M"\nmax_threads = 4\nisvprodid = 1\nisvsvn = 2\n'


@pytest.fixture
def owner(
    tmp_path: Path,
    signing_key: RSAPrivateKey,
    deployment: Callable[..., Deployment],
    monkeypatch: pytest.MonkeyPatch,
) -> OwnerFolder:
    """An owner's folder, with an enclave in its bundle."""
    monkeypatch.setattr("ensconce.cluster.owner.new_signing_key", lambda: signing_key)
    folder = OwnerFolder.create(tmp_path / "owner", deployment())
    (folder.bundle / "enclave").mkdir(exist_ok=True)
    manifest = replace(parse_manifest(MANIFEST), debug=False)
    signed = sign_manifest(manifest, CODE, signing_key, date=datetime.date(2026, 11, 23))
    (folder.bundle / "enclave" / "server.sig").write_bytes(signed)
    return folder


def token(**claims: Any) -> str:
    """What a CI service hands out, but for its signature, which is for the certificate authority to check."""
    now = int(time.time())
    body = {"aud": "sigstore", "sub": IDENTITY, "iss": ISSUER, "iat": now, "exp": now + 300, **claims}
    parts = (json.dumps(each).encode() for each in ({"alg": "RS256", "typ": "JWT"}, body))
    return ".".join([*(base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in parts), "c2VjcmV0"])


@pytest.fixture
def publish(
    owner: OwnerFolder, instance: Any, running: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Runs the command as a job of GitLab's would, whose token the library finds by itself."""
    config = tmp_path / "instance.json"
    monkeypatch.setenv("GITLAB_CI", "true")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def run(*arguments: str, sigstore: bool = True, **claims: Any) -> Any:
        config.write_text(json.dumps(instance.trust_config()))
        monkeypatch.setenv("SIGSTORE_ID_TOKEN", token(**claims))
        also = ["--sigstore", "--sigstore-instance", str(config)] if sigstore else []
        done = CliRunner().invoke(app, ["publish", "--owner", str(owner.path), *arguments, *also])
        assert "c2VjcmV0" not in done.output + str(done.exception)
        return done

    return run


def failed(done: Any) -> EnsconceError:
    assert isinstance(done.exception, EnsconceError), done.output
    return done.exception


def refusal(act: Callable[[], object]) -> EnsconceError:
    with pytest.raises(EnsconceError) as caught:
        act()
    return caught.value


def events(owner: OwnerFolder) -> list[str]:
    return [entry.event for entry in owner.verified_log()[1]]


def test_clients_go_by_the_identity(
    owner: OwnerFolder, publish: Any, running: Any, root_file: Path, tmp_path: Path, instance: Any
) -> None:
    done = publish("--name", "release 1")
    assert done.exit_code == 0, (done.output, done.exception)
    assert f"signing as {IDENTITY} ({ISSUER})" in done.output
    assert "public in its log, for ever" in done.output
    assert running.asked == ["/api/v2/signingCert", "/api/v1/log/entries"]
    root_file.write_text(json.dumps(instance.trusted_root()))

    def list_of(identity: str, issuer: str = ISSUER) -> PublishedList:
        believed = [SigstoreIdentity(identity, issuer)]
        store = FolderStore(tmp_path / "state")
        return PublishedList(owner.path / "published.json", identities=believed, trust_root=root_file, store=store)

    assert [each.name for each in list_of(IDENTITY).measurements("d.test").enclaves] == ["release 1"]
    assert refusal(lambda: list_of("other@example.test").measurements("d.test")).check == "published.identity"
    before = (owner.path / "published.json").read_bytes()
    assert publish("--withdraw", CODE.hex(), "--reason", "why").exit_code == 0
    assert list_of(IDENTITY).measurements("d.test").enclaves == ()
    (owner.path / "published.json").write_bytes(before)
    error = refusal(lambda: list_of(IDENTITY).measurements("d.test"))
    assert (type(error), error.check) == (EvidenceError, "published.rollback")


def test_what_identities_signed_goes_on_so_unless_said(owner: OwnerFolder, publish: Any) -> None:
    assert publish().exit_code == 0
    error = failed(publish("--renew", sigstore=False))
    assert (type(error), error.check) == (InputError, "publish.by_key_alone")
    assert publish("--renew", "--no-sigstore", sigstore=False).exit_code == 0
    assert "sigstore" not in json.loads((owner.path / "published.json").read_bytes())
    assert publish("--renew", sigstore=False).exit_code == 0
    assert events(owner).count("published") == 3


def test_an_instance_that_refuses(
    owner: OwnerFolder, publish: Any, running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("/api/v2/signingCert", "/api/v1/log/entries"):
        running.refuses = {path}
        error = failed(publish())
        assert (type(error), error.check) == (UnreachableError, "publish.sigstore")
    running.speaks.clear()
    monkeypatch.setattr(signing, "_SECONDS", 0.2)
    error = failed(publish())
    assert (type(error), error.check) == (UnreachableError, "publish.sigstore")
    assert "no answer within 0.2 seconds" in str(error)
    running.speaks.set()
    running.shutdown()
    running.server_close()
    assert failed(publish()).check == "publish.sigstore"
    # Nothing was recorded, and the next publication is the first.
    assert not (owner.path / "published.json").exists()
    assert "published" not in events(owner)


def test_an_instance_that_signs_with_other_keys_than_it_says(owner: OwnerFolder, publish: Any, instance: Any) -> None:
    said, instance.log = instance.trusted_root(), type(instance)().log
    instance.trusted_root = lambda: said
    error = failed(publish())
    assert (type(error), error.check) == (EvidenceError, "published.sigstore")
    assert not (owner.path / "published.json").exists()


@pytest.mark.parametrize("claims", [{"exp": 1}, {"aud": "other"}, {"sub": None}])
def test_a_token_that_is_none(claims: dict[str, Any], publish: Any, running: Any) -> None:
    assert failed(publish(**claims)).check == "publish.sigstore"
    assert running.asked == []


def test_usage(owner: OwnerFolder, publish: Any, tmp_path: Path) -> None:
    (tmp_path / "bent").write_text("{}")
    assert failed(publish("--sigstore-instance", str(tmp_path / "bent"), sigstore=False)).check == "usage"
    bent = ("--sigstore", "--sigstore-instance", str(tmp_path / "bent"))
    assert failed(publish(*bent, sigstore=False)).check == "publish.instance"
