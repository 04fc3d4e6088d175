"""How a replica is, seen from beside it: ready once it has proved itself and loaded its models, alive while it answers.

That it was attested shows in its certificate: the owner's authority, which is in the measured configuration, signs one
for the service's name for nobody whose evidence her policy has not accepted. That it has loaded its models it says
itself. None of this is a proof to anybody else: whoever routes requests is advised, and clients judge the evidence.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from ensconce.addresses import Address
from ensconce.cluster.replica import Ready
from ensconce.enclave.config import ReplicaConfig

__all__ = ["Health"]

_TIMEOUT_S = 3.0
_SILENCE_S = 60.0


@dataclass
class Health:
    """What was last seen of one replica.

    Attributes:
        config: the measured configuration.
        folder: the replica's working folder.
        stopping: it has been told to leave.
        reason: why it is not ready; empty when it is.
        clock: monotonic seconds.
    """

    config: ReplicaConfig
    folder: Path
    stopping: bool = False
    reason: str = "it has not started"
    clock: Callable[[], float] = time.monotonic
    _complete: bool = field(default=False, init=False)
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
        """Look at the replica, which takes as long as a handshake does, or three seconds."""
        self.reason = self._why_not()

    def _why_not(self) -> str:
        try:
            ready = Ready.model_validate_json((self.folder / "ready.json").read_bytes())
        except FileNotFoundError:
            return "it has no keys yet, or is loading its models"
        except (OSError, ValidationError) as error:
            return f"ready.json cannot be read: {type(error).__name__}"
        listen = (
            Address.parse(self.config.listen.grpc, lowest_port=0),
            Address.parse(self.config.listen.rest, lowest_port=0),
        )
        for address, port in zip(listen, (ready.grpc, ready.rest), strict=True):
            if address.port not in (0, port):
                return f"it listens on port {port}, because {address.port} is taken"
        served = {servable.partition("/")[0] for servable in ready.servables}
        missing = [model.name for model in self.config.models if model.name not in served]
        if not served or (missing and not self._complete):
            # Once it has served all, a model that the owner withdraws takes the others out of service no more.
            return f"it serves no version of {', '.join(missing)}"
        if problem := self._handshake(_local(listen[0].host), ready.grpc):
            return problem
        self._complete = True
        self._answered = self.clock()
        return ""

    def _handshake(self, host: str, port: int) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.config.provisioning.ca_pem)
        context.set_alpn_protocols(["h2"])
        try:
            with (
                socket.create_connection((host, port), _TIMEOUT_S) as raw,
                context.wrap_socket(raw, server_hostname=self.config.domain),
            ):
                return ""
        except (OSError, ValueError) as error:
            return f"no handshake: {str(error)[:200]}"


def _local(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound to
