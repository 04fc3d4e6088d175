"""Channels of gRPC over one that ends at a load balancer: what they call is sealed to accepted enclaves."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, Never

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from ensconce.client.channel import OPTIONS, AttestedChannel
from ensconce.client.pool import CONNECTIONS
from ensconce.client.routes import open_routes
from ensconce.client.sealed import KEY_TIMEOUT_S, Sealed, Sealer, not_sealing, refused, sealers
from ensconce.client.service import Service
from ensconce.errors import EnsconceError, InputError
from ensconce.ratls.sealing import SEALING_KEY_METHOD, Statement
from ensconce.tfserving.messages import SealingKeyRequest, SealingKeyResponse

__all__ = [
    "SealedCallError",
    "Unsealable",
    "answer_of",
    "balancer_of",
    "clear_error",
    "key_timeout",
    "open_sealed",
    "sealed_channel",
    "statement_of",
]

# Errors in the clear that are about the way to the enclave, whoever says so; they stay gRPC's.
_ON_THE_WAY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_THREADS: Final = 32


def sealed_channel(channel: grpc.Channel, service: Service, *, routes: int = CONNECTIONS) -> AttestedChannel:
    """Seal what is called on a channel; a replica's key has been accepted when this returns.

    Calls with one request and one answer; the others are refused. They raise :class:`SealedCallError` for an error of
    the enclave's, and what :meth:`ensconce.client.sealed.Sealer.ask` raises; of gRPC's errors in the clear only
    UNAVAILABLE, DEADLINE_EXCEEDED and CANCELLED are passed on.

    Args:
        channel: to the balancer, with whatever TLS that has; closed with the one that is returned.
        service: whom to believe; where it is reached is the channel's matter.
        routes: how many ways through the balancer share the calls.

    Raises:
        InputError: ``sealed.routes``, see :func:`ensconce.client.sealed.sealers`.
        UnreachableError: ``sealed.none``: nobody names a key.
        EvidenceError, RefusedError: see :func:`ensconce.client.sealed.judge_statement`.
    """
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="sealed calls")

    def close() -> None:
        channel.close()
        threads.shutdown(wait=False)

    return AttestedChannel(open_routes([_Sealing(channel, each, threads) for each in sealers(service, routes)], close))


def open_sealed(service: Service, *, connections: int = CONNECTIONS) -> AttestedChannel:
    """As :func:`sealed_channel`, to the one address of a service, which has a certificate of a public authority.

    ``GRPC_DEFAULT_SSL_ROOTS_FILE_PATH`` names other authorities (gRPC's environment variables). They decide who may see
    lengths, times and names, and nothing else.

    Args:
        service: see there.
        connections: how many ways through the balancer share the calls.

    Raises:
        InputError: ``sealed.balancer``: the service has several addresses; and see there, as for the others.
        UnreachableError, EvidenceError, RefusedError: see there.
    """
    channel = grpc.secure_channel(balancer_of(service), grpc.ssl_channel_credentials(), options=OPTIONS)
    try:
        return sealed_channel(channel, service, routes=connections)
    except BaseException:
        channel.close()
        raise


def balancer_of(service: Service) -> str:
    """Its address.

    Raises:
        InputError: ``sealed.balancer``: it has several.
    """
    if len(service.targets) != 1:
        raise InputError(
            "sealed.balancer", "sealed calls go through one balancer", found=f"{len(service.targets)} addresses"
        )
    return str(service.targets[0])


class SealedCallError(grpc.aio.AioRpcError):
    """A call that the enclave ended with an error, which it sealed. With or without an event loop."""

    def __init__(self, status: int, text: bytes) -> None:
        code = _CODES.get(status, grpc.StatusCode.UNKNOWN)
        nothing = grpc.aio.Metadata()
        super().__init__(code, nothing, nothing, text.decode("utf-8", "replace"), None)


def statement_of(answer: bytes) -> Statement:
    """What the answer to the question for a key says.

    Raises:
        UnreachableError: ``sealed.none``: it is none.
    """
    try:
        message = SealingKeyResponse.FromString(answer)
    except DecodeError as error:
        raise not_sealing("an answer that cannot be read") from error
    return Statement(message.certificate, message.key, message.signature, message.quote, message.nonces)


def key_timeout(left: float | None) -> float:
    """Seconds for the question for a key, within what is left for the call; None: any time."""
    return KEY_TIMEOUT_S if left is None else min(left, KEY_TIMEOUT_S)


def clear_error(error: Any) -> EnsconceError | None:
    """What an error of gRPC's in the clear means for what was sealed; None: that the key is another's.

    Raises:
        RpcError: itself, where it is about the way to the enclave.
    """
    code = error.code()
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        return None
    if code in _ON_THE_WAY:
        raise error
    return refused(f"{code.name}: {error.details()}")


def answer_of(status: int, body: bytes, deserialize: Callable[[bytes], Any] | None) -> Any:
    """The answer that the enclave gave.

    Raises:
        SealedCallError: it is an error.
    """
    if status:
        raise SealedCallError(status, body)
    return body if deserialize is None else deserialize(body)


class Unsealable:
    """The kinds of calls that cannot be sealed."""

    def unary_stream(self, *_args: Any, **_kwargs: Any) -> Any:
        """Refused when it is called, since stubs make all that their service has."""
        return _refuse

    stream_unary = stream_stream = unary_stream


class _Sealing(Unsealable):
    """Over one route; as much of a ``grpc.Channel`` as :class:`ensconce.client.channel.AttestedChannel` asks of it."""

    def __init__(self, channel: grpc.Channel, sealer: Sealer, threads: ThreadPoolExecutor) -> None:
        self.channel, self.sealer, self.threads = channel, sealer, threads
        self._key = channel.unary_unary(SEALING_KEY_METHOD, None, None)

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        return _UnaryUnary(self, method, request_serializer, response_deserializer)

    def ask_key(self, nonce: bytes, left: float | None = None) -> Statement:
        try:
            answer = self._key(
                SealingKeyRequest(nonce=nonce).SerializeToString(),
                metadata=tuple(self.sealer.route.items()),
                timeout=key_timeout(left),
            )
        except grpc.RpcError as error:
            clear_error(error)
            raise not_sealing(f"{error.code().name}: {error.details()}") from error
        return statement_of(answer)


class _UnaryUnary:
    # What grpc.UnaryUnaryMultiCallable declares; that class is generic for type checkers only.

    def __init__(
        self,
        sealing: _Sealing,
        method: str,
        serialize: Callable[[Any], bytes] | None,
        deserialize: Callable[[bytes], Any] | None,
    ) -> None:
        self._sealing, self._method = sealing, method
        self._serialize, self._deserialize = serialize, deserialize
        self._call = sealing.channel.unary_unary(method, None, None)

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        return self.with_call(request, timeout, metadata, **options)[0]

    def future(self, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._sealing.threads.submit(self, *args, **kwargs)

    def with_call(
        self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any
    ) -> tuple[Any, grpc.Call]:
        until = None if timeout is None else time.monotonic() + timeout
        made: list[grpc.Call] = []

        def left() -> float | None:
            return None if until is None else max(0.0, until - time.monotonic())

        def send(sealed: Sealed) -> bytes | None:
            fields = (*(metadata or ()), *sealed.fields.items())
            try:
                answer, call = self._call.with_call(sealed.body, timeout=left(), metadata=fields, **options)
            except grpc.RpcError as error:
                if (failure := clear_error(error)) is not None:
                    raise failure from error
                return None
            made.append(call)
            return bytes(answer)

        body = request if self._serialize is None else self._serialize(request)

        def ask_key(nonce: bytes) -> Statement:
            return self._sealing.ask_key(nonce, left())

        status, answer = self._sealing.sealer.ask("grpc", self._method, body, ask_key, send)
        return answer_of(status, answer, self._deserialize), made[-1]


def _refuse(*_args: Any, **_kwargs: Any) -> Never:
    raise InputError("sealed.kind", "this kind of call cannot be sealed", rule="a call with one request and one answer")
