"""The gateway for where there is no nginx: the same service from a small program of our own, in its own process."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ensconce.addresses import Address, check_domain, listen
from ensconce.errors import InputError
from ensconce.gateway.backends import ApiName, Backend, pools

__all__ = ["EmbeddedGateway"]

_ANSWER_S = 15.0
_STOP_S = 10.0
_PACKAGES = Path(__file__).parents[2]


class EmbeddedGateway:
    """Runs :mod:`ensconce.gateway.passthrough`, which reads strangers' bytes, away from every other process of ours.

    It ends when its standard input does, so it cannot outlive the process that started it, however that ends.

    Args:
        folder: its own folder, made if need be: ``access.log`` (one JSON object per connection), ``error.log``.
        addresses: host and port of each API; port 0 asks for any free one.
        domain: the only server name that is passed on.
        about: why it is this gateway, for people.

    Raises:
        InputError: the domain is not a DNS name.
    """

    kind: Literal["nginx", "embedded"] = "embedded"

    def __init__(
        self, folder: Path, addresses: Mapping[ApiName, Address], domain: str, about: str = "embedded pass-through"
    ) -> None:
        self._folder = folder.resolve()
        self._asked = dict(addresses)
        self._domain = check_domain(domain)
        self._about = about
        self._addresses: dict[ApiName, Address] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def about(self) -> str:
        """Why it is this gateway."""
        return self._about

    @property
    def addresses(self) -> Mapping[ApiName, Address]:
        """Where it listens; empty before ``start``."""
        return dict(self._addresses)

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, backends: Sequence[Backend]) -> None:
        """Listen, and pass connections to ``backends``.

        Raises:
            InputError: check ``gateway.address`` or ``gateway.embedded``.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            sockets: dict[ApiName, socket.socket] = {
                api: stack.enter_context(listen(address, "gateway.address")) for api, address in self._asked.items()
            }
            self._addresses = {api: Address(*each.getsockname()[:2]) for api, each in sockets.items()}
            with (self._folder / "error.log").open("ab") as errors:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "ensconce.gateway.passthrough"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    bufsize=0,
                    pass_fds=[each.fileno() for each in sockets.values()],
                    # The same package as this one, however it was found; nothing else of our environment.
                    env={"PATH": os.defpath, "PYTHONPATH": str(_PACKAGES)},
                    cwd=self._folder,
                    start_new_session=True,
                )
            configuration = {
                "do": "start",
                "listeners": {api: each.fileno() for api, each in sockets.items()},
                "domain": self._domain,
                "access_log": str(self._folder / "access.log"),
                "pools": pools(backends),
            }
            try:
                self._ask(configuration)
            except InputError:
                self.stop()
                raise

    def reload(self, backends: Sequence[Backend]) -> None:
        """Send new connections to ``backends`` from now on; those that exist stay.

        Raises:
            InputError: the gateway does not run.
        """
        self._ask({"do": "reload", "pools": pools(backends)})

    def stop(self) -> None:
        """End it: what is open may finish for two seconds, then everything is cut. Idempotent."""
        self._addresses = {}
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One JSON line there, one back."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise self._failed("does not run")
        line = b""
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            while not line.endswith(b"\n"):
                readable, _, _ = select.select([process.stdout], [], [], _ANSWER_S)
                part = process.stdout.read(65536) if readable else b""
                if not part:
                    break
                line += part
        if not line.endswith(b"\n"):
            raise self._failed("ended, or does not answer")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failed(self, problem: str) -> InputError:
        return InputError(
            "gateway.embedded",
            f"the embedded gateway {problem}",
            found=", ".join(str(address) for address in self._asked.values()),
            remedy=f"read {self._folder / 'error.log'}, then start the service again",
        )
