"""How much of a server a client may use, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Http1Limits"]

_MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class Http1Limits:
    """Bounds of a server's connections. Times are seconds.

    Attributes:
        connections: open at once; one more takes the place of one that waits, or is closed where all are busy.
        line_bytes: of a request line (414).
        header_bytes: of a request's head, and of trailers (431).
        fields: in a head (431).
        body_bytes: of a body, as it arrives and again decompressed (413).
        server_bytes: of bodies that all connections together may hold (503).
        ahead_bytes: of further requests that are kept while one is answered; then nothing more is read.
        handshake: for the TLS handshake.
        header_time: for a head (408).
        body_time: for a body (408).
        idle: without a request, after which a connection is closed.
        stall: in which something of an answer must be taken.
        linger: for which a peer that is refused may go on talking, to be sure that it reads why.
        linger_bytes: that it may send meanwhile.
        age: after which a connection is closed with its next answer.
    """

    connections: int = 1024
    line_bytes: int = 8 * 1024
    header_bytes: int = 16 * 1024
    fields: int = 100
    body_bytes: int = 32 * _MIB
    server_bytes: int = 512 * _MIB
    ahead_bytes: int = 64 * 1024
    handshake: float = 10
    header_time: float = 10
    body_time: float = 30
    idle: float = 60
    stall: float = 30
    linger: float = 2
    linger_bytes: int = 16 * _MIB
    age: float = 300
