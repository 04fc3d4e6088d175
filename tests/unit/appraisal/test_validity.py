from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.appraisal.validity import Window, certificate_windows, check_windows
from ensconce.errors import EvidenceError
from ensconce.platform.simulated.pki import SimulatedVendor

NOW = 1_790_000_000
VENDOR = SimulatedVendor(bytes(32), NOW)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=5), st.integers(0, 20))
def test_windows_are_half_open(spans: list[tuple[int, int]], at: int) -> None:
    windows = [Window(begin, begin + length, "some.check", "thing") for begin, length in spans]
    if all(window.begin <= at < window.end for window in windows):
        assert check_windows(windows, at) == min(window.end for window in windows)
        return
    with pytest.raises(EvidenceError) as caught:
        check_windows(windows, at)
    assert caught.value.check in ("some.check.not_yet_valid", "some.check.expired")


def test_the_first_that_is_not_valid_is_named() -> None:
    windows = [Window(0, 9, "a", "one"), Window(5, 9, "b", "other"), Window(0, 1, "c", "third")]
    with pytest.raises(EvidenceError) as caught:
        check_windows(windows, 2)
    assert (caught.value.check, caught.value.found) == ("b.not_yet_valid", "valid from 5")


def test_certificates_say_when() -> None:
    windows = certificate_windows((VENDOR.pck().certificate, VENDOR.root.certificate), "pck_chain")
    assert [window.what for window in windows] == [
        "certificate 'Intel SGX PCK Certificate'",
        "certificate 'Intel SGX Root CA'",
    ]
    assert [window.begin for window in windows] == [VENDOR.validity(7).not_before] * 2
    assert [window.end for window in windows] == [VENDOR.validity(years).not_after for years in (7, 30)]
