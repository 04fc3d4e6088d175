"""Intel's genuine certificates, lists and documents beside the simulated ones: the same shape, but for the names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from ensconce.evidence.quote import parse_quote
from ensconce.platform.simulated.pck_extension import OID_SGX
from ensconce.platform.simulated.pki import SimulatedVendor

VENDOR = SimulatedVendor(bytes(32), 1_790_000_000)


@pytest.fixture(scope="module")
def row(vectors: Path) -> dict[str, Any]:
    """A genuine quote of a machine under the Platform CA, with its collateral."""
    rows = json.loads((vectors / "quotes" / "index.json").read_text())
    found = next(row for row in rows if row["type"] == "SGX v3" and row["ca"] == "platform" and row["expected_status"])
    return dict(found)


@pytest.fixture(scope="module")
def genuine(vectors: Path, row: dict[str, Any]) -> dict[str, x509.Certificate]:
    quote = parse_quote((vectors / "quotes" / row["file"]).read_bytes())
    chain = x509.load_pem_x509_certificates(quote.certification_data.rstrip(b"\0"))
    collateral = json.loads((vectors / "quotes" / row["collateral"]).read_bytes())
    signer = x509.load_pem_x509_certificates(collateral["tcb_info_issuer_chain"].encode())[0]
    return {"pck": chain[0], "ca": chain[1], "root": chain[2], "signer": signer}


OURS = {
    "pck": VENDOR.pck().certificate,
    "ca": VENDOR.pck_ca().certificate,
    "root": VENDOR.root.certificate,
    "signer": VENDOR.tcb_signer.certificate,
}


@pytest.mark.parametrize("role", list(OURS))
def test_certificates(genuine: dict[str, x509.Certificate], role: str) -> None:
    theirs, ours = genuine[role], OURS[role]

    def shape(certificate: x509.Certificate) -> list[tuple[str, bool]]:
        return sorted((extension.oid.dotted_string, extension.critical) for extension in certificate.extensions)

    def name(certificate: x509.Certificate) -> list[tuple[str, object]]:
        skipped = x509.NameOID.ORGANIZATION_NAME
        return [(part.oid.dotted_string, part.value) for part in certificate.subject if part.oid != skipped]

    assert shape(ours) == shape(theirs)
    assert name(ours) == name(theirs)
    assert [part.oid for part in ours.subject] == [part.oid for part in theirs.subject]
    for kind in (x509.KeyUsage, x509.BasicConstraints):
        assert (
            ours.extensions.get_extension_for_class(kind).value == theirs.extensions.get_extension_for_class(kind).value
        )
    assert ours.signature_algorithm_oid == theirs.signature_algorithm_oid
    assert ours.subject != theirs.subject, "the organisation must tell them apart"


def outline(der: bytes) -> list[Any]:
    """The nesting of a DER value: tags, object identifiers, and the lengths of octet strings."""
    found: list[Any] = []
    while der:
        tag, size, start = der[0], der[1], 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(der[2:start], "big")
        content, der = der[start : start + size], der[start + size :]
        if tag == 0x30:
            found.append(outline(content))
        else:
            found.append((tag, content.hex() if tag == 0x06 else size if tag == 0x04 else None))
    return found


def test_the_sgx_extension(genuine: dict[str, x509.Certificate]) -> None:
    theirs, ours = (
        certificate.extensions.get_extension_for_oid(OID_SGX).value for certificate in (genuine["pck"], OURS["pck"])
    )
    assert isinstance(theirs, x509.UnrecognizedExtension)
    assert isinstance(ours, x509.UnrecognizedExtension)
    assert outline(ours.value) == outline(theirs.value)


def test_documents_and_lists(vectors: Path, row: dict[str, Any]) -> None:
    theirs = json.loads((vectors / "quotes" / row["collateral"]).read_bytes())
    ours = VENDOR.collateral(VENDOR.created)
    assert list(json.loads(ours.tcb_info)) == list(json.loads(theirs["tcb_info"]))
    assert list(json.loads(ours.qe_identity)) == list(json.loads(theirs["qe_identity"]))
    for name in ("root_ca_crl", "pck_crl"):
        their_list = x509.load_der_x509_crl(bytes.fromhex(theirs[name]))
        our_list = x509.load_der_x509_crl(getattr(ours, name))
        assert [extension.oid for extension in our_list.extensions] == [ext.oid for ext in their_list.extensions]
