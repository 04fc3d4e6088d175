"""What is rendered for Gramine runs under Gramine."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensconce.addresses import Address
from ensconce.client.channel import open_channel
from ensconce.client.predict import Client
from ensconce.client.service import Service
from ensconce.enclave.measure import measure_built
from ensconce.evidence.sigstruct import parse_sigstruct
from ensconce.times import unix_now

sys.path.insert(0, str(Path(__file__).parent))
from gramine_world import passes_gramine_manifest

DIGITS = Path(__file__).parents[3] / "examples" / "digits"


def test_a_replica_gets_its_key_serves_over_tls_and_stops(owner: Any) -> None:
    owner.seal()
    identity = owner.build()
    owner.accept(identity.mr_enclave)
    folder = owner.folder()
    owner.attest(folder)
    replica = owner.start(folder)
    ready = replica.ready()
    assert ready["servables"] == ["digits/1"]
    sample = np.load(DIGITS / "heldout.npz")
    images, labels = sample["images"][:4, ..., None], sample["labels"][:4]
    answer = replica.rest("POST", "/v1/models/digits:predict", {"instances": images.tolist()})
    assert [row["classes"] for row in answer["predictions"]] == labels.tolist()
    with replica.predicting() as predict:
        assert predict("digits", images=images.astype(np.float32))["classes"].tolist() == labels.tolist()
    # From within the serving process, while it serves: a quote over the client's own nonce and channel.
    service = Service(
        targets=(Address("127.0.0.1", ready["grpc"]),),
        server_name="digits.example.test",
        appraiser=owner.server.appraiser,
        authority=owner.authority.certificate,
        freshness=True,
    )
    with Client(open_channel(service)) as client:
        assert client.predict("digits", images)["classes"].tolist() == labels.tolist()
    assert replica.stop() < 10
    assert replica.child.returncode == 0, replica.errors()
    assert replica.events()[-1]["event"] == "stopped"
    assert not (folder / "ready.json").exists()


def test_the_same_inputs_give_the_same_measurement(owner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another folder, day, umask, signer, order of files on disk, and nothing of the first build's to take over."""
    owner.seal()
    first = owner.build()
    passes_gramine_manifest(owner.bundle)
    another = tmp_path / "quite" / "another place"
    shutil.copytree(owner.bundle / "models", another / "models")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no cache"))
    monkeypatch.setattr("gramine_world.now", lambda: unix_now() + 86_400)
    before = os.umask(0o077)
    try:
        second = replace(owner, bundle=another).build()
    finally:
        os.umask(before)
    assert second.mr_enclave == first.mr_enclave
    assert second.mr_signer != first.mr_signer
    built = [folder / "enclave" / "server.manifest.sgx" for folder in (owner.bundle, another)]
    assert built[0].read_bytes() == built[1].read_bytes()
    days = [parse_sigstruct(path.with_name("server.sig").read_bytes()).date for path in built]
    assert days[0] < days[1]
    # Every trusted file is read again, and Gramine's tool asked again.
    assert measure_built(built[1]).mr_enclave == first.mr_enclave


def test_a_changed_library_never_runs(owner: Any) -> None:
    owner.seal()
    identity = owner.build()
    owner.accept(identity.mr_enclave)
    folder = owner.folder()
    owner.attest(folder)
    library = next((folder / "enclave" / "image" / "bulk").glob("libopenvino_ir_frontend*"))
    data = bytearray(library.read_bytes())
    data[len(data) // 2] ^= 1
    library.write_bytes(data)
    replica = owner.start(folder)
    replica.child.wait(60)
    assert replica.child.returncode == 6
    # Gramine's console is the host's standard output, whichever of the two a program writes to.
    assert '"replica.library"' in (folder / "out").read_text()
    assert not (folder / "ready.json").exists()
