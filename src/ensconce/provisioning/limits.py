"""What strangers may cost the provisioning server."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on connections, on their time, and on how often one address or one identity may ask.

    An *address* is an IPv4 address, or the /64 of an IPv6 address, which one host has to itself. The rates are sized
    for a fleet that starts at once behind one address; lower them where every replica has its own.

    Attributes:
        connections: at a time that are in their handshake; as many more that wait to begin it; as many more that have
            finished it and not yet sent their request; and as many more whose request waits for its appraisal or its
            answer.
        connections_per_address: at a time, whatever they are doing.
        address_rate: connections per second of one address, in the long run.
        address_burst: connections of one address at once, before the rate counts.
        identity_rate: releases per second to one identity of the policy, in the long run.
        identity_burst: releases to one identity at once.
        handshake_time: seconds from accepting the connection to the end of the handshake.
        exchange_time: seconds for everything after the handshake.
        grace: seconds that a connection is left alone before another may take its place.
        closing_time: seconds that a stopping server leaves to its connections.
    """

    connections: int = 1024
    connections_per_address: int = 256
    address_rate: float = 50.0
    address_burst: int = 500
    identity_rate: float = 50.0
    identity_burst: int = 500
    handshake_time: float = 10.0
    exchange_time: float = 30.0
    grace: float = 1.0
    closing_time: float = 2.0
