from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from ensconce.dashboard.exposition import MAX_PAGE, parse_metrics


def test_what_prometheus_own_client_writes_is_read() -> None:
    registry = CollectorRegistry()
    Counter("asked", "Help with a \\ and a\nline.", ["check", "wire"], registry=registry).labels('a"b\\c\nd', "v2").inc(
        3
    )
    Histogram("taken", "Help.", buckets=(0.1, 1.0), registry=registry).observe(0.5)
    reading = parse_metrics(
        generate_latest(registry), {"asked_total", "taken_bucket", "taken_sum"}, {"check", "wire", "le"}
    )
    assert list(reading.of("asked_total")) == [({"check": 'a"b\\c\nd', "wire": "v2"}, 3.0)]
    assert reading.by("taken_bucket", "le") == {"0.1": 0.0, "1.0": 1.0, "+Inf": 1.0}
    assert reading.total("taken_sum") == 0.5


def test_our_own_replicas_are_read() -> None:
    page = b':tensorflow:serving:request_count{model_name="digits",status="OK"} 7\nensconce_serving_requests 2\n'
    reading = parse_metrics(page, {":tensorflow:serving:request_count", "ensconce_serving_requests"}, {"status"})
    assert reading.total(":tensorflow:serving:request_count") == 7
    assert reading.total(":tensorflow:serving:request_count", lambda labels: labels["status"] != "OK") is None
    assert reading.total("ensconce_serving_requests") == 2
    assert reading.total("absent") is None


@pytest.mark.parametrize(
    "line",
    [
        b"a",
        b"a one",
        b"a 1 2 3",
        b"a NaN",
        b"a +Inf",
        b"a 1e999",
        b"a 1e19",
        b"a 0x10",
        b'a{b="c} 1',
        b'a{b="\\x"} 1',
        b"a{b=c} 1",
        b"1a 1",
        b"# a 1",
        b"\xff\xfe 1",
        b"a " + b"9" * 400,
        b"a" * 200 + b" 1",
        b'a{b="' + b"x" * 500 + b'"} 1',
        b"a{" + b",".join(b'l%d="v"' % number for number in range(9)) + b"} 1",
    ],
)
def test_what_is_no_sample_is_passed_over(line: bytes) -> None:
    assert parse_metrics(b"before 1\n" + line + b"\nafter 2\n", {"before", "after", "a"}, ()).samples.keys() == {
        "before",
        "after",
    }


def test_samples_and_bytes_are_bounded() -> None:
    many = b"".join(b'a{n="%d"} 1\n' % number for number in range(30_000))
    assert len(parse_metrics(many, {"a"}, {"n"}).samples["a"]) == 5000
    assert parse_metrics(many.replace(b"a", b"other") + b"a 1\n", {"a"}, {"n"}).samples == {"a": {(): 1.0}}
    assert parse_metrics(b" " * MAX_PAGE + b"\na 1\n", {"a"}, {"n"}).samples == {}


def test_samples_that_differ_in_other_labels_are_summed() -> None:
    page = b'a{m="1",le="x"} 1\na{m="2",le="x"} 2\na{le="y"} 4\na 8\nb{m="1"} 16\n'
    samples = parse_metrics(page, {"a", "b"}, {"le"}).samples
    assert samples == {"a": {(("le", "x"),): 3.0, (("le", "y"),): 4.0, (): 8.0}, "b": {(): 16.0}}


@given(st.binary(max_size=300) | st.text('a{}"\\,= 1e+.\nn', max_size=80).map(str.encode))
def test_anything_is_read_to_finite_numbers(page: bytes) -> None:
    for samples in parse_metrics(page, {"a", "n", "nn"}, {"a", "n"}).samples.values():
        assert all(math.isfinite(value) for value in samples.values())
