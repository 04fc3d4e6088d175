from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa

from ensconce.enclave.image import Image
from ensconce.enclave.manifest import EnclaveSpec, render
from ensconce.enclave.show import is_gramines, show
from ensconce.enclave.sign import mr_signer, sign_manifest
from ensconce.errors import EnsconceError, EvidenceError, InputError
from ensconce.platform.manifest import parse_manifest
from ensconce.platform.simulated.measurement import measure


@pytest.fixture
def built(tmp_path: Path, spec: EnclaveSpec, small_image: Image, signing_key: rsa.RSAPrivateKey) -> Path:
    """A folder with ``app.manifest.sgx`` and ``app.sig``."""
    text = render(spec, small_image).encode()
    (tmp_path / "app.manifest.sgx").write_bytes(text)
    manifest, day = parse_manifest(text), datetime.date(2026, 11, 23)
    (tmp_path / "app.sig").write_bytes(sign_manifest(manifest, measure(manifest), signing_key, date=day))
    return tmp_path


def test_a_signature_becomes_a_stanza(built: Path, signing_key: rsa.RSAPrivateKey) -> None:
    for name in ("app.sig", "app.manifest.sgx"):
        (stanza,) = yaml.safe_load(show(built / name).stanza())
        assert stanza == {
            "name": "app",
            "mr_enclave": measure(parse_manifest((built / "app.manifest.sgx").read_bytes())).hex(),
            "mr_signer": mr_signer(signing_key.public_key()).hex(),
            "isv_prod_id": 1,
            "min_isv_svn": 1,
            "attributes": {
                "flags": {"mask": "0xfffffffffffffffd", "value": "0x0000000000000005"},
                "xfrm": {"mask": "0xfffffffffff9ff1b", "value": "0x0000000000000003"},
                "misc_select": {"mask": "0xffffffff", "value": "0x00000000"},
            },
            "debug": False,
            "receives": [],
        }


def test_an_unsigned_manifest_has_no_identity(built: Path) -> None:
    (built / "app.sig").unlink()
    with pytest.raises(InputError) as caught:
        show(built / "app.manifest.sgx")
    assert caught.value.check == "enclave.unsigned"


def test_a_signature_of_another_manifest_is_refused(built: Path) -> None:
    text = (built / "app.manifest.sgx").read_text()
    (built / "app.manifest.sgx").write_text(text.replace("isvsvn = 1", "isvsvn = 2"))
    with pytest.raises(InputError) as caught:
        show(built / "app.manifest.sgx")
    assert caught.value.check == "sign.measured"


def test_a_signature_of_other_files_is_refused(built: Path) -> None:
    text = (built / "app.manifest.sgx").read_text()
    (built / "app.manifest.sgx").write_text(text.replace("ab" * 32, "ba" * 32, 1))
    with pytest.raises(InputError) as caught:
        show(built / "app.manifest.sgx")
    assert caught.value.check == "sign.measured"


# The last two are no part of what is signed, and decide whether a CPU takes the signature.
@pytest.mark.parametrize("at", [128, 600, 900, 960, 1024, 1040, 1807])
def test_a_changed_byte_is_noticed(built: Path, at: int) -> None:
    data = bytearray((built / "app.sig").read_bytes())
    data[at] ^= 1
    (built / "app.sig").write_bytes(data)
    with pytest.raises(EvidenceError) as caught:
        show(built / "app.sig")
    assert caught.value.check == "sigstruct.signature"


def test_what_is_no_sigstruct_is_said_to_be_none(built: Path) -> None:
    (built / "app.sig").write_bytes(b"no")
    with pytest.raises(EnsconceError) as caught:
        show(built / "app.sig")
    assert caught.value.check == "sigstruct.size"


def test_gramines_own_manifests_name_the_library_that_it_loads_first(built: Path) -> None:
    text = (built / "app.manifest.sgx").read_text()
    assert not is_gramines(parse_manifest(text.encode()))
    entry = '[loader]\nentrypoint = { uri = "file:libsysdb.so", sha256 = "00" }'
    assert is_gramines(parse_manifest(text.replace("[loader]", entry).encode()))
