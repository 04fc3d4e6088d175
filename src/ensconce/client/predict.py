"""The comfortable client: arrays in, arrays out, over as many proved connections as the service has replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, Unpack

import numpy as np
import numpy.typing as npt

from ensconce.appraisal.policy import Policy
from ensconce.client.calls import TIMEOUT_S, Caller, Conduct
from ensconce.client.channel import AttestedChannel, connect
from ensconce.client.codec import METADATA, PREDICT, Array, encode_metadata_request, encode_request, read_response
from ensconce.client.codec_examples import CLASSIFY, REGRESS, Classes, decode_classes, decode_values, encode_examples
from ensconce.client.hedge import Hedge
from ensconce.client.leaf import Accepted
from ensconce.client.pool import CONNECTIONS
from ensconce.client.sealed_grpc import open_sealed
from ensconce.client.service import Service, ServiceOptions
from ensconce.client.signatures import Inputs, Signature, Signatures, known, to_arrays
from ensconce.errors import InputError

__all__ = ["Client"]


class Client:
    """A client of one service. Safe to share between threads.

    Calls that end in UNAVAILABLE are made again, to another replica where there is one, within their timeout and as
    long as a budget of a tenth of all calls lasts. Every method raises, beside what it names:

    * InputError: the server refuses the request: ``predict.not_found``, ``predict.invalid_argument`` and so on;
    * UnreachableError: ``predict.unavailable``, ``predict.deadline_exceeded``; or no replica is reached;
    * EvidenceError, RefusedError: no accepted replica is left, and this is why one was refused.

    Args:
        channel: closed with the client.
        hedge: after how many seconds, or beyond which share of the latest calls (``"p95"``), a prediction is also asked
            of another replica; the first answer counts. ``None`` for never.
        conduct: in the place of one of its own, for tests and for those who count.
    """

    def __init__(self, channel: AttestedChannel, *, hedge: Hedge | None = None, conduct: Conduct | None = None) -> None:
        self.channel = channel
        self._conduct = conduct or Conduct(hedge=hedge)
        self._caller = Caller(channel, self._conduct)
        self._signatures = Signatures()

    @property
    def calls(self) -> dict[str, int]:
        """How many calls each replica has answered, by replica id."""
        return self._conduct.answers()

    @property
    def accepted(self) -> dict[str, Accepted]:
        """Every replica that this client is connected to or has asked, by replica id."""
        return self.channel.pool.known

    @classmethod
    def connect(
        cls,
        target: str | Sequence[str],
        policy: Path | str | Policy | None,
        *,
        connections: int = CONNECTIONS,
        hedge: Hedge | None = None,
        sealed: bool = False,
        **options: Unpack[ServiceOptions],
    ) -> Self:
        """Connect as :func:`ensconce.client.channel.connect` does.

        Args:
            target: see there.
            policy: see there.
            connections: see there.
            hedge: see the class.
            sealed: connect as :func:`ensconce.client.sealed_grpc.open_sealed` does instead, where TLS ends before
                the replicas.
            options: see there.

        Raises:
            InputError, UnreachableError, EvidenceError, RefusedError: see there.
        """
        if sealed:
            return cls(open_sealed(Service.open(target, policy, **options), connections=connections), hedge=hedge)
        return cls(connect(target, policy, connections=connections, **options), hedge=hedge)

    def signatures(self, model: str, *, version: int | None = None, timeout: float = TIMEOUT_S) -> dict[str, Signature]:
        """What a version of a model can be asked, by name; asked of the server once, and kept.

        Args:
            model: the model's name.
            version: ``None`` for the newest.
            timeout: for the whole call, in seconds.
        """
        return known(self._learned(model, version, timeout))

    def predict(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: int | None = None,
        signature: str = "",
        outputs: Sequence[str] = (),
        timeout: float = TIMEOUT_S,
    ) -> dict[str, Array]:
        """One prediction.

        Args:
            model: the model's name.
            inputs: arrays by name; or the array, where there is one input. They are converted where nothing is lost.
            version: ``None`` for the newest.
            signature: empty for ``serving_default``.
            outputs: which outputs to get; empty for all.
            timeout: for the whole call, in seconds.

        Raises:
            InputError: ``predict.inputs``, ``predict.signature``.
        """
        arrays = to_arrays(inputs, self._learned(model, version, timeout), signature)
        request = encode_request(model, arrays, version=version, signature=signature, outputs=outputs)
        found, by = read_response(self._caller.call(PREDICT, request, kind=model, timeout=timeout))
        self._signatures.answered(model, version, by)
        return found

    def classify(
        self,
        model: str,
        examples: Sequence[Mapping[str, Any]],
        *,
        version: int | None = None,
        signature: str = "",
        timeout: float = TIMEOUT_S,
    ) -> list[Classes]:
        """The classes of examples, each with its labels and scores.

        Args:
            model: the model's name.
            examples: see :func:`ensconce.client.codec_examples.encode_examples`.
            version: ``None`` for the newest.
            signature: empty for ``serving_default``.
            timeout: for the whole call, in seconds.
        """
        request = encode_examples(CLASSIFY, model, examples, version=version, signature=signature)
        return decode_classes(self._caller.call(CLASSIFY, request, kind=model, timeout=timeout))

    def regress(
        self,
        model: str,
        examples: Sequence[Mapping[str, Any]],
        *,
        version: int | None = None,
        signature: str = "",
        timeout: float = TIMEOUT_S,
    ) -> npt.NDArray[np.float32]:
        """The value of each example.

        Args:
            model: the model's name.
            examples: see :meth:`classify`; so are the others.
            version: ``None`` for the newest.
            signature: empty for ``serving_default``.
            timeout: for the whole call, in seconds.
        """
        request = encode_examples(REGRESS, model, examples, version=version, signature=signature)
        return decode_values(self._caller.call(REGRESS, request, kind=model, timeout=timeout))

    def close(self) -> None:
        """Close every connection."""
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _learned(self, model: str, version: int | None, timeout: float) -> dict[str, Signature] | None:
        try:
            return self._signatures.get(model, version)
        except KeyError:
            request = encode_metadata_request(model, version)
        try:
            answer = self._caller.call(METADATA, request, kind="", timeout=timeout)
        except InputError as error:
            self._signatures.untold(model, version, error)
            return None
        return self._signatures.learn(model, version, answer)
