"""The comfortable client: arrays in, arrays out, over as many proved connections as the service has replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack

import numpy as np
import numpy.typing as npt

from ensconce.appraisal.policy import Policy
from ensconce.client.calls import Caller
from ensconce.client.channel import AttestedChannel, connect
from ensconce.client.codec import Array
from ensconce.client.codec_examples import Classes
from ensconce.client.conduct import TIMEOUT_S, Conduct
from ensconce.client.hedge import Hedge
from ensconce.client.pool import CONNECTIONS
from ensconce.client.questions import Questions, Steps, Which
from ensconce.client.sealed_grpc import open_sealed
from ensconce.client.service import Service, ServiceOptions
from ensconce.client.signatures import Inputs, Signature
from ensconce.errors import EnsconceError

__all__ = ["Client"]

T = TypeVar("T")


class Client(Questions):
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
        super().__init__(channel.pool, hedge, conduct)
        self.channel = channel
        self._caller = Caller(channel, self._conduct)

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
        return self._run(self._told(model, version), timeout)

    def predict(
        self,
        model: str,
        inputs: Inputs,
        *,
        outputs: Sequence[str] = (),
        timeout: float = TIMEOUT_S,
        **which: Unpack[Which],
    ) -> dict[str, Array]:
        """One prediction.

        Args:
            model: the model's name.
            inputs: arrays by name; or the array, where there is one input. They are converted where nothing is lost.
            outputs: which outputs to get; empty for all.
            timeout: for the whole call, in seconds.
            which: ``version`` and ``signature``, see :class:`ensconce.client.questions.Which`.

        Raises:
            InputError: ``predict.inputs``, ``predict.signature``.
        """
        return self._run(self._predict(model, inputs, outputs, **which), timeout)

    def classify(
        self,
        model: str,
        examples: Sequence[Mapping[str, Any]],
        *,
        timeout: float = TIMEOUT_S,
        **which: Unpack[Which],
    ) -> list[Classes]:
        """The classes of examples, each with its labels and scores.

        Args:
            model: the model's name.
            examples: see :func:`ensconce.client.codec_examples.encode_examples`.
            timeout: for the whole call, in seconds.
            which: see :meth:`predict`.
        """
        return self._run(self._classify(model, examples, which), timeout)

    def regress(
        self,
        model: str,
        examples: Sequence[Mapping[str, Any]],
        *,
        timeout: float = TIMEOUT_S,
        **which: Unpack[Which],
    ) -> npt.NDArray[np.float32]:
        """The value of each example.

        Args:
            model: the model's name.
            examples: see :meth:`classify`; so are the others.
            timeout: for the whole call, in seconds.
            which: see :meth:`predict`.
        """
        return self._run(self._regress(model, examples, which), timeout)

    def close(self) -> None:
        """Close every connection."""
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self, steps: Steps[T], timeout: float) -> T:
        """Make the calls that the steps ask for, within a timeout for all of them."""
        deadline = self._conduct.clock() + timeout
        try:
            ask = next(steps)
            while True:
                try:
                    left = deadline - self._conduct.clock()
                    answer = self._caller.call(ask.path, ask.request, kind=ask.kind, timeout=left)
                except EnsconceError as error:
                    ask = steps.throw(error)
                else:
                    ask = steps.send(answer)
        except StopIteration as end:
            found: T = end.value
            return found
