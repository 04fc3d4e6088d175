"""Inference engines: each makes a ``Servable`` of a model version's decrypted files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ensconce.tfserving.signatures import Signature
from ensconce.tfserving.tensor import Array

__all__ = ["Servable"]


class Servable(Protocol):
    """A loaded version of a model. Its methods may be called from several threads at once."""

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """The ways to call it, by name."""
        ...

    def predict(
        self, signature_name: str, inputs: Mapping[str, Array], output_filter: Sequence[str] = ()
    ) -> dict[str, Array]:
        """Compute the outputs that ``output_filter`` names, or all when it is empty.

        Raises:
            RequestError: the signature is unknown, inputs do not fit it, or the model cannot compute with them.
        """
        ...
