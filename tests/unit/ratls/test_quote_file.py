from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from ensconce.errors import EvidenceError, InputError
from ensconce.evidence.report import SgxReport
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import make_quote
from ensconce.ratls.quote_file import read_quote

KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def quote(sound_report: Callable[..., SgxReport]) -> Callable[[bytes], bytes]:
    vendor = SimulatedVendor(bytes(32), 1_790_000_000)
    return lambda report_data: make_quote(vendor, sound_report(vendor, report_data=report_data))


@pytest.fixture(scope="module")
def certificate(
    quote: Callable[[bytes], bytes], gramine_certificate: Callable[..., x509.Certificate]
) -> x509.Certificate:
    return gramine_certificate(KEY, quote)


def test_a_quote_is_given_as_it_is(tmp_path: Path, quote: Callable[[bytes], bytes]) -> None:
    (tmp_path / "file").write_bytes(quote(bytes(64)))
    assert read_quote(tmp_path / "file")[:2] == b"\x03\0"


@pytest.mark.parametrize("before", [b"", b"\n \n"])
def test_a_certificate_gives_its_quote(tmp_path: Path, certificate: x509.Certificate, before: bytes) -> None:
    (tmp_path / "pem").write_bytes(before + certificate.public_bytes(Encoding.PEM) * 2)
    (tmp_path / "der").write_bytes(certificate.public_bytes(Encoding.DER))
    assert read_quote(tmp_path / "pem") == read_quote(tmp_path / "der")
    assert read_quote(tmp_path / "der")[:2] == b"\x03\0"


def test_evidence_about_another_key(
    tmp_path: Path, quote: Callable[[bytes], bytes], gramine_certificate: Callable[..., x509.Certificate]
) -> None:
    bent = gramine_certificate(KEY, lambda _: quote(bytes(64)))
    (tmp_path / "file").write_bytes(bent.public_bytes(Encoding.PEM))
    with pytest.raises(EvidenceError, match=r"ratls\."):
        read_quote(tmp_path / "file")


def test_a_pem_file_that_is_no_certificate(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(EvidenceError, match=r"\[certificate\.format\]"):
        read_quote(tmp_path / "file")


def test_a_file_that_is_too_long_to_look_at(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(InputError, match=r"\[file\.size\]"):
        read_quote(tmp_path / "file")
