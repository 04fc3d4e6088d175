"""What must never be in the repository: anybody who reads it would have it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

REPOSITORY = Path(__file__).parents[2]
# A key's own text behind the line that announces one; lines alone are in parsers and their tests.
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{60}")
KEY_FILE = re.compile(r"\.(key|pem|p12|pfx|jks|kdbx)$|(^|/)(wrap[-_]key|id_[a-z0-9]+)$")


def test_no_key_is_in_the_repository() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no clone, so nobody can tell what belongs to the repository")
    names = [name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).is_file()]
    assert "pyproject.toml" in names
    assert [name for name in names if KEY_FILE.search(name)] == []
    assert [name for name in names if PRIVATE_KEY.search((REPOSITORY / name).read_bytes())] == []


@pytest.mark.parametrize(
    "name", ["ssl/ca.key", "certs/server.key", "files/wrap_key", "wrap-key", "id_ed25519", "a.pem"]
)
def test_a_key_would_be_known_by_its_name(name: str) -> None:
    assert KEY_FILE.search(name)


@pytest.mark.parametrize("kind", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_a_key_would_be_known_by_its_text(kind: PrivateFormat) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    assert PRIVATE_KEY.search(key.private_bytes(Encoding.PEM, kind, NoEncryption()))
    short = ed25519.Ed25519PrivateKey.generate()
    assert PRIVATE_KEY.search(short.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
