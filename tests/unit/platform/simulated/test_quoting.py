"""Quotes of the simulated platform, taken apart again by the reader that real ones are taken apart with."""

from __future__ import annotations

import hashlib
from random import Random
from typing import Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st

from ensconce.evidence.quote import INTEL_QE_VENDOR_ID, PCK_CERTIFICATE_CHAIN, parse_quote
from ensconce.evidence.report import Attributes, SgxReport, TdReport
from ensconce.platform.simulated.pki import CA, SimulatedVendor
from ensconce.platform.simulated.quoting import TD_QUOTING_ENCLAVE, QuoteRecipe, QuotingEnclave, make_quote

VENDOR = SimulatedVendor(bytes(32), 1_790_000_000)

REPORTS = st.builds(
    SgxReport,
    cpu_svn=st.binary(min_size=16, max_size=16),
    misc_select=st.integers(0, 0xFFFFFFFF),
    isv_ext_prod_id=st.binary(min_size=16, max_size=16),
    attributes=st.builds(Attributes, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    mr_enclave=st.binary(min_size=32, max_size=32),
    mr_signer=st.binary(min_size=32, max_size=32),
    config_id=st.binary(min_size=64, max_size=64),
    isv_prod_id=st.integers(0, 0xFFFF),
    isv_svn=st.integers(0, 0xFFFF),
    config_svn=st.integers(0, 0xFFFF),
    isv_family_id=st.binary(min_size=16, max_size=16),
    report_data=st.binary(min_size=64, max_size=64),
)


def verifies(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> None:
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    key.verify(encode_dss_signature(r, s), data, ec.ECDSA(SHA256()))


@settings(max_examples=50)
@given(REPORTS, st.sampled_from(["platform", "processor"]))
def test_any_report_becomes_a_sound_quote(report: SgxReport, ca: CA) -> None:
    data = make_quote(VENDOR, report, QuoteRecipe(ca=ca))
    assert make_quote(VENDOR, report, QuoteRecipe(ca=ca)) == data
    quote = parse_quote(data)
    assert quote.body == report
    assert (quote.header.version, quote.header.attestation_key_type, quote.header.tee_type) == (3, 2, 0)
    assert quote.header.qe_vendor_id == INTEL_QE_VENDOR_ID
    assert quote.certification_type == PCK_CERTIFICATE_CHAIN

    chain = x509.load_pem_x509_certificates(quote.certification_data.rstrip(b"\0"))
    assert chain == [VENDOR.pck(ca).certificate, VENDOR.pck_ca(ca).certificate, VENDOR.root.certificate]
    pck = chain[0].public_key()
    assert isinstance(pck, ec.EllipticCurvePublicKey)
    attestation = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\4" + quote.attestation_key)
    verifies(attestation, quote.signature, quote.signed)
    verifies(pck, quote.qe_report_signature, quote.qe_report.to_bytes())
    bound = hashlib.sha256(quote.attestation_key + quote.qe_auth_data).digest() + bytes(32)
    assert quote.qe_report.report_data == bound


@settings(max_examples=50)
@given(st.sampled_from([584, 648, 885]), st.randoms(), st.sampled_from([None, 5]))
def test_any_report_of_a_trust_domain_becomes_a_sound_quote(
    size: int, chance: Random, version: Literal[5] | None
) -> None:
    report = TdReport.from_bytes(chance.randbytes(size))
    data = make_quote(VENDOR, report, QuoteRecipe(version=version))
    quote = parse_quote(data)
    assert quote.body == report
    assert (quote.header.version, quote.header.tee_type) == (version or (4 if size == 584 else 5), 0x81)
    assert quote.qe_report.isv_prod_id == TD_QUOTING_ENCLAVE.isv_prod_id
    attestation = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\4" + quote.attestation_key)
    verifies(attestation, quote.signature, quote.signed)
    pck = VENDOR.pck().certificate.public_key()
    assert isinstance(pck, ec.EllipticCurvePublicKey)
    verifies(pck, quote.qe_report_signature, quote.qe_report.to_bytes())


def test_the_quoting_enclaves_are_not_intels() -> None:
    intels = {
        "8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff",
        "dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5",
    }
    assert not {QuotingEnclave().mr_signer.hex(), TD_QUOTING_ENCLAVE.mr_signer.hex()} & intels


def test_reports_with_fields_of_the_wrong_length_are_refused() -> None:
    sound = parse_quote(make_quote(VENDOR, REPORT)).body
    assert sound == REPORT
    for name in ("report_data", "mr_enclave", "cpu_svn"):
        with pytest.raises(ValueError, match="length"):
            make_quote(VENDOR, SgxReport(**{**fields(REPORT), name: b"short"}))


def fields(report: SgxReport) -> dict[str, object]:
    return {name: getattr(report, name) for name in SgxReport.__slots__}


REPORT = SgxReport(
    bytes(16), 0, bytes(16), Attributes(5, 3), bytes(32), bytes(32), bytes(64), 1, 1, 0, bytes(16), bytes(64)
)
