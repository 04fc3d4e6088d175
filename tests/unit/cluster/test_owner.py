"""The owner's folder: whole or not at all, and nothing happens that its log cannot record."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ensconce.audit.storage import LOG
from ensconce.cluster.deployment import Deployment
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.policy import write_policy
from ensconce.enclave.build import EnclaveIdentity
from ensconce.errors import EnsconceError, InputError, IntegrityError

ROOT = f"simulated:{'0' * 64}"
IDENTITY = EnclaveIdentity(mr_enclave=bytes(32), mr_signer=bytes(32), isv_prod_id=1, isv_svn=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, deployment: Callable[..., Deployment]) -> Path:
    return OwnerFolder.create(tmp_path_factory.mktemp("made") / "owner", deployment()).path


@pytest.fixture
def owner(made: Path, tmp_path: Path) -> OwnerFolder:
    return OwnerFolder.open(shutil.copytree(made, tmp_path / "owner"))


def test_an_empty_folder_is_taken(tmp_path: Path, deployment: Callable[..., Deployment]) -> None:
    (tmp_path / "owner").mkdir()
    OwnerFolder.create(tmp_path / "owner", deployment())
    assert [path.name for path in tmp_path.iterdir()] == ["owner"]
    assert OwnerFolder.open(tmp_path / "owner").verified_log()[0].size == 1


@pytest.mark.parametrize("place", ["file", "loop", "file/below", "x" * 300, "link", "."])
def test_impossible_places_are_refused_and_leave_nothing(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deployment: Callable[..., Deployment]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(InputError, match="name a new folder") as refused:
        OwnerFolder.create(Path(place) if place == "." else tmp_path / place, deployment())
    assert refused.value.check in ("owner.exists", "owner.create")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("part", ["unlock.key", "ca.pem", "owner.pub", f"audit/{LOG}"])
def test_a_missing_part_is_never_begun_anew(owner: OwnerFolder, part: str) -> None:
    (owner.path / part).unlink()
    with pytest.raises(IntegrityError, match=f"{part} is missing"):
        OwnerFolder.open(owner.path).keystore()


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not an owner's folder"):
        OwnerFolder.open(tmp_path)


def _change_log(owner: OwnerFolder) -> None:
    log = owner.audit_folder / LOG
    log.write_bytes(log.read_bytes().replace(b"d.test", b"e.test"))


def _change_key(owner: OwnerFolder) -> None:
    owner.unlock_file.write_bytes(os.urandom(32))


@pytest.mark.parametrize("change", [_change_log, _change_key])
def test_what_cannot_be_recorded_does_not_happen(owner: OwnerFolder, change: object, tmp_path: Path) -> None:
    write_policy(owner, IDENTITY, ROOT)
    owner.keystore().put("model/m/1", bytes(16), kind="wrap")
    assert callable(change)
    change(owner)
    before = {path: path.read_bytes() for path in owner.path.rglob("*") if path.is_file()}
    attempts = (
        lambda: write_policy(owner, IDENTITY, f"simulated:{'1' * 64}", replace=True),
        lambda: owner.retire_model("m", 1),
        lambda: owner.seal_model(tmp_path, "m", 2),
        lambda: owner.build_enclave(),
    )
    for attempt in attempts:
        with pytest.raises(IntegrityError):
            attempt()
    assert {path: path.read_bytes() for path in owner.path.rglob("*") if path.is_file()} == before


def test_a_model_that_the_deployment_does_not_list_is_not_sealed(owner: OwnerFolder, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        owner.seal_model(tmp_path, "other", 1)
    assert caught.value.check == "model.name"
    assert list((owner.bundle / "models").iterdir()) == []


@pytest.mark.parametrize("block", ['"keystore":\n  kind: file\n', "keystore:\n\n  kind: file\n"])
def test_what_opens_the_keystore_does_not_reach_the_host(
    owner: OwnerFolder, block: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensconce.enclave.build.build_enclave", lambda *_, **__: IDENTITY)
    text = owner.deployment_file.read_text()
    owner.deployment_file.write_text(text + "keystore:\n  kind: file\n")
    owner.build_enclave()
    assert (owner.bundle / "ensconce.yaml").read_text() == text
    (owner.bundle / "ensconce.yaml").unlink()
    owner.deployment_file.write_text(block + text)
    with pytest.raises(InputError) as caught:
        owner.build_enclave()
    assert caught.value.check == "deployment.keystore"
    assert not (owner.bundle / "ensconce.yaml").exists()


@pytest.mark.parametrize("content", [b"", b"caf\xe9", bytes(1 << 17)])
def test_damaged_certificates_and_keys_are_told(owner: OwnerFolder, content: bytes) -> None:
    owner.public_key_file.write_bytes(content)
    owner.ca_file.write_bytes(content)
    with pytest.raises(EnsconceError):
        owner.verified_log()
    with pytest.raises(EnsconceError):
        owner.build_enclave()
    assert not (owner.bundle / "enclave").exists()
