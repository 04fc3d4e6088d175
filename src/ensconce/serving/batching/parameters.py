"""TensorFlow Serving's ``BatchingParameters``, with its defaults and its texts, and how much may wait.

Facts are from ``servables/tensorflow/bundle_factory_util.cc`` and ``.h`` (``GetQueueOptions``,
``WrapSessionForBatching``), ``batching/batching_session.cc`` (``CreateBasicBatchingSession``) and TensorFlow's
``core/kernels/batching_util/shared_batch_scheduler.h`` (``AddQueueAfterRewritingOptions``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, Self

from ensconce.errors import InputError
from ensconce.tfserving.signatures import MAX_AXIS

__all__ = ["Bounds", "Parameters"]

_MIB: Final = 1024 * 1024
_DEFAULT_SIZE: Final = 1000
_MOST_THREADS: Final = 1024


@dataclass(frozen=True)
class Bounds:
    """How much may be with the scheduler at once, waiting or being computed.

    Attributes:
        requests: of all models; more are refused with UNAVAILABLE.
        requests_per_model: the same for one model, so that one cannot take all places.
        bytes: of inputs of all models; more is refused with RESOURCE_EXHAUSTED.
        bytes_per_model: the same for one model.
    """

    requests: int = 512
    requests_per_model: int = 256
    bytes: int = 512 * _MIB
    bytes_per_model: int = 384 * _MIB

    @classmethod
    def of(cls, requests_per_model: int) -> Self:
        """The default bounds, but for this many requests of a model, and twice as many of all together."""
        return cls(requests=2 * requests_per_model, requests_per_model=requests_per_model)


@dataclass(frozen=True)
class Parameters:
    """How requests are merged, in the original's terms; sizes are rows (0th dimension of inputs).

    Attributes:
        max_batch_size: most rows of a request, and of a batch that is not split.
        batch_timeout_micros: how long the first request of a batch waits for others.
        max_enqueued_batches: batches that may wait, for each signature and choice of outputs.
        num_batch_threads: batches that are computed at once.
        allowed_batch_sizes: batches are padded up to the next of these; any size is right when it is empty.
        pad_variable_length_inputs: requests whose inner shapes differ are padded to the largest, and merged.
        enable_large_batch_splitting: requests larger than a batch are computed in several.
        max_execution_batch_size: most rows of a batch when requests are split; ``max_batch_size`` otherwise.

    Raises:
        InputError: ``batching.parameters``, in the original's words where it has some.
    """

    max_batch_size: int = _DEFAULT_SIZE
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.num_batch_threads < 1:
            raise _wrong(f"num_batch_threads must be positive; was {self.num_batch_threads}")
        if self.num_batch_threads > _MOST_THREADS:
            raise _wrong(f"num_batch_threads must be at most {_MOST_THREADS}; was {self.num_batch_threads}")
        if self.max_batch_size < 1:
            raise _wrong(f"input_batch_size_limit must be positive; was {self.max_batch_size}")
        if self.batch_timeout_micros < 0:
            raise _wrong(f"batch_timeout_micros must be non-negative; was {self.batch_timeout_micros}")
        if self.max_enqueued_batches < 1:
            raise _wrong(f"max_enqueued_batches must be positive; was {self.max_enqueued_batches}")
        if self.enable_large_batch_splitting:
            if self.execution_size < 1:
                raise _wrong(f"max_execution_batch_size must be positive; was {self.execution_size}")
            if self.max_batch_size < self.execution_size:
                raise _wrong(
                    "When enable_large_batch_splitting is true, input_batch_size_limit must be greater than or equal "
                    "to max_execution_batch_size."
                )
        self._check_allowed()

    def _check_allowed(self) -> None:
        sizes = self.allowed_batch_sizes
        if not sizes:
            return
        if sizes[0] < 1 or any(after <= before for before, after in pairwise(sizes)):
            raise _wrong("allowed_batch_sizes entries must be monotonically increasing")
        last, most = sizes[-1], self.max_batch_size
        if not self.enable_large_batch_splitting:
            if last != most:
                raise _wrong(
                    "Last entry in allowed_batch_sizes must match max_batch_size; "
                    f"last entry was {last}; expected {most}"
                )
        elif last > most:
            raise _wrong(
                "Last entry in allowed_batch_sizes must be less than or equal to max_batch_size; "
                f"last entry was {last}; expected {most}"
            )
        elif last not in (self.execution_size, most):
            # The original has two rules here: one function of it wants the one, another the other.
            raise _wrong(
                "Last entry in allowed_batch_sizes must be equal to max_execution_batch_size; "
                f"last entry was {last}; expected {self.execution_size}"
            )

    @property
    def execution_size(self) -> int:
        """Most rows of a batch."""
        if self.enable_large_batch_splitting and self.max_execution_batch_size is not None:
            return self.max_execution_batch_size
        return self.max_batch_size

    def padded(self, rows: int) -> int:
        """The size that a batch of so many rows is padded to; ``batching_util.cc``, RoundToLowestAllowedBatchSize.

        Not to more than models may be asked for, :data:`~ensconce.tfserving.signatures.MAX_AXIS`.
        """
        size = next((size for size in self.allowed_batch_sizes if size >= rows), rows)
        return size if size <= MAX_AXIS else rows

    @classmethod
    def from_proto(cls, message: Any) -> Self:
        """Read a ``tensorflow.serving.BatchingParameters``; the name of the threads is left to us.

        Raises:
            InputError: as for the parameters themselves.
        """
        given = {
            name: getattr(message, name).value
            for name in (
                "max_batch_size",
                "batch_timeout_micros",
                "max_enqueued_batches",
                "num_batch_threads",
                "enable_large_batch_splitting",
                "max_execution_batch_size",
            )
            if message.HasField(name)
        }
        return cls(
            allowed_batch_sizes=tuple(message.allowed_batch_sizes),
            pad_variable_length_inputs=message.pad_variable_length_inputs,
            **given,
        )


def _wrong(text: str) -> InputError:
    return InputError("batching.parameters", text, remedy="correct the file of batching parameters")
