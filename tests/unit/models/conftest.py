"""An owner with a keystore and a small model in two versions."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ensconce.keys import FolderPlace, Keystore, SealedKeystore, new_key_file
from ensconce.models.description import ModelDescription
from ensconce.models.seal import seal

NOW = 1_769_860_800


@dataclass(frozen=True)
class Owner:
    source: Path
    models: Path
    keystore: SealedKeystore
    signing_key: Ed25519PrivateKey

    def seal(
        self, version: int = 1, *, keystore: Keystore | None = None, progress: Callable[[int], None] | None = None
    ) -> ModelDescription:
        return seal(
            self.source,
            self.models,
            name="digits",
            version=version,
            engine="openvino",
            keystore=keystore or self.keystore,
            signing_key=self.signing_key,
            now=lambda: NOW,
            progress=progress,
        )

    def key(self, version: int = 1) -> bytes:
        return self.keystore.get(f"model/digits/{version}")

    def plain(self) -> dict[str, bytearray]:
        return {
            path.relative_to(self.source).as_posix(): bytearray(path.read_bytes())
            for path in self.source.rglob("*")
            if path.is_file()
        }

    def listing(self) -> list[str]:
        return sorted(path.relative_to(self.models).as_posix() for path in self.models.rglob("*") if path.is_file())


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    source = tmp_path / "version"
    (source / "extra").mkdir(parents=True)
    (source / "model.xml").write_bytes(b"<net/>")
    (source / "model.bin").write_bytes(os.urandom(900_000))
    (source / "signatures.json").write_bytes(b"{}")
    (source / "extra" / "labels.txt").write_bytes(b"\n".join(b"%d" % n for n in itertools.islice(range(9999), 1000)))
    (source / "extra" / "empty").write_bytes(b"")
    keystore = SealedKeystore.create(
        FolderPlace(tmp_path / "keystore"), new_key_file(tmp_path / "unlock.key"), now=lambda: NOW
    )
    return Owner(source, tmp_path / "bundle" / "models", keystore, Ed25519PrivateKey.generate())
