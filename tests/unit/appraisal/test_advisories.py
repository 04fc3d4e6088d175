"""A sentence for every status, and for every advisory a sentence or a place to look."""

from __future__ import annotations

import pytest

from ensconce.appraisal.advisories import advisories_of, meaning_of
from ensconce.appraisal.verdict import TcbStatus


@pytest.mark.parametrize("status", TcbStatus)
def test_every_status_has_a_sentence(status: TcbStatus) -> None:
    assert meaning_of(status).endswith(".")


def test_advisories_keep_their_order_and_lead_to_intel() -> None:
    first, second = advisories_of(["INTEL-SA-00828", "INTEL-SA-00615"])
    assert (first.id, second.id) == ("INTEL-SA-00828", "INTEL-SA-00615")
    assert "Downfall" in first.meaning
    assert second.url == "https://www.intel.com/content/www/us/en/security-center/advisory/intel-sa-00615.html"


def test_one_that_is_not_known_says_where_to_look() -> None:
    (one,) = advisories_of(["INTEL-SA-98765"])
    assert "no sentence" in one.meaning
    assert one.url is not None
    assert one.url.endswith("intel-sa-98765.html")


@pytest.mark.parametrize(
    "odd", ["", "javascript:alert(1)", "INTEL-SA-00615/../x", "INTEL-SA-0061\u0665", "intel-sa-00615"]
)
def test_what_is_no_id_of_intels_makes_no_link(odd: str) -> None:
    (one,) = advisories_of([odd])
    assert one.url is None
    assert "Not an id of Intel's" in one.meaning


def test_the_simulated_platforms_are_named_as_such() -> None:
    (one,) = advisories_of(["SIMULATED-SA-00001"])
    assert one.url is None
    assert "simulated" in one.meaning
