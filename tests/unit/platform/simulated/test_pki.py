"""The simulated vendor: its secret, its certificates, its documents."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from ensconce.errors import InputError, IntegrityError
from ensconce.platform.simulated.certificates import SIMULATED_ORGANISATION, Party
from ensconce.platform.simulated.collateral import ABSENT, CollateralRecipe, CrlRecipe, DocumentRecipe
from ensconce.platform.simulated.pki import SimulatedVendor, default_home

NOW = 1_790_000_000
SEED = bytes(range(32))
VENDOR = SimulatedVendor(SEED, NOW)


def everybody(vendor: SimulatedVendor) -> list[Party]:
    cas = [vendor.pck_ca("platform"), vendor.pck_ca("processor")]
    return [vendor.root, vendor.tcb_signer, *cas, vendor.pck("platform"), vendor.pck("processor")]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_gives_others() -> None:
    again, other = SimulatedVendor(SEED, NOW), SimulatedVendor(SEED[::-1], NOW)
    assert [party.der for party in everybody(VENDOR)] == [party.der for party in everybody(again)]
    assert VENDOR.collateral(NOW) == again.collateral(NOW)
    assert not {party.der for party in everybody(VENDOR)} & {party.der for party in everybody(other)}
    assert VENDOR.root_name != other.root_name


def test_every_key_is_another() -> None:
    keys = [party.key for party in everybody(VENDOR)] + [VENDOR.attestation_key]
    assert len({key.private_numbers().private_value for key in keys}) == 7


def test_every_certificate_says_that_it_is_simulated_and_where_its_revocation_list_is() -> None:
    for party in everybody(VENDOR):
        (organisation,) = party.certificate.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
        assert organisation.value == SIMULATED_ORGANISATION
        assert "not Intel" in str(organisation.value)
        assert party.certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints)


def test_names_and_roles_are_those_of_intels_hierarchy() -> None:
    names = [
        party.certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
        for party in everybody(VENDOR)
    ]
    assert names == [
        "Intel SGX Root CA",
        "Intel SGX TCB Signing",
        "Intel SGX PCK Platform CA",
        "Intel SGX PCK Processor CA",
        "Intel SGX PCK Certificate",
        "Intel SGX PCK Certificate",
    ]
    for party, path_length in zip(everybody(VENDOR), (1, None, 0, 0, None, None), strict=True):
        basic = party.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        assert (basic.ca, basic.path_length) == (path_length is not None, path_length)
    VENDOR.root.certificate.verify_directly_issued_by(VENDOR.root.certificate)
    for party in everybody(VENDOR)[1:4]:
        party.certificate.verify_directly_issued_by(VENDOR.root.certificate)
    VENDOR.pck().certificate.verify_directly_issued_by(VENDOR.pck_ca().certificate)


def test_the_root_is_named_by_its_fingerprint() -> None:
    assert VENDOR.root_name == "simulated:" + hashlib.sha256(VENDOR.root_certificate_der).hexdigest()


def test_a_vendor_is_made_once_and_found_again(tmp_path: Path) -> None:
    home = tmp_path / "a" / "simulated"
    made = SimulatedVendor.create(home, NOW)
    assert SimulatedVendor.load(home) == made
    assert SimulatedVendor.open(home, NOW + 5) == made
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "vendor.json").stat().st_mode) == 0o600
    assert x509.load_pem_x509_certificate((home / "root.pem").read_bytes()) == made.root.certificate
    with pytest.raises(InputError) as refusal:
        SimulatedVendor.create(home, NOW)
    assert refusal.value.check == "vendor.exists"
    assert SimulatedVendor.load(home) == made


def test_every_machine_has_a_root_of_its_own(tmp_path: Path) -> None:
    names = {SimulatedVendor.open(tmp_path / name, NOW).root_name for name in "abc"}
    assert len(names) == 3


def test_a_vendor_never_shows_its_secret(tmp_path: Path) -> None:
    assert SEED.hex() not in repr(VENDOR)
    assert repr(SEED) not in repr(VENDOR)
    key = VENDOR.root.key.private_numbers().private_value
    assert str(key) not in repr(VENDOR.root)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"not JSON",
        json.dumps({"format": 2, "seed": SEED.hex(), "created": NOW}).encode(),
        json.dumps({"format": 1, "seed": SEED.hex()}).encode(),
        json.dumps({"format": 1, "seed": SEED.hex(), "created": NOW, "more": 1}).encode(),
        json.dumps({"format": 1, "seed": SEED.hex()[2:], "created": NOW}).encode(),
        json.dumps({"format": 1, "seed": 5, "created": NOW}).encode(),
        json.dumps({"format": 1, "seed": SEED.hex(), "created": "now"}).encode(),
        json.dumps({"format": 1, "seed": SEED.hex(), "created": True}).encode(),
    ],
)
def test_a_damaged_vendor_is_refused_and_not_replaced(tmp_path: Path, data: bytes) -> None:
    SimulatedVendor.create(tmp_path, NOW)
    (tmp_path / "vendor.json").write_bytes(data)
    with pytest.raises(IntegrityError) as refusal:
        SimulatedVendor.open(tmp_path, NOW)
    assert refusal.value.check == "vendor.file"
    assert (tmp_path / "vendor.json").read_bytes() == data


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_secret_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    SimulatedVendor.create(tmp_path, NOW)
    (tmp_path / "vendor.json").chmod(mode)
    with pytest.raises(IntegrityError) as refusal:
        SimulatedVendor.load(tmp_path)
    assert refusal.value.check == "vendor.permissions"


def test_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        SimulatedVendor.load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as refusal:
        SimulatedVendor.open(tmp_path / "file", NOW)
    assert refusal.value.check == "vendor.folder"


def test_the_default_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ENSCONCE_SIMULATED_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert default_home() == tmp_path / ".local" / "share" / "ensconce" / "simulated"
    monkeypatch.setenv("XDG_DATA_HOME", "data")
    assert default_home() == tmp_path / ".local" / "share" / "ensconce" / "simulated"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_home() == tmp_path / "data" / "ensconce" / "simulated"
    monkeypatch.setenv("ENSCONCE_SIMULATED_HOME", str(tmp_path / "chosen"))
    assert default_home() == tmp_path / "chosen"


def test_documents_are_signed_over_their_exact_bytes() -> None:
    papers = VENDOR.collateral(NOW)
    key = VENDOR.tcb_signer.certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    for text, signature in (
        (papers.tcb_info, papers.tcb_info_signature),
        (papers.qe_identity, papers.qe_identity_signature),
    ):
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        key.verify(encode_dss_signature(r, s), text.encode(), ec.ECDSA(SHA256()))


def test_a_recipe_changes_what_it_names_and_nothing_else() -> None:
    sound = json.loads(VENDOR.collateral(NOW).tcb_info)
    recipe = CollateralRecipe(tcb_info=DocumentRecipe(changes={"fmspc": "000000000000", "tcbType": ABSENT}))
    changed = json.loads(VENDOR.collateral(NOW, recipe).tcb_info)
    assert changed == {k: v for k, v in sound.items() if k != "tcbType"} | {"fmspc": "000000000000"}
    assert VENDOR.collateral(NOW, recipe).qe_identity == VENDOR.collateral(NOW).qe_identity


def test_a_revocation_list_names_what_it_is_told() -> None:
    recipe = CollateralRecipe(pck_crl=CrlRecipe(revoked=[VENDOR.pck().serial, 7]), ca="platform")
    crl = x509.load_der_x509_crl(VENDOR.collateral(NOW, recipe).pck_crl)
    assert sorted(entry.serial_number for entry in crl) == sorted([VENDOR.pck().serial, 7])
    issuer = VENDOR.pck_ca().certificate.public_key()
    assert isinstance(issuer, ec.EllipticCurvePublicKey)
    assert crl.is_signature_valid(issuer)
