"""The pass-through in front of the replicas: Nginx, or the embedded one.

The gateway belongs to the host, which nobody trusts. It routes on the server name in the ClientHello, holds no key, and
cannot read or change what it passes without both ends noticing.
"""

from ensconce.gateway.backends import Backend, Gateway
from ensconce.gateway.choice import open_gateway

__all__ = ["Backend", "Gateway", "open_gateway"]
