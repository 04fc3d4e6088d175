"""Queues at replicas and the autoscaler, where the answer is known."""

from __future__ import annotations

import random

import pytest
from benchmarks.scaling.measured import together
from benchmarks.scaling.samples import Samples
from benchmarks.scaling.simulated import answers, beside
from benchmarks.scaling.tables import against, epc, table
from benchmarks.scaling.traffic import Engine, queue, rolling, scaled

LINEAR = Engine({1: Samples.of([0.1]), 4: Samples.of([0.4])}, 4)
STEEP = Engine({1: Samples.of([0.1]), 2: Samples.of([0.12]), 4: Samples.of([0.16])}, 4)


def test_an_engine_in_between_is_a_straight_line() -> None:
    chance = random.Random(1)
    assert [LINEAR.seconds(rows, chance) for rows in (1, 2, 3, 4)] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert STEEP.most_a_second == pytest.approx(25)


def test_the_limit_is_the_smallest_size_that_none_beats_by_a_tenth() -> None:
    inference = {"1": [0.1, 0.1], "2": [0.15], "4": [0.29], "8": [0.58]}
    measured = {"inference": {rows: [{"cpu": each} for each in values] for rows, values in inference.items()}}
    assert Engine.of(measured).limit == 2


def test_a_queue_with_constant_service_is_md1() -> None:
    found = queue(LINEAR, 0.8, merged=False, bursty=False, seed=1, count=20_000)
    # The mean of M/D/1 at 0.8 is two services; its median lies below, its 99th percentile far above.
    assert 0.08 < found.p50 < 0.2 < 0.6 < found.p99 < 1.5
    assert (found.rows, found.refused) == (1.0, 0.0)


def test_merging_helps_where_rows_together_are_cheaper_and_bursts_hurt() -> None:
    alone, merged, bursty = (
        queue(STEEP, 0.9, merged=merge, bursty=burst, seed=2, count=6000)
        for merge, burst in ((False, False), (True, False), (True, True))
    )
    assert merged.p99 < alone.p99 / 2
    assert merged.rows > 1.3
    assert bursty.p99 > 2 * merged.p99


def test_beyond_what_it_computes_a_replica_refuses() -> None:
    found = queue(LINEAR, 1.5, merged=False, bursty=False, seed=1, count=3000)
    assert 0.1 < found.refused < 0.4
    assert found.p99 < 256 * 0.1 + 0.2


def test_spare_replicas_take_what_an_autoscaler_is_too_late_for() -> None:
    few, many = (
        scaled(
            LINEAR, Samples.of([60.0]), replicas=4, spare=spare, before=0.6, factor=2.0, bound=0.2, target=0.05,
            seed=1, most=16, after=60.0,
        )
        for spare in (0, 6)
    )  # fmt: skip
    assert few.p99 > many.p99
    assert few.late > many.late
    assert many.replicas >= 10


def test_no_more_replicas_than_allowed() -> None:
    found = scaled(
        LINEAR, Samples.of([1.0]), replicas=2, spare=0, before=0.9, factor=4.0, bound=0.2, target=0.01,
        seed=1, most=5, after=120.0,
    )  # fmt: skip
    assert found.replicas == 5


def test_a_roll_out_is_a_start_for_each_replica_of_a_row() -> None:
    assert rolling(Samples.of([2.0]), 10, 1, 1) == 20.0
    assert rolling(Samples.of([2.0]), 10, 4, 1) == 6.0


def test_rounds_are_joined_by_their_places() -> None:
    rounds = [{"a": {"b": [1.0], "c": 2.0}}, {"a": {"b": [3.0, 4.0], "c": 5.0}}]
    assert together(rounds) == {"a": {"b": [1.0, 3.0, 4.0], "c": [2.0, 5.0]}}


def test_every_question_has_an_answer() -> None:
    batches = {size: [{"wall": 0.004, "disk": 0.003}] for size in ("1", "64")}
    level = {"clients": 2, "seconds": 2.0, "others": 0.1, "waited": [0.02, 0.03]}
    sessions = {"handshake": [0.001], "server": [0.006], "verifiers": [0.002], "client": [0.004]}
    measured = {
        "sessions": sessions,
        "at_once": [level],
        "log": batches,
        "inference": {"1": [{"cpu": 0.3}], "2": [{"cpu": 0.5}]},
        "replica": {"start": [{"interpreter and its modules": 0.3, "whole": 2.0}], "prediction": [{"cpu": 0.35}]},
    }
    text = answers(measured, 1, lambda _: None, quick=True, count=300, most=100)
    assert text.count("**") == 10
    assert all(line.count("|") == text.splitlines()[2].count("|") for line in text.splitlines()[2:5])
    compared = against([level], beside(measured, 2, 1))
    assert compared.splitlines()[4].startswith("| 2 | 10 % | 1 | ")
    assert "ResNet-50" in epc()


def test_a_table_is_markdown() -> None:
    assert table("T", ["a", "b"], [["1", "2"]]) == "**T**\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
