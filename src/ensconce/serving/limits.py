"""How much a client may ask for.

What follows from it for connections is ``Http1Limits`` and ``Http2Limits``, for what waits to be computed ``Bounds``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Limits"]

_MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """What a client may ask for at most.

    Attributes:
        message_bytes: longest gRPC message in either direction, and most bytes of one unpacked input tensor.
        body_bytes: longest body of a REST request (JSON takes several times its size in memory).
        requests: requests that are computed or wait at once; more are refused with UNAVAILABLE.
        connection_age: seconds after which a connection is asked to end, within 10 %, so that clients spread over new
            replicas.
        connection_grace: seconds that requests on such a connection then still have.
    """

    message_bytes: int = 128 * _MIB
    body_bytes: int = 32 * _MIB
    requests: int = 256
    connection_age: float = 300
    connection_grace: float = 30
