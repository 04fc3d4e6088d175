"""A version sealed anew from its own ciphertext."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ensconce.cluster import reseal
from ensconce.cluster.deployment import Deployment
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.reseal import described, reseal_model
from ensconce.errors import EnsconceError, InputError, IntegrityError, RefusedError
from ensconce.models.load import open_sealed
from ensconce.servables import MAX_VERSION


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, deployment: Callable[..., Deployment]) -> Path:
    folder = tmp_path_factory.mktemp("made")
    source = folder / "source"
    (source / "extra").mkdir(parents=True)
    (source / "model.xml").write_bytes(b"<net/>")
    (source / "model.bin").write_bytes(os.urandom(900_000))
    (source / "signatures.json").write_bytes(b"{}")
    (source / "extra" / "empty").write_bytes(b"")
    OwnerFolder.create(folder / "owner", deployment()).seal_model(source, "m", 1)
    return folder / "owner"


@pytest.fixture
def owner(made: Path, tmp_path: Path) -> OwnerFolder:
    return OwnerFolder.open(shutil.copytree(made, tmp_path / "owner"))


def content(owner: OwnerFolder, version: int) -> dict[str, bytearray]:
    return open_sealed(owner.bundle / "models", "m", version, owner.keystore().get(f"model/m/{version}"))


def refused(owner: OwnerFolder, check: str, kind: type[EnsconceError], name: str = "m", version: int = 1) -> None:
    with pytest.raises(kind) as caught:
        reseal_model(owner, name, version)
    assert caught.value.check == check


def test_the_same_files_under_another_key(owner: OwnerFolder) -> None:
    done: list[int] = []
    before = {path: path.read_bytes() for path in (owner.bundle / "models").rglob("*") if path.is_file()}
    new = reseal_model(owner, "m", 1, done.append)
    assert (new.version, new.key_id, new.engine) == (2, "model/m/2", "openvino")
    assert described(owner, "m", 2) == new
    assert sum(done) == 900_000 + 6 + 2
    assert content(owner, 1) == content(owner, 2)
    keystore = owner.keystore()
    assert keystore.get("model/m/1") != keystore.get("model/m/2")
    assert {path: path.read_bytes() for path in before} == before
    log = owner.verified_log()[1]
    assert [entry.event for entry in log][-2:] == ["key.added", "model.sealed"]
    assert dict(log[-1].fields) == {"model": "m", "version": 2, "key_id": "model/m/2", "resealed_from": 1}


def test_the_old_key_goes_and_the_new_one_stays(owner: OwnerFolder) -> None:
    reseal_model(owner, "m", 1)
    owner.retire_model("m", 1)
    assert content(owner, 2)
    refused(owner, "key.retired", RefusedError)
    assert reseal_model(owner, "m", 2).version == 3


def test_what_cannot_be_sealed_anew(owner: OwnerFolder) -> None:
    refused(owner, "model.missing", InputError, version=7)
    refused(owner, "model.missing", InputError, name="other")
    refused(owner, "model.name", InputError, name="../m")
    refused(owner, "model.version", InputError, version=0)
    (owner.bundle / "models" / "m" / "1" / "model.xml").write_bytes(bytes(4096))
    with pytest.raises(IntegrityError):
        reseal_model(owner, "m", 1)
    assert [entry.key_id for entry in owner.keystore().entries() if entry.key_id.startswith("model/")] == ["model/m/1"]


def test_a_number_is_never_used_twice(owner: OwnerFolder) -> None:
    keystore = owner.keystore()
    keystore.put("model/m/5", bytes(16), kind="wrap")
    keystore.retire("model/m/5")
    assert reseal_model(owner, "m", 1).version == 6
    keystore.put(f"model/m/{MAX_VERSION}", bytes(16), kind="wrap")
    refused(owner, "model.version", InputError)


def test_a_genuine_description_of_another_version_is_refused(owner: OwnerFolder) -> None:
    reseal_model(owner, "m", 1)
    models = owner.bundle / "models" / "m"
    shutil.copy(models / "2.json", models / "1.json")
    refused(owner, "model.description", IntegrityError)


class Interrupted(BaseException):
    pass


def test_interrupted_it_goes_on_with_the_same_key(owner: OwnerFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr("ensconce.models.seal._Job.publish", interrupt)
        with pytest.raises(Interrupted):
            reseal_model(owner, "m", 1)
    key = owner.keystore().get("model/m/2")
    assert not (owner.bundle / "models" / "m" / "2").exists()
    assert reseal_model(owner, "m", 1).version == 2
    assert owner.keystore().get("model/m/2") == key
    assert content(owner, 1) == content(owner, 2)


def test_the_plaintext_is_on_no_disk_and_forgotten(owner: OwnerFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, bytearray]] = []
    real, plain = open_sealed, bytes(content(owner, 1)["model.bin"][5000:6000])

    def watch(*arguments: object) -> dict[str, bytearray]:
        seen.append(real(*arguments))  # type: ignore[arg-type]
        return seen[-1]

    def look(_: int) -> None:
        for path in owner.path.parent.rglob("*"):
            assert not path.is_file() or plain not in path.read_bytes()

    monkeypatch.setattr(reseal, "open_sealed", watch)
    reseal_model(owner, "m", 1, look)
    assert set(itertools.chain.from_iterable(seen[0].values())) == {0}
