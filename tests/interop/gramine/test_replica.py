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
    owner.attest(folder, identity)
    replica = owner.start(folder)
    ready = replica.ready()
    assert ready["servables"] == ["digits/1"]
    sample = np.load(DIGITS / "heldout.npz")
    images, labels = sample["images"][:4, ..., None], sample["labels"][:4]
    answer = replica.rest("POST", "/v1/models/digits:predict", {"instances": images.tolist()})
    assert [row["classes"] for row in answer["predictions"]] == labels.tolist()
    assert replica.stop() < 10
    assert replica.child.returncode == 0, replica.errors()
    assert replica.events()[-1]["event"] == "stopped"
    assert not (folder / "ready.json").exists()
