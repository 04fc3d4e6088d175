"""What the scheduler has to know of a request besides its values; the same for all of the same types and shapes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from ensconce.serving.batching.mates import bytes_of, common_rows, counted_rows, fits, shapes_of
from ensconce.serving.batching.pace import Pace
from ensconce.serving.batching.parameters import Parameters
from ensconce.tfserving.signatures import Signature
from ensconce.tfserving.tensor import Array

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How inputs of certain types and shapes are computed by one signature of one servable; neither holds the other.

    Attributes:
        signature: the signature's name.
        outputs: the outputs wanted, in order.
        pace: what is known of the signature.
        rows: the 0th dimension of the inputs; 0 when it is not to be merged.
        mates: what must be equal in requests that are merged with this one; None when there can be no such.
        shape: what its time depends on besides how many rows it is computed with; None when that cannot be told.
        nbytes: of the inputs.
    """

    signature: str
    outputs: tuple[str, ...]
    pace: Pace
    rows: int
    mates: Hashable | None
    shape: Hashable | None
    nbytes: int

    @property
    def holds(self) -> bool:
        """Whether it would be made like this again."""
        return self.mates is None or self.pace.merges


def make_plan(
    pace: Pace,
    signature: Signature,
    inputs: Mapping[str, Array],
    output_filter: Sequence[str],
    parameters: Parameters | None,
    *,
    merge: bool,
) -> Plan:
    """How inputs are to be computed.

    Args:
        pace: of the signature.
        signature: whose.
        inputs: all of the signature's, and no others.
        output_filter: names of outputs; none means all.
        parameters: rule how requests are merged, if given.
        merge: whether they are merged at all when no parameters are given.

    Raises:
        RequestError: INVALID_ARGUMENT, an output is unknown, or parameters ask for merging and rows cannot be counted.
    """
    outputs = signature.choose_outputs(output_filter)
    nbytes = sum([bytes_of(array) for array in inputs.values()])
    rows, mates, shape = 0, None, None
    if fits(signature, inputs):
        if pace.merges and (merge or parameters is not None):
            rows = common_rows(inputs) if parameters is None else counted_rows(inputs)
        if rows:
            padded = parameters is not None and parameters.pad_variable_length_inputs
            mates = shapes_of(signature, inputs, padded=padded)
        if parameters is None and pace.timed:
            shapes = mates if mates is not None else tuple([array.shape for array in inputs.values()])
            shape = outputs, shapes
    return Plan(signature.name, outputs, pace, rows, mates, shape, nbytes)
