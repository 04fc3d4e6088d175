"""The dashboard from its listener to its last answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from ensconce.addresses import Address, listen
from ensconce.dashboard.app import LIMITS, App, refused
from ensconce.dashboard.auth import Gate, new_token
from ensconce.dashboard.watcher import Sources, Watcher
from ensconce.errors import InputError
from ensconce.proxy.listening import is_local
from ensconce.serving.http1.server import HttpServer
from ensconce.serving.signals import told_to_end
from ensconce.serving.tls import ServingCertificate
from ensconce.times import unix_now

__all__ = ["Dashboard", "Running", "run_dashboard"]

_GRACE_S: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """What is to run.

    Attributes:
        name: of the service, the page's heading.
        sources: what is looked at.
        listen: where; loopback addresses only, unless there is a certificate.
        token: what whoever looks has to know; one that works once is made when there is none.
        certificate: with which TLS is spoken.
        names: that it is for.
    """

    name: str
    sources: Sources
    listen: Address
    token: str | None = field(default=None, repr=False)
    certificate: ServingCertificate | None = None
    names: Collection[str] = ()

    def __post_init__(self) -> None:
        if self.certificate is None and not is_local(self.listen):
            raise InputError(
                "dashboard.cleartext",
                "beyond this machine the dashboard does not listen in the clear",
                found=str(self.listen),
                rule="a loopback address; others with TLS only",
                remedy="listen on 127.0.0.1, or give --tls-cert and --tls-key",
            )


class Running:
    """A dashboard in an event loop.

    Args:
        dashboard: what is to run.
    """

    def __init__(self, dashboard: Dashboard) -> None:
        self._dashboard = dashboard
        self.watcher = Watcher(dashboard.sources)
        self._server: HttpServer | None = None

    async def start(self) -> str:
        """Listen, and begin to look.

        Returns:
            The address to open, with the token if it works once.

        Raises:
            InputError: ``dashboard.listen``: the address cannot be had.
        """
        given = self._dashboard
        listener = listen(given.listen, "dashboard.listen")
        at = Address(given.listen.host, listener.getsockname()[1])
        secure = given.certificate is not None
        token = given.token or new_token()
        gate = Gate(token, once=given.token is None, port=at.port, now=time.monotonic, secure=secure)
        names = given.names if secure else None
        app = App(given.name, self.watcher, gate, at, given.token is not None, unix_now, names)
        self._server = HttpServer(app.answer, refused, LIMITS)
        await self._server.listen(listener, given.certificate.ssl_context if given.certificate is not None else None)
        self.watcher.start()
        url = f"http{'s' if secure else ''}://{at}/"
        return url if given.token is not None else f"{url}enter?token={token}"

    async def stop(self) -> None:
        """End every connection, and look no more."""
        self.watcher.stop()
        if self._server is not None:
            await self._server.stop(_GRACE_S)


def run_dashboard(dashboard: Dashboard, tell: Callable[[str], object]) -> bool:
    """Run until SIGTERM or SIGINT.

    Args:
        dashboard: what is to run.
        tell: told of the address to open.

    Returns:
        Whether it was SIGINT.

    Raises:
        InputError: the address cannot be had.
    """
    return asyncio.run(_run(dashboard, tell))


async def _run(dashboard: Dashboard, tell: Callable[[str], object]) -> bool:
    ended = told_to_end()
    running = Running(dashboard)
    try:
        tell(await running.start())
        return await ended
    finally:
        await running.stop()
