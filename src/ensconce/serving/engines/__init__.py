"""Inference engines: each makes a ``Servable`` of a version's files, and raises ``LoadError`` where it cannot.

===========  ==========================================================================
folder       which engine computes a plain folder
openvino     a converted model, from bytes in memory; ``openvino_graph`` is one graph of it
tensorflow   a SavedModel, which ``saved_model`` loads
tflite       a TFLite model
definitions  a ``SignatureDef`` as a ``Signature``
===========  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, Self

from ensconce.errors import InputError
from ensconce.tfserving.refusal import Code
from ensconce.tfserving.signatures import Signature
from ensconce.tfserving.tensor import Array

__all__ = ["LoadError", "Servable"]


class LoadError(InputError):
    """A version cannot be loaded. ``problem`` and ``code`` are what ``GetModelStatus`` says of it.

    The text is TensorFlow Serving's where it has one.
    """

    code: Code = Code.UNKNOWN

    def with_code(self, code: Code) -> Self:
        """This error, with a status code."""
        self.code = code
        return self

    def altered(self, **changes: str | None) -> Self:
        """As every error's; the code stays."""
        return super().altered(**changes).with_code(self.code)


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
