"""Real quotes, taken apart and changed: whatever is done to them, they are refused or say the same as before."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.root import IntelRoot, SimulatedRoot, claimed_root, parse_root_certificate, root_named
from ensconce.appraisal.verdict import Verdict
from ensconce.errors import EvidenceError, InputError
from ensconce.evidence.quote import Quote, parse_quote
from ensconce.evidence.report import SgxReport


@dataclass(frozen=True)
class Case:
    quote: bytes
    collateral: Collateral
    at: int

    def verify(self, quote: bytes | None = None, **changes: Any) -> Verdict:
        return verify_quote(
            self.quote if quote is None else quote,
            replace(self.collateral, **changes),
            at=self.at,
            root=IntelRoot(),
        )

    def refused(self, quote: bytes | None = None, **changes: Any) -> str:
        with pytest.raises(EvidenceError) as caught:
            self.verify(quote, **changes)
        return caught.value.check


@pytest.fixture(scope="session")
def cases(vectors: Path) -> list[Case]:
    folder = vectors / "quotes"
    return [
        Case(
            (folder / row["file"]).read_bytes(),
            Collateral.from_json((folder / row["collateral"]).read_bytes()),
            row["valid_at"],
        )
        for row in json.loads((folder / "index.json").read_text())
        if row["outcome"] == "accept"
    ]


@pytest.fixture(scope="session")
def sgx(cases: list[Case]) -> Case:
    return cases[0]


@pytest.fixture(scope="session")
def tdx(cases: list[Case]) -> Case:
    return cases[-1]


@pytest.fixture(params=["sgx", "tdx"])
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.getfixturevalue(request.param)
    return found


def test_real_quotes_are_read_as_they_were_signed(vectors: Path) -> None:
    """The attestation key in each quote signed exactly the bytes that are called signed; two are known to be broken."""
    broken = set()
    files = sorted((vectors / "quotes").glob("*.bin"))
    assert len(files) == 124
    for file in files:
        quote = parse_quote(file.read_bytes())
        if isinstance(quote.body, SgxReport):
            assert quote.signed.endswith(quote.body.to_bytes())
        if not _signed_by_its_key(quote):
            broken.add(file.name)
    assert broken == {"sgx_v3_00906EA10000_44724863.bin", "sgx_v3_00906EA10000_6dc7792a.bin"}


def _signed_by_its_key(quote: Quote) -> bool:
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\4" + quote.attestation_key)
    r, s = (int.from_bytes(half, "big") for half in (quote.signature[:32], quote.signature[32:]))
    try:
        key.verify(encode_dss_signature(r, s), quote.signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def test_every_quote_claims_a_root(cases: list[Case]) -> None:
    assert {claimed_root(parse_quote(case.quote)) for case in cases} == {"intel"}
    assert root_named("intel", cases[0].collateral) == IntelRoot()


def test_intels_root_is_nobody_elses(sgx: Case) -> None:
    pem = sgx.collateral.tcb_info_issuer_chain
    root = pem[pem.rindex("-----BEGIN") :].encode()
    with pytest.raises(InputError) as caught:
        parse_root_certificate(root)
    assert caught.value.check == "root.intel"
    with pytest.raises(InputError):
        SimulatedRoot(_der(root))


def _der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def _boundaries(data: bytes) -> list[int]:
    """Where the parts of a quote end."""
    quote = parse_quote(data)
    ends = [0, 1, 2, 4, 8, 12, 28, 48, len(quote.signed), len(quote.signed) + 4]
    for part in (quote.signature, quote.attestation_key, quote.qe_report_signature, quote.qe_auth_data):
        at = data.index(part, len(quote.signed)) if part else 0
        ends += [at, at + len(part)]
    at = data.index(quote.certification_data)
    return sorted({*ends, at - 6, at - 4, at, at + 1, len(data) - 1})


def test_truncated_at_every_boundary(case: Case) -> None:
    for end in _boundaries(case.quote):
        for size in {max(end - 1, 0), end}:
            assert case.refused(case.quote[:size]) == "quote.truncated"


@pytest.mark.parametrize("tail", [b"\0", b"\n", b"\0" * 4, b"-----BEGIN CERTIFICATE-----\n"])
def test_trailing_bytes(case: Case, tail: bytes) -> None:
    assert case.refused(case.quote + tail) == "quote.trailing_bytes"


def test_two_quotes_are_none(case: Case) -> None:
    assert case.refused(case.quote * 2) == "quote.trailing_bytes"


@pytest.mark.parametrize(
    ("at", "value", "checks"),
    [
        (0, struct.pack("<H", 2), {"quote.version"}),
        (0, struct.pack("<H", 6), {"quote.version"}),
        (2, struct.pack("<H", 1), {"quote.attestation_key_type"}),
        (2, struct.pack("<H", 3), {"quote.attestation_key_type"}),
        (4, struct.pack("<I", 0x82), {"quote.tee_type"}),
        (12, bytes(16), {"quote.qe_vendor"}),
        (28, b"\xff" * 20, {"quote.signature"}),
        (8, b"\xff\xff", {"quote.signature"}),
        (10, b"\xff\xff", {"quote.signature"}),
    ],
)
def test_headers(case: Case, at: int, value: bytes, checks: set[str]) -> None:
    assert case.refused(case.quote[:at] + value + case.quote[at + len(value) :]) in checks


def test_versions_that_do_not_fit(sgx: Case, tdx: Case) -> None:
    # An SGX quote of version 4 could be read, were its signature data of that version.
    assert sgx.refused(struct.pack("<H", 4) + sgx.quote[2:]) == "quote.certification_type"
    assert sgx.refused(struct.pack("<H", 5) + sgx.quote[2:]) == "quote.body_type"
    assert tdx.refused(struct.pack("<H", 3) + tdx.quote[2:]) == "quote.tee_type"
    assert tdx.refused(tdx.quote[:4] + bytes(4) + tdx.quote[8:]) in ("quote.body_type", "quote.truncated")


@pytest.mark.parametrize("size", [0, 1, 127, 128, 4096, 0xFFFF, 2**31, 2**32 - 1])
def test_the_signature_datas_length_lies(case: Case, size: int) -> None:
    at = len(parse_quote(case.quote).signed)
    lie = case.quote[:at] + struct.pack("<I", size) + case.quote[at + 4 :]
    assert case.refused(lie) in ("quote.truncated", "quote.trailing_bytes")


def _parts(data: bytes) -> dict[str, int]:
    quote = parse_quote(data)
    names = ("signature", "attestation_key", "qe_report_signature", "qe_auth_data", "certification_data")
    return {name: data.index(getattr(quote, name), len(quote.signed)) for name in names}


@pytest.mark.parametrize("size", [0, 31, 33, 64, 0xFFFF])
def test_the_authentication_datas_length_lies(case: Case, size: int) -> None:
    at = _parts(case.quote)["qe_auth_data"] - 2
    lie = case.quote[:at] + struct.pack("<H", size) + case.quote[at + 2 :]
    assert case.refused(lie) in ("quote.truncated", "quote.certification_type", "quote.signature_data")


@pytest.mark.parametrize("size", [0, 1, 2**31, 2**32 - 1])
def test_the_certification_datas_length_lies(case: Case, size: int) -> None:
    at = _parts(case.quote)["certification_data"] - 4
    lie = case.quote[:at] + struct.pack("<I", size) + case.quote[at + 4 :]
    assert case.refused(lie) in ("quote.truncated", "quote.signature_data")


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, 6, 7, 8, 0xFFFF])
def test_other_certification_data(case: Case, kind: int) -> None:
    at = _parts(case.quote)["certification_data"] - 6
    assert case.refused(case.quote[:at] + struct.pack("<H", kind) + case.quote[at + 2 :]) == "quote.certification_type"


@pytest.mark.parametrize(
    ("part", "change", "check"),
    [
        ("signature", lambda b: bytes(64), "quote.signature"),
        ("signature", lambda b: bytes(32) + b[32:], "quote.signature"),
        ("signature", lambda b: b[:32] + bytes(32), "quote.signature"),
        ("signature", lambda b: b[32:] + b[:32], "quote.signature"),
        ("signature", lambda b: b"\xff" * 64, "quote.signature"),
        ("attestation_key", lambda b: bytes(64), "quote.qe_report_data"),
        ("attestation_key", lambda b: b[:63] + bytes([b[63] ^ 1]), "quote.qe_report_data"),
        ("qe_report_signature", lambda b: bytes(64), "quote.qe_report_signature"),
        ("qe_auth_data", lambda b: bytes(32), "quote.qe_report_data"),
    ],
)
def test_parts(case: Case, part: str, change: Callable[[bytes], bytes], check: str) -> None:
    at = _parts(case.quote)[part]
    old = getattr(parse_quote(case.quote), part)
    new = change(old)
    assert new != old
    assert case.refused(case.quote[:at] + new + case.quote[at + len(old) :]) == check


def _with_chain(data: bytes, chain: bytes) -> bytes:
    """The same quote with other certification data, all lengths made to fit."""
    quote = parse_quote(data)
    at = data.index(quote.certification_data)
    grown = len(chain) - len(quote.certification_data)
    head = bytearray(data[: at - 4] + struct.pack("<I", len(chain)) + chain)
    outer = [len(quote.signed)]
    if quote.header.version > 3:
        outer.append(len(quote.signed) + 4 + 128 + 2)
    for place in outer:
        (size,) = struct.unpack_from("<I", data, place)
        struct.pack_into("<I", head, place, size + grown)
    return bytes(head)


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda leaf, ca, root: b"", "pck_chain.format"),
        (lambda leaf, ca, root: leaf, "pck_chain.shape"),
        (lambda leaf, ca, root: leaf + ca, "pck_chain.shape"),
        (lambda leaf, ca, root: leaf + root, "pck_chain.shape"),
        (lambda leaf, ca, root: root + ca + leaf, "pck_chain.shape"),
        (lambda leaf, ca, root: leaf + ca + root + root, "pck_chain.shape"),
        (lambda leaf, ca, root: leaf + leaf + ca + root, "pck_chain.shape"),
        (lambda leaf, ca, root: ca + ca + root, "pck_chain.shape"),
        (lambda leaf, ca, root: leaf + ca + root + b"junk", "pck_chain.format"),
        (lambda leaf, ca, root: b"junk\n" + leaf + ca + root, "pck_chain.format"),
        (lambda leaf, ca, root: leaf + ca + root + leaf + ca + root, "pck_chain.format"),
    ],
)
def test_chains_of_another_shape(case: Case, change: Callable[[bytes, bytes, bytes], bytes], check: str) -> None:
    pem = parse_quote(case.quote).certification_data.rstrip(b"\0")
    parts = [part + b"-----END CERTIFICATE-----\n" for part in pem.split(b"-----END CERTIFICATE-----")[:3]]
    leaf, ca, root = (part.lstrip(b"\n") for part in parts)
    assert case.verify(_with_chain(case.quote, leaf + ca + root)) == case.verify()
    assert case.refused(_with_chain(case.quote, change(leaf, ca, root))) == check


def test_another_machines_chain(cases: list[Case], sgx: Case) -> None:
    chains = {parse_quote(case.quote).certification_data for case in cases if parse_quote(case.quote).tee == "sgx"}
    own = parse_quote(sgx.quote).certification_data
    checks = {sgx.refused(_with_chain(sgx.quote, chain)) for chain in chains - {own}}
    assert checks <= {
        "quote.qe_report_signature",
        "collateral.tcb_info.fmspc",
        "collateral.pck_crl.issuer",
        "pck_chain.not_yet_valid",
    }
    assert "quote.qe_report_signature" in checks


def test_collateral_for_another_kind_of_platform(cases: list[Case]) -> None:
    by_platform = {case.verify().fmspc: case for case in cases}
    for fmspc, case in by_platform.items():
        for other, another in by_platform.items():
            if other != fmspc:
                check = case.refused(
                    tcb_info=another.collateral.tcb_info, tcb_info_signature=another.collateral.tcb_info_signature
                )
                assert check in ("collateral.tcb_info.fmspc", "collateral.tcb_info.id")


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
def test_a_pck_chain_may_not_sign_documents(case: Case, document: str) -> None:
    """Intel's own PCK certificates lead to the same root; dcap-qvl alone would follow them there."""
    chain = parse_quote(case.quote).certification_data.rstrip(b"\0").decode()
    check = f"collateral.{document}.chain.shape"
    assert case.refused(**{f"{document}_issuer_chain": chain}) == check
    assert case.refused(**{f"{document}_issuer_chain": case.collateral.pck_crl_issuer_chain}) == check


@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"UpToDate"', '"UpToDate" '),
        ("OutOfDate", "UpToDate"),
        ('"svn":2', '"svn":1'),
        ("isvsvn", "isvsvn "),
        (":", ": "),
    ],
)
def test_documents_are_signed_byte_for_byte(case: Case, document: str, old: str, new: str) -> None:
    text: str = getattr(case.collateral, document)
    changed = text.replace(old, new, 1)
    if changed == text:
        return
    assert case.refused(**{document: changed}).startswith(f"collateral.{document}.")


def test_no_changed_byte_changes_what_is_said(case: Case) -> None:
    right = case.verify()
    chance = random.Random(4)
    certificates = _parts(case.quote)["certification_data"]
    places = [*chance.sample(range(certificates), 300), *chance.sample(range(certificates, len(case.quote)), 200)]
    for place in places:
        changed = bytearray(case.quote)
        changed[place] ^= 1 << chance.randrange(8)
        try:
            verdict = case.verify(bytes(changed))
        except EvidenceError:
            continue
        assert place >= certificates
        assert verdict == right
