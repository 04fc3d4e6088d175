from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ensconce.errors import InputError, IntegrityError
from ensconce.keys import FolderPlace, SealedKeystore, get_private_key, new_key_file, put_private_key


@pytest.fixture
def keystore(tmp_path: Path) -> SealedKeystore:
    return SealedKeystore.create(FolderPlace(tmp_path / "keystore"), new_key_file(tmp_path / "key"))


def test_every_kind_comes_back(keystore: SealedKeystore) -> None:
    owner = Ed25519PrivateKey.generate()
    enclave = rsa.generate_private_key(3, 3072)
    root = ec.generate_private_key(ec.SECP256R1())
    put_private_key(keystore, "signing/owner", owner)
    put_private_key(keystore, "signing/enclave", enclave)
    put_private_key(keystore, "ca/root", root)
    assert get_private_key(keystore, "signing/owner", "ed25519").public_key() == owner.public_key()
    assert get_private_key(keystore, "signing/enclave", "rsa").public_key() == enclave.public_key()
    assert get_private_key(keystore, "ca/root", "ec").public_key() == root.public_key()
    assert [entry.kind for entry in keystore.entries()] == ["ec", "rsa", "ed25519"]


def test_a_key_of_another_kind_is_refused(keystore: SealedKeystore) -> None:
    put_private_key(keystore, "signing/owner", Ed25519PrivateKey.generate())
    keystore.put("nonsense", b"nonsense", kind="secret")
    der = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    keystore.put("truncated", der[:-5], kind="ec")
    for key_id in ("signing/owner", "nonsense", "truncated"):
        with pytest.raises(IntegrityError) as caught:
            get_private_key(keystore, key_id, "ec")
        assert caught.value.check == "key.kind"
        # A parser's message about a private key stays out of logs.
        assert caught.value.__cause__ is caught.value.__context__ is None


def test_an_unknown_key(keystore: SealedKeystore) -> None:
    with pytest.raises(InputError) as caught:
        get_private_key(keystore, "signing/owner", "ed25519")
    assert caught.value.check == "key.unknown"
