"""A ``grpc.Channel`` over one that ends at a load balancer: what it calls is sealed to an accepted enclave."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Never

import grpc
from google.protobuf.message import DecodeError

from ensconce.client.sealed import Sealer, not_sealing
from ensconce.client.service import Service
from ensconce.errors import InputError
from ensconce.ratls.sealing import SEALING_KEY_METHOD, Statement
from ensconce.tfserving.messages import SealingKeyRequest, SealingKeyResponse

__all__ = ["SealedCallError", "SealedChannel", "sealed_channel"]

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_KEY_TIMEOUT_S = 10.0


def sealed_channel(channel: grpc.Channel, service: Service) -> SealedChannel:
    """Seal what is called on a channel; the key of a replica has been accepted when this returns.

    Args:
        channel: to the balancer, with whatever TLS that has; closed with the one that is returned.
        service: whom to believe; where it is reached is the channel's matter.

    Raises:
        InputError: ``sealed.freshness``, see :class:`ensconce.client.sealed.Sealer`.
        UnreachableError: ``sealed.none``: nobody names a key.
        EvidenceError, RefusedError: see :func:`ensconce.client.sealed.judge_statement`.
    """
    made = SealedChannel(channel, service)
    _ = made.sealer.key
    return made


class SealedCallError(grpc.RpcError):
    """A call that the enclave ended with an error, which it sealed."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        """As :meth:`grpc.Call.code`."""
        return self._code

    def details(self) -> str:
        """As :meth:`grpc.Call.details`."""
        return self._details


class SealedChannel(grpc.Channel):
    """Made by :func:`sealed_channel`. Calls with one request and one answer only; the others are refused.

    Attributes:
        sealer: has the key.
    """

    def __init__(self, channel: grpc.Channel, service: Service) -> None:
        self._channel = channel
        self._sealing_key = channel.unary_unary(
            SEALING_KEY_METHOD, SealingKeyRequest.SerializeToString, SealingKeyResponse.FromString
        )
        self.sealer = Sealer(service, self._ask_key)

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """As :meth:`grpc.Channel.unary_unary`; calls raise :class:`SealedCallError` for what the enclave answers, and
        what :meth:`ensconce.client.sealed.Sealer.ask` raises. Futures are refused."""
        return _UnaryUnary(self, self._channel, method, request_serializer, response_deserializer)

    def unary_stream(self, *_args: Any, **_kwargs: Any) -> Any:
        """Refused when it is called, since stubs make all that their service has."""
        return _refuse

    stream_unary = stream_stream = unary_stream

    def subscribe(self, callback: Callable[..., Any], try_to_connect: bool = False) -> None:
        """As :meth:`grpc.Channel.subscribe`: the state of the connection to the balancer."""
        self._channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[..., Any]) -> None:
        """As :meth:`grpc.Channel.unsubscribe`."""
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        """Close the channel below, too."""
        self._channel.close()

    def __enter__(self) -> SealedChannel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _ask_key(self, fields: dict[str, str]) -> Statement:
        try:
            answer = self._sealing_key(SealingKeyRequest(), metadata=tuple(fields.items()), timeout=_KEY_TIMEOUT_S)
        except grpc.RpcError as error:
            raise not_sealing(f"{error.code().name}: {error.details()}") from error
        except DecodeError as error:
            raise not_sealing("an answer that cannot be read") from error
        return Statement(answer.certificate, answer.key, answer.signature)


class _UnaryUnary:
    # What grpc.UnaryUnaryMultiCallable declares; that class is generic for type checkers only.

    def __init__(
        self,
        sealed: SealedChannel,
        channel: grpc.Channel,
        method: str,
        serialize: Callable[[Any], bytes] | None,
        deserialize: Callable[[bytes], Any] | None,
    ) -> None:
        self._sealed, self._method = sealed, method
        self._serialize, self._deserialize = serialize, deserialize
        self._call = channel.unary_unary(method, None, None)

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        return self.with_call(request, timeout, metadata, **options)[0]

    def with_call(
        self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any
    ) -> tuple[Any, grpc.Call]:
        until = None if timeout is None else time.monotonic() + timeout

        def send(fields: dict[str, str], sealed: bytes) -> tuple[grpc.Call, bytes] | None:
            left = None if until is None else max(0.0, until - time.monotonic())
            try:
                answer, call = self._call.with_call(
                    sealed, timeout=left, metadata=(*(metadata or ()), *fields.items()), **options
                )
            except grpc.RpcError as error:
                # Said in the clear: it can only be about the sealing, or a lie, and is believed in neither case.
                if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                    return None
                raise
            return call, answer

        body = request if self._serialize is None else self._serialize(request)
        call, status, answer = self._sealed.sealer.ask("grpc", self._method, body, send)
        if status:
            raise SealedCallError(_CODES.get(status, grpc.StatusCode.UNKNOWN), answer.decode("utf-8", "replace"))
        return (answer if self._deserialize is None else self._deserialize(answer)), call

    def future(self, *_args: Any, **_kwargs: Any) -> Never:
        _refuse()


def _refuse(*_args: Any, **_kwargs: Any) -> Never:
    raise InputError(
        "sealed.kind",
        "this kind of call cannot be sealed",
        rule="a call with one request and one answer, waited for",
        remedy="call the method itself, in a thread of your own where it should not be waited for",
    )
