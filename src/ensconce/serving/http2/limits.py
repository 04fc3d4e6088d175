"""How much of a connection a client may use, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Http2Limits", "Patience"]

_MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class Http2Limits:
    """Bounds of a server's connections. Times are seconds.

    Attributes:
        connections: open at once; one more takes the place of one that waits, or is closed where all are busy.
        streams: open at once on a connection; more are refused (REFUSED_STREAM).
        header_bytes: of a request, compressed, and again as SETTINGS_MAX_HEADER_LIST_SIZE counts them.
        continuations: frames in which a header block may come, after the first.
        frame_bytes: longest payload that is taken.
        window_bytes: what a stream may send without being asked; more is reserved.
        connection_bytes: of bodies that one connection may hold here.
        server_bytes: of bodies that all connections together may hold here.
        write_bytes: unsent on a connection before nothing more is written, and nothing more is read.
        handshake: for the TLS handshake, and again for HTTP/2's.
        header_time: for the frames of a header block.
        stall: in which something of a body must arrive, or something of an answer be taken.
        slowest: bytes per second at which a body must arrive on the whole.
        idle: after which a connection without streams is closed.
        age: after which a connection is asked to end.
        grace: that streams then still have.
    """

    connections: int = 1024
    streams: int = 256
    header_bytes: int = 16 * 1024
    continuations: int = 8
    frame_bytes: int = 64 * 1024
    window_bytes: int = _MIB
    connection_bytes: int = 256 * _MIB
    server_bytes: int = 512 * _MIB
    write_bytes: int = 256 * 1024
    handshake: float = 10
    header_time: float = 10
    stall: float = 30
    slowest: int = 16 * 1024
    idle: float = 300
    age: float = 300
    grace: float = 30


class Patience:
    """An account of what costs us and brings no request nearer its answer.

    Time fills it, and so do answers; whoever empties it is disconnected. What an honest client does beside its
    requests (window updates, pings, a cancelled call now and then) it earns with them.
    """

    FULL: Final = 10_000
    PER_SECOND: Final = 1_000

    def __init__(self, now: float) -> None:
        """Begin with a full account."""
        self._left, self._then = float(self.FULL), now

    def spend(self, amount: int, now: float) -> bool:
        """Take from it; whether there was that much."""
        self._left = min(self.FULL, self._left + (now - self._then) * self.PER_SECOND) - amount
        self._then = now
        return self._left >= 0

    def earn(self, amount: int) -> None:
        """Put back into it."""
        self._left += amount
