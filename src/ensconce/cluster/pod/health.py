"""How a replica is, seen from beside it: ready once it has proved itself and loaded its models, alive while it answers.

That it was attested shows in its certificate: the owner's authority, which is in the measured configuration, signs one
for the service's name for nobody whose evidence her policy has not accepted. That it has loaded its models it says
itself. TensorFlow Serving says nothing: it reads its certificate with a key that her policy released, and opens its
port when every model is available (``model_servers/server.cc``, ``BuildAndStart``). None of this is a proof to anybody
else: whoever routes requests is advised, and clients judge the evidence.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from ensconce.addresses import Address
from ensconce.cluster.replica import Ready
from ensconce.enclave.config import ReplicaConfig

__all__ = ["Health", "Look", "our_replica", "tensorflow_serving"]

_TIMEOUT_S = 3.0
_SILENCE_S = 60.0


Look = Callable[[], str]
"""Looks at a replica, for as long as a handshake takes, or three seconds; says why it is not ready, or nothing."""


@dataclass
class Health:
    """What was last seen of one replica.

    Attributes:
        seen: looks at it.
        stopping: it has been told to leave.
        reason: why it is not ready; empty when it is.
        clock: monotonic seconds.
    """

    seen: Look
    stopping: bool = False
    reason: str = "it has not started"
    clock: Callable[[], float] = time.monotonic
    _answered: float | None = field(default=None, init=False)

    @property
    def ready(self) -> bool:
        """It may be sent requests."""
        return not self.reason and not self.stopping

    @property
    def alive(self) -> bool:
        """Nothing speaks for starting it anew: it has not served yet, or it has answered within the last minute."""
        return self._answered is None or self.clock() - self._answered < _SILENCE_S

    def look(self) -> None:
        """Look at the replica."""
        self.reason = self.seen()
        if not self.reason:
            self._answered = self.clock()


def our_replica(config: ReplicaConfig, folder: Path) -> Look:
    """How to look at a replica of ours.

    Args:
        config: the measured configuration.
        folder: the replica's working folder.
    """
    complete = False

    def look() -> str:
        nonlocal complete
        try:
            ready = Ready.model_validate_json((folder / "ready.json").read_bytes())
        except FileNotFoundError:
            return "it has no keys yet, or is loading its models"
        except (OSError, ValidationError) as error:
            return f"ready.json cannot be read: {type(error).__name__}"
        listen = (
            Address.parse(config.listen.grpc, lowest_port=0),
            Address.parse(config.listen.rest, lowest_port=0),
        )
        for address, port in zip(listen, (ready.grpc, ready.rest), strict=True):
            if address.port not in (0, port):
                return f"it listens on port {port}, because {address.port} is taken"
        served = {servable.partition("/")[0] for servable in ready.servables}
        missing = [model.name for model in config.models if model.name not in served]
        if not served or (missing and not complete):
            # Once it has served all, a model that the owner withdraws takes the others out of service no more.
            return f"it serves no version of {', '.join(missing)}"
        problem = _handshake((_local(listen[0].host), ready.grpc), config.provisioning.ca_pem, config.domain)
        complete |= not problem
        return problem

    return look


def tensorflow_serving(port: int, ca_pem: str) -> Look:
    """How to look at TensorFlow Serving, whose measured files do not say for which name its certificate is."""
    return partial(_handshake, ("127.0.0.1", port), ca_pem, None)


def _handshake(address: tuple[str, int], ca_pem: str, name: str | None) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = name is not None
    try:
        context.load_verify_locations(cadata=ca_pem)
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(address, _TIMEOUT_S) as raw,
            context.wrap_socket(raw, server_hostname=name),
        ):
            return ""
    except (OSError, ValueError) as error:
        return f"no handshake: {str(error)[:200]}"


def _local(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound to
