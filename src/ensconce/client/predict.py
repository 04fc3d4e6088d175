"""Predictions with arrays in and arrays out, over several connections, so that the replicas share the load."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import grpc
from cryptography import x509

from ensconce.addresses import Address
from ensconce.appraisal.appraiser import Appraiser
from ensconce.client.channel import AttestedChannel, connect
from ensconce.client.codec import (
    METADATA,
    PREDICT,
    Array,
    InputSpec,
    decode_inputs,
    decode_response,
    encode_metadata_request,
    encode_request,
)
from ensconce.client.leaf import Accepted
from ensconce.errors import EnsconceError, InputError, UnreachableError

__all__ = ["PredictClient"]


class PredictClient:
    """A client of one service. Safe to share between threads.

    Every channel has one connection, and every connection is to one replica, which the gateway chooses: with
    ``connections`` a multiple of the number of replicas they get equal shares.

    Args:
        targets: where the service's gRPC API is reached; the channels are dealt out to them in turn.
        server_name: the service's DNS name.
        appraiser: judges the replicas.
        authority: see :func:`ensconce.client.leaf.judge_leaf`.
        connections: number of channels, at least 1.
        timeout: for connecting, in seconds.

    Raises:
        InputError: no target, or no connection.
        UnreachableError, EvidenceError, RefusedError: see :func:`ensconce.client.attested.connect_tls`.
    """

    def __init__(
        self,
        targets: Sequence[Address],
        server_name: str,
        appraiser: Appraiser,
        *,
        authority: x509.Certificate | None,
        connections: int = 1,
        timeout: float = 10.0,
    ) -> None:
        if not targets or connections < 1:
            raise InputError(
                "predict.connections",
                "a client needs an address and at least one connection",
                found=f"{len(targets)} addresses, {connections} connections",
            )
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._accepted: dict[str, Accepted] = {}
        with ExitStack() as stack:
            self._channels: list[AttestedChannel] = []
            for target in itertools.islice(itertools.cycle(targets), connections):
                channel = connect(target, server_name, appraiser, authority=authority, timeout=timeout)
                self._channels.append(stack.enter_context(channel))
            self._stack = stack.pop_all()
        self._predicts = [channel.unary_unary(PREDICT) for channel in self._channels]
        self._turns = itertools.cycle(range(connections))

    @property
    def calls(self) -> dict[str, int]:
        """How many calls each replica has answered, by replica id.

        A call counts for the replica that its channel was connected to when it ended.
        """
        with self._lock:
            return dict(self._calls)

    @property
    def accepted(self) -> dict[str, Accepted]:
        """Every replica that this client is connected to or has had an answer from, by replica id."""
        with self._lock:
            now = [channel.tunnel.accepted for channel in self._channels]
            return self._accepted | {each.replica_id: each for each in now if each is not None}

    def predict(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: int | None = None,
        signature: str = "",
        outputs: Sequence[str] = (),
        timeout: float = 60.0,
    ) -> dict[str, Array]:
        """One prediction.

        Args:
            model: the model's name.
            inputs: one array for each input of the signature.
            version: ``None`` for the newest.
            signature: empty for ``serving_default``.
            outputs: which outputs to get; empty for all.
            timeout: for the whole call, in seconds.

        Raises:
            InputError: the server refuses the request: ``predict.not_found``, ``predict.invalid_argument`` and so on.
            UnreachableError: ``predict.unavailable``, ``predict.deadline_exceeded``; or the way to a replica was lost.
            EvidenceError, RefusedError: the replica at the end of a new connection was not accepted.
        """
        request = encode_request(model, inputs, version=version, signature=signature, outputs=outputs)
        with self._lock:
            turn = next(self._turns)
        try:
            response = self._predicts[turn](request, timeout=timeout)
        except grpc.RpcError as error:
            raise _as_ours(error) from error
        accepted = self._channels[turn].tunnel.accepted
        if accepted is not None:
            with self._lock:
                self._calls[accepted.replica_id] += 1
                self._accepted[accepted.replica_id] = accepted
        return decode_response(response)

    def inputs(
        self, model: str, *, version: int | None = None, signature: str = "serving_default", timeout: float = 60.0
    ) -> dict[str, InputSpec]:
        """What a signature of a model takes.

        Raises:
            InputError: there is no such model, version or signature.
            EnsconceError: as :meth:`predict`.
        """
        try:
            answer = self._channels[0].unary_unary(METADATA)(encode_metadata_request(model, version), timeout=timeout)
        except grpc.RpcError as error:
            raise _as_ours(error) from error
        return decode_inputs(answer, signature)

    def close(self) -> None:
        """Close every channel."""
        self._stack.close()

    def __enter__(self) -> PredictClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


_OURS = {
    grpc.StatusCode.UNAVAILABLE: UnreachableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: UnreachableError,
    grpc.StatusCode.CANCELLED: UnreachableError,
    grpc.StatusCode.INTERNAL: EnsconceError,
    grpc.StatusCode.UNKNOWN: EnsconceError,
    grpc.StatusCode.DATA_LOSS: EnsconceError,
}


def _as_ours(error: Any) -> EnsconceError:
    code: grpc.StatusCode = error.code()
    kind = _OURS.get(code, InputError)
    return kind(
        f"predict.{code.name.lower()}",
        f"the prediction failed: {(error.details() or 'no details')[:500]}",
        found=code.name,
        remedy="try again" if kind is UnreachableError else None,
    )
