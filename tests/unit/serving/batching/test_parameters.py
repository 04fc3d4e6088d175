from __future__ import annotations

import os
from typing import Any

import pytest

from ensconce.errors import InputError
from ensconce.serving.batching.parameters import Bounds, Parameters
from ensconce.tfserving.messages import BatchingParameters

SPLITS: dict[str, Any] = {"enable_large_batch_splitting": True}


def test_defaults_are_the_originals() -> None:
    assert Parameters.from_proto(BatchingParameters()) == Parameters()
    defaults = Parameters()
    assert (defaults.max_batch_size, defaults.batch_timeout_micros, defaults.max_enqueued_batches) == (1000, 0, 10)
    assert defaults.num_batch_threads == os.cpu_count()
    assert (defaults.allowed_batch_sizes, defaults.pad_variable_length_inputs) == ((), False)
    assert (defaults.enable_large_batch_splitting, defaults.execution_size) == (False, 1000)


def test_every_field_is_read() -> None:
    message = BatchingParameters(allowed_batch_sizes=[2, 8], pad_variable_length_inputs=True)
    message.max_batch_size.value = 16
    message.batch_timeout_micros.value = 5000
    message.max_enqueued_batches.value = 3
    message.num_batch_threads.value = 4
    message.thread_pool_name.value = "any"
    message.enable_large_batch_splitting.value = True
    message.max_execution_batch_size.value = 8
    parameters = Parameters.from_proto(message)
    assert parameters == Parameters(16, 5000, 3, 4, (2, 8), True, True, 8)
    assert parameters.execution_size == 8


def test_explicit_zeros_are_not_defaults() -> None:
    message = BatchingParameters()
    message.max_enqueued_batches.value = 0
    with pytest.raises(InputError, match="max_enqueued_batches must be positive; was 0"):
        Parameters.from_proto(message)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"num_batch_threads": 0}, "num_batch_threads must be positive; was 0"),
        ({"num_batch_threads": 10**6}, "num_batch_threads must be at most 1024; was 1000000"),
        ({"max_batch_size": 0}, "input_batch_size_limit must be positive; was 0"),
        ({"batch_timeout_micros": -1}, "batch_timeout_micros must be non-negative; was -1"),
        ({"max_enqueued_batches": 0}, "max_enqueued_batches must be positive; was 0"),
        (
            {"max_batch_size": 8, "allowed_batch_sizes": (2, 4)},
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 8",
        ),
        (
            {"allowed_batch_sizes": (2, 4)},
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 1000",
        ),
        (
            {"max_batch_size": 4, "allowed_batch_sizes": (2, 2, 4)},
            "allowed_batch_sizes entries must be monotonically increasing",
        ),
        (
            {"max_batch_size": 4, "allowed_batch_sizes": (0, 4)},
            "allowed_batch_sizes entries must be monotonically increasing",
        ),
        ({**SPLITS, "max_execution_batch_size": 0}, "max_execution_batch_size must be positive; was 0"),
        (
            {**SPLITS, "max_batch_size": 4, "max_execution_batch_size": 8},
            "When enable_large_batch_splitting is true, input_batch_size_limit must be greater than or equal to "
            "max_execution_batch_size.",
        ),
        (
            {**SPLITS, "max_batch_size": 8, "max_execution_batch_size": 4, "allowed_batch_sizes": (2, 16)},
            "Last entry in allowed_batch_sizes must be less than or equal to max_batch_size; last entry was 16; "
            "expected 8",
        ),
        (
            {**SPLITS, "max_batch_size": 8, "max_execution_batch_size": 4, "allowed_batch_sizes": (2, 3)},
            "Last entry in allowed_batch_sizes must be equal to max_execution_batch_size; last entry was 3; expected 4",
        ),
    ],
)
def test_refusals(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        Parameters(**fields)
    assert caught.value.problem == text
    assert caught.value.check == "batching.parameters"


@pytest.mark.parametrize("last", [4, 8])
def test_either_of_the_originals_two_rules_will_do_when_requests_are_split(last: int) -> None:
    Parameters(8, allowed_batch_sizes=(2, last), enable_large_batch_splitting=True, max_execution_batch_size=4)


def test_execution_size_counts_only_when_requests_are_split() -> None:
    assert Parameters(8, max_execution_batch_size=4).execution_size == 8
    assert Parameters(8, enable_large_batch_splitting=True).execution_size == 8


def test_padded_size_is_the_next_allowed_one() -> None:
    parameters = Parameters(8, allowed_batch_sizes=(2, 4, 8))
    assert [parameters.padded(rows) for rows in (1, 2, 3, 5, 8, 9)] == [2, 2, 4, 8, 8, 9]
    assert Parameters().padded(7) == 7
    assert Parameters(5000, allowed_batch_sizes=(8, 5000)).padded(9) == 9


def test_bounds_for_a_number_of_requests() -> None:
    assert Bounds.of(1).requests_per_model == 1
    assert Bounds.of(1).requests == 2
