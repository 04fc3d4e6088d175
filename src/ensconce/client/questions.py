"""What a client asks and what it makes of the answers, whoever carries them: with an event loop or without."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

from ensconce.client.codec import METADATA, PREDICT, Array, encode_metadata_request, encode_request, read_response
from ensconce.client.codec_examples import CLASSIFY, REGRESS, Classes, decode_classes, decode_values, encode_examples
from ensconce.client.conduct import Conduct
from ensconce.client.hedge import Hedge
from ensconce.client.leaf import Accepted
from ensconce.client.seats import Places
from ensconce.client.signatures import Inputs, Signature, Signatures, known, to_arrays
from ensconce.errors import InputError

__all__ = ["Ask", "Questions", "Steps", "Which"]

T = TypeVar("T")


class Which(TypedDict, total=False):
    """What of a model is asked, by keyword: its ``version``, ``None`` for the newest; and its ``signature``, empty for
    ``serving_default``.
    """

    version: int | None
    signature: str


@dataclass(frozen=True, slots=True)
class Ask:
    """A call that is to be made: its method's path, the serialized request, and its kind (see ``Attempts``)."""

    path: str
    request: bytes
    kind: str


Steps = Generator[Ask, bytes, T]
"""Yields what is to be asked, is sent the answer or thrown the error, and returns what comes of it."""


class Questions:
    """What clients have in common, but for who carries it.

    Args:
        pool: of the client's channel.
        hedge: see :class:`ensconce.client.predict.Client`.
        conduct: see there.
    """

    def __init__(self, pool: Places[Any], hedge: Hedge | None, conduct: Conduct | None) -> None:
        self._pool = pool
        self._conduct = conduct or Conduct(hedge=hedge)
        self._signatures = Signatures()

    @property
    def calls(self) -> dict[str, int]:
        """How many calls each replica has answered, by replica id."""
        return self._conduct.answers()

    @property
    def accepted(self) -> dict[str, Accepted]:
        """Every replica that this client is connected to or has asked, by replica id."""
        return self._pool.known

    def _predict(
        self, model: str, inputs: Inputs, outputs: Sequence[str], version: int | None = None, signature: str = ""
    ) -> Steps[dict[str, Array]]:
        arrays = to_arrays(inputs, (yield from self._learned(model, version)), signature)
        request = encode_request(model, arrays, version=version, signature=signature, outputs=outputs)
        found, by = read_response((yield Ask(PREDICT, request, model)))
        self._signatures.answered(model, version, by)
        return found

    def _classify(self, model: str, examples: Sequence[Mapping[str, Any]], which: Which) -> Steps[list[Classes]]:
        return decode_classes((yield Ask(CLASSIFY, encode_examples(CLASSIFY, model, examples, **which), model)))

    def _regress(
        self, model: str, examples: Sequence[Mapping[str, Any]], which: Which
    ) -> Steps[npt.NDArray[np.float32]]:
        return decode_values((yield Ask(REGRESS, encode_examples(REGRESS, model, examples, **which), model)))

    def _told(self, model: str, version: int | None) -> Steps[dict[str, Signature]]:
        return known((yield from self._learned(model, version)))

    def _learned(self, model: str, version: int | None) -> Steps[dict[str, Signature] | None]:
        try:
            return self._signatures.get(model, version)
        except KeyError:
            ask = Ask(METADATA, encode_metadata_request(model, version), "")
        try:
            answer = yield ask
        except InputError as error:
            self._signatures.untold(model, version, error)
            return None
        return self._signatures.learn(model, version, answer)
