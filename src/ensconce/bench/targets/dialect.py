"""What a model server's protocol has to say: what a model takes, one request, whether an answer is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import numpy as np

from ensconce import strict_json
from ensconce.client.codec import Array
from ensconce.client.signatures import InputSpec
from ensconce.errors import InputError, UnreachableError

__all__ = ["Answer", "Ask", "Dialect", "ModelName", "bad_answer", "json_numbers", "json_object", "unsayable", "url_of"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, encoded.

    Attributes:
        path: gRPC's method, or the path of an URL.
        body: a message, or what is POSTed; ``None`` for GET.
        json_size: where binary tensors follow JSON in the body, the length of that.
    """

    path: str
    body: bytes | None
    json_size: int | None = None


class Answer(NamedTuple):
    """What was answered.

    Attributes:
        body: a message, or HTTP's.
        replica_id: of the replica that proved to have given it; ``None`` where nobody proves anything.
        json_size: as in :class:`Ask`.
    """

    body: bytes
    replica_id: str | None
    json_size: int | None = None


@dataclass(frozen=True, slots=True)
class ModelName:
    """Which model is asked: its version, ``None`` for the newest; its signature, empty for the default."""

    name: str
    version: int | None = None
    signature: str = ""


class Dialect(Protocol):
    """One protocol, for one model."""

    def metadata(self) -> Ask:
        """Asks what the model takes."""

    def inputs(self, answer: bytes) -> dict[str, InputSpec]:
        """What it takes; empty where the server does not say.

        Raises:
            UnreachableError: check ``bench.answer``; this is no such answer.
            InputError: ``predict.signature``.
        """

    def request(self, arrays: Mapping[str, Array]) -> Ask:
        """Asks for a prediction.

        Raises:
            InputError: ``predict.inputs``; the protocol has no way to say this.
        """

    def check(self, answer: Answer) -> None:
        """Whether this answers a prediction.

        Raises:
            UnreachableError: check ``bench.answer``; it does not.
        """


def url_of(version: str, model: ModelName) -> str:
    """``/v1/models/NAME/versions/N`` or ``/v2/...``."""
    path = f"/{version}/models/{quote(model.name, safe='')}"
    return path if model.version is None else f"{path}/versions/{model.version}"


def json_object(answer: bytes, what: str) -> dict[str, Any]:
    """An answer in JSON.

    Raises:
        UnreachableError: check ``bench.answer``.
    """
    try:
        found = strict_json.loads(answer)
    except ValueError as error:
        raise bad_answer(what, str(error)) from error
    if not isinstance(found, dict):
        raise bad_answer(what, "no object")
    return found


def json_numbers(name: str, array: Array, protocol: str) -> Any:
    """Numbers as JSON has them, nested as the array is.

    Raises:
        InputError: see :func:`unsayable`; JSON has no complex numbers, no infinity and no NaN.
    """
    if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        raise unsayable(name, array, protocol)
    return array.tolist()


def bad_answer(what: str, found: str) -> UnreachableError:
    """The server speaks another protocol, or none."""
    return UnreachableError(
        "bench.answer", f"the server's answer is no {what}", found=found[:200], remedy="check --protocol and the port"
    )


def unsayable(name: str, array: Array, protocol: str) -> InputError:
    """An input that a protocol has no words for."""
    return InputError("predict.inputs", f"{protocol} cannot say input {name}", found=str(array.dtype))
