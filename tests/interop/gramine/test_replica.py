"""What is rendered for Gramine runs under Gramine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

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
    assert replica.predict("digits", images=images.astype(np.float32))["classes"].tolist() == labels.tolist()
    assert replica.stop() < 10
    assert replica.child.returncode == 0, replica.errors()
    assert replica.events()[-1]["event"] == "stopped"
    assert not (folder / "ready.json").exists()


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
