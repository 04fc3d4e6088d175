"""The plots as numbers, and the page as something that nobody writes into."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from ensconce.bench.page import page
from ensconce.bench.plots import percentile_plot, throughput_plot
from ensconce.bench.report import Subject, duration_text, lines, report
from ensconce.bench.run import Effort, Outcome
from ensconce.bench.schedule import Plan
from ensconce.bench.session import Measured
from ensconce.bench.tally import AnswerError, Tally
from ensconce.client.signatures import InputSpec

FLOAT = np.dtype("<f4")
EVIL = '<script>alert("x")</script>&\x1b[31m'


def points(svg: str, number: int = 0) -> list[tuple[float, float]]:
    found = re.findall(r'<polyline points="([^"]*)"', svg)[number]
    return [(float(x), float(y)) for x, y in (each.split(",") for each in found.split())]


def made(tally: Tally, *, rate: float | None = None, **changes: Any) -> dict[str, Any]:
    subject = {
        "addresses": ("127.0.0.1:1",),
        "protocol": "grpc",
        "connection": "attested",
        "model": "digits",
        "version": None,
        "signature": "",
        "batch": 2,
        **changes,
    }
    spec = InputSpec(FLOAT, (2, 8))
    outcome = Outcome(tally, 10.0, Effort(changes.pop("process", 1.0), 0.5))
    return report(
        Subject(**subject), Plan(requests=4, rate=rate), Measured({"x": spec}, 1, 100, 50, outcome), began=0, cores=2
    )


@pytest.fixture
def tally() -> Tally:
    tally = Tally()
    for number in range(1000):
        sent = number / 100
        tally.send(sent, sent + 0.001)
        tally.answer(sent, sent + 0.001, sent + (0.5 if number >= 990 else 0.003), 0, f"replica-{number % 4 // 3}")
    tally.send(9.9, 9.9)
    tally.fail(AnswerError("http 503", EVIL), 9.95, 0)
    return tally


def test_the_curve_rises_to_the_right_and_steps_where_the_rare_ones_are() -> None:
    histogram = [[0.001, 990], [0.1, 10]]
    latency = {"histogram": histogram, "p50": 0.001, "p99": 0.001, "max": 0.1}
    svg = percentile_plot({"latency": latency})
    [first, step, last] = points(svg)
    assert first[0] < step[0] < last[0]
    assert first[1] > step[1] == last[1]  # SVG counts downwards
    # 99 % is two thirds on the way to 99.95 %, which half a request of 1,000 makes, on this scale.
    assert (step[0] - first[0]) / (last[0] - first[0]) == pytest.approx(2 / 3.301, abs=0.01)


def test_the_last_period_counts_for_its_length() -> None:
    svg = throughput_plot({"period": 1.0, "answered": [100, 100, 50], "failed": [0, 0, 0]}, 2.5)
    assert len({y for _, y in points(svg)}) == 1


def test_a_short_last_period_is_no_dip() -> None:
    svg = throughput_plot({"period": 1.0, "answered": [100, 100, 1], "failed": [0, 0, 1]}, 2.01)
    assert len({y for _, y in points(svg)}) <= 2
    assert points(svg)[-1][0] == 446
    assert 'class="line failed"' in svg


def test_the_page_holds_everything_and_what_strangers_said_is_text(tally: Tally) -> None:
    found = page(made(tally, model=EVIL, rate=100.0))
    assert "<script" not in found
    assert "\x1b" not in found
    assert "default-src 'none'" in found.replace("&#x27;", "'")
    for text in ("http 503", "replica-0", "75.0%", "uncorrected", "99.9 %", "p99.99", "open loop"):
        assert text in found, text
    assert found.count("<svg") == found.count("</svg>") == 2
    assert not re.search(r"https?://|<link|<img|url\(", found)


def test_nothing_answered_makes_a_page_too() -> None:
    tally = Tally()
    tally.send(0, 0)
    tally.fail(AnswerError("grpc UNAVAILABLE", "gone"), 0.1, 0)
    found = made(tally)
    assert found["latency"] == {"from": "sent", "count": 0}
    assert "grpc UNAVAILABLE" in page(found)
    assert any("1 grpc UNAVAILABLE: gone" in line for line in lines(found))


def test_a_report_for_people_and_programs(tally: Tally) -> None:
    found = made(tally)
    assert found["requests"] == {"sent": 1001, "answered": 1000, "failed": 1}
    assert found["throughput"] == {"requests": 100.0, "rows": 200.0}
    assert found["replicas"] == {"replica-0": 750, "replica-1": 250}
    assert found["latency_expected_interval"]["interval"] == pytest.approx(0.003, rel=1e-3)
    assert found["latency_expected_interval"]["p99"] > found["latency"]["p99"]
    assert "latency_uncorrected" not in found
    assert sum(found["timeline"]["answered"]) == 1000
    said = list(lines(found))
    assert any(line.startswith("replica     replica-0: 750 (75.0%)") for line in said)
    assert any("closed loop, 1 caller" in line for line in said)
    assert not any("WARNING" in line for line in said)


def test_no_shares_where_nobody_proves_who_answered(tally: Tally) -> None:
    assert made(tally, connection="tls")["replicas"] is None


@pytest.mark.parametrize(
    ("effort", "said"),
    [
        (Effort(9, 9), "its event loop was busy 90%"),
        (Effort(19, 1), "kept 1.9 of 2 processors busy"),
        (Effort(9, 5), ""),
    ],
)
def test_it_says_when_it_was_the_limit_itself(tally: Tally, effort: Effort, said: str) -> None:
    outcome = Outcome(tally, 10.0, effort)
    subject = Subject(addresses=(), protocol="grpc", connection="plain", model="m", version=1, signature="", batch=1)
    found = report(subject, Plan(requests=1), Measured({}, 1, 1, 1, outcome), began=0, cores=2)
    warnings = found["generator"]["warnings"]
    assert [said in each for each in warnings] == ([True] if said else [])


def test_it_says_when_requests_went_out_late(tally: Tally) -> None:
    for number in range(20):
        tally.send(number, number + 0.25)
    [warning] = made(tally, rate=100.0)["generator"]["warnings"]
    assert "250 ms after it was due" in warning


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.00 us"), (12e-6, "12.0 us"), (0.00123, "1.23 ms"), (0.1234, "123 ms"), (61.5, "61.5 s"), (3600, "3600 s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
