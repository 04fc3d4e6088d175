from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.errors import EvidenceError
from ensconce.evidence.report import Attributes, SgxReport, TdReport

_RESERVED = [*range(20, 32), *range(96, 128), *range(160, 192), *range(262, 304)]

reports = st.builds(
    SgxReport,
    cpu_svn=st.binary(min_size=16, max_size=16),
    misc_select=st.integers(0, 2**32 - 1),
    isv_ext_prod_id=st.binary(min_size=16, max_size=16),
    attributes=st.builds(Attributes, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    mr_enclave=st.binary(min_size=32, max_size=32),
    mr_signer=st.binary(min_size=32, max_size=32),
    config_id=st.binary(min_size=64, max_size=64),
    isv_prod_id=st.integers(0, 2**16 - 1),
    isv_svn=st.integers(0, 2**16 - 1),
    config_svn=st.integers(0, 2**16 - 1),
    isv_family_id=st.binary(min_size=16, max_size=16),
    report_data=st.binary(min_size=64, max_size=64),
)


@given(reports)
def test_reports_come_back_as_they_went(report: SgxReport) -> None:
    assert len(report.to_bytes()) == 384
    assert SgxReport.from_bytes(report.to_bytes()) == report


def test_every_field_has_its_place() -> None:
    data = bytearray(384)
    for at, value in ((0, 1), (16, 2), (32, 3), (48, 5), (56, 7), (64, 8), (128, 9), (192, 10), (256, 11), (258, 12)):
        data[at] = value
    for at, value in ((260, 13), (304, 14), (320, 15), (383, 16)):
        data[at] = value
    report = SgxReport.from_bytes(bytes(data))
    assert report.cpu_svn[0] == 1
    assert report.misc_select == 2
    assert report.isv_ext_prod_id[0] == 3
    assert report.attributes == Attributes(5, 7)
    assert report.mr_enclave[0] == 8
    assert report.mr_signer[0] == 9
    assert report.config_id[0] == 10
    assert (report.isv_prod_id, report.isv_svn, report.config_svn) == (11, 12, 13)
    assert report.isv_family_id[0] == 14
    assert (report.report_data[0], report.report_data[63]) == (15, 16)


@pytest.mark.parametrize("at", _RESERVED)
def test_reserved_bytes_are_zero(at: int) -> None:
    data = bytearray(384)
    data[at] = 1
    with pytest.raises(EvidenceError) as caught:
        SgxReport.from_bytes(bytes(data))
    assert caught.value.check == "report.reserved"


@pytest.mark.parametrize("size", [0, 383, 385])
def test_reports_of_another_size(size: int) -> None:
    with pytest.raises(EvidenceError):
        SgxReport.from_bytes(bytes(size))


def test_fields_of_another_size_are_not_written() -> None:
    report = SgxReport.from_bytes(bytes(384))
    for name in ("cpu_svn", "mr_enclave", "mr_signer", "config_id", "report_data", "isv_family_id", "isv_ext_prod_id"):
        with pytest.raises(ValueError):
            replace(report, **{name: b"\1"}).to_bytes()  # type: ignore[arg-type]


def test_attributes() -> None:
    attributes = Attributes.from_bytes(bytes.fromhex("3700000000000000e700000000000000"))
    assert (attributes.init, attributes.debug, attributes.mode64bit) == (True, True, True)
    assert (attributes.provision_key, attributes.einittoken_key) == (True, True)
    assert attributes.xfrm == 0xE7
    assert attributes.to_bytes().hex() == "3700000000000000e700000000000000"
    none = Attributes(0, 0)
    assert [none.init, none.debug, none.mode64bit, none.provision_key, none.einittoken_key] == [False] * 5
    with pytest.raises(EvidenceError):
        Attributes.from_bytes(bytes(15))


@pytest.mark.parametrize(("size", "newer", "extended"), [(584, False, False), (648, True, False), (885, True, True)])
def test_trust_domain_reports(size: int, newer: bool, extended: bool) -> None:
    report = TdReport.from_bytes((bytes(range(1, 252)) * 4)[:size])
    assert report.report_data == (bytes(range(1, 252)) * 4)[520:584]
    assert (report.mr_service_td is not None) == newer
    assert (report.extension is not None) == extended
    assert report.debug  # the first byte of TD attributes, 121, is odd
    value = report.to_json_object()
    assert ("mr_service_td" in value, "td_id" in value) == (newer, extended)
    assert report.to_bytes() == (bytes(range(1, 252)) * 4)[:size]


def test_fields_of_a_trust_domain_of_another_size_are_not_written() -> None:
    report = TdReport.from_bytes(bytes(648))
    for changes in ({"mr_td": b"\1"}, {"rtmr3": bytes(49)}, {"tee_tcb_svn2": None}, {"mr_service_td": bytes(47)}):
        with pytest.raises(ValueError, match="TD report"):
            replace(report, **changes).to_bytes()  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 583, 585, 647, 649, 884, 886])
def test_trust_domain_reports_of_another_size(size: int) -> None:
    with pytest.raises(EvidenceError):
        TdReport.from_bytes(bytes(size))


@given(reports)
def test_the_measurements_are_those_of_the_code(report: SgxReport) -> None:
    assert report.measurements() == {
        "mr_enclave": report.mr_enclave.hex(),
        "mr_signer": report.mr_signer.hex(),
        "isv_prod_id": report.isv_prod_id,
        "isv_svn": report.isv_svn,
        "attributes": report.attributes.to_bytes().hex(),
    }
    again = replace(report, report_data=bytes(64), cpu_svn=bytes(16))
    assert again.measurements() == report.measurements()


def test_the_measurements_of_a_trust_domain() -> None:
    report = TdReport.from_bytes(bytes(range(256)) * 2 + bytes(72))
    measured = report.measurements()
    assert set(measured) == {
        *("mr_td", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "td_attributes", "xfam", "mr_seam"),
        *("mr_config_id", "mr_owner", "mr_owner_config"),
    }
    assert all(measured[name] == getattr(report, name).hex() for name in measured)
    assert replace(report, report_data=bytes(64)).measurements() == measured
