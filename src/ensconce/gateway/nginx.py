"""The gateway that production uses: nginx, with a configuration and a folder of its own, as an ordinary user."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from ensconce.addresses import Address, check_domain, listen
from ensconce.errors import InputError
from ensconce.files import write_aside
from ensconce.gateway import keeper, nginx_conf
from ensconce.gateway.backends import ApiName, Backend, pools
from ensconce.gateway.nginx_program import Nginx, check_configuration

__all__ = ["NginxGateway"]

_START_S = 10.0
_QUIT_S = 2.0
_CONFIGURATION, _CANDIDATE, _PID, _ERRORS = "nginx.conf", "nginx.conf.next", "nginx.pid", "error.log"


class NginxGateway:
    """nginx under a keeper (:mod:`ensconce.gateway.keeper`), so that it cannot outlive the process that started it.

    Args:
        nginx: what :func:`ensconce.gateway.nginx_program.find_nginx` found.
        folder: its own folder, made if need be: configuration, process id, ``access.log`` (one JSON object per
            connection), ``error.log``.
        addresses: host and port of each API; port 0 asks for any free one.
        domain: the only server name that is passed on.

    Raises:
        InputError: the domain is not a DNS name.
    """

    kind: Literal["nginx", "embedded"] = "nginx"

    def __init__(self, nginx: Nginx, folder: Path, addresses: Mapping[ApiName, Address], domain: str) -> None:
        self._nginx = nginx
        self._folder = folder.resolve()
        self._asked = dict(addresses)
        self._domain = check_domain(domain)
        self._workers = min(os.cpu_count() or 1, 4)
        self._open_files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 16384)
        self._addresses: dict[ApiName, Address] = {}
        self._keeper: subprocess.Popen[bytes] | None = None

    @property
    def about(self) -> str:
        """The version and the place of the program."""
        return f"nginx {self._nginx.version} ({self._nginx.program})"

    @property
    def addresses(self) -> Mapping[ApiName, Address]:
        """Where it listens; empty before ``start``."""
        return dict(self._addresses)

    @property
    def running(self) -> bool:
        """Whether nginx lives."""
        return self._keeper is not None and self._keeper.poll() is None

    def start(self, backends: Sequence[Backend]) -> None:
        """Listen, and pass connections to ``backends``.

        Raises:
            InputError: check ``gateway.address`` or ``gateway.nginx``.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            sockets: dict[ApiName, socket.socket] = {
                api: stack.enter_context(listen(address, "gateway.address")) for api, address in self._asked.items()
            }
            self._addresses = {api: Address(*each.getsockname()[:2]) for api, each in sockets.items()}
            self._write(backends)
            (self._folder / _PID).unlink(missing_ok=True)
            self._launch([each.fileno() for each in sockets.values()])
        try:
            self._wait(lambda: (self._folder / _PID).exists(), "did not start")
        except InputError:
            self.stop()
            raise

    def _launch(self, sockets: Sequence[int]) -> None:
        files = ("-e", "stderr", "-g", f"pid {_PID};", "-p", f"{self._folder}/", "-c", _CONFIGURATION)
        with (self._folder / _ERRORS).open("ab") as errors:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper.__file__, str(self._nginx.program), *files],
                stdin=subprocess.PIPE,
                bufsize=0,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=tuple(sockets),
                # NGINX is nginx's own way to be handed listening sockets (ngx_add_inherited_sockets).
                env={"NGINX": "".join(f"{number};" for number in sockets), "TZ": "UTC", "PATH": os.defpath},
                cwd=self._folder,
                start_new_session=True,
            )

    def reload(self, backends: Sequence[Backend]) -> None:
        """Send new connections to ``backends``; returns when the new workers have taken over.

        Raises:
            InputError: nginx has ended, or refuses the configuration; then the old one stays in force.
        """
        if not self.running:
            raise self._failed("is not running")
        seen = self._log_size()
        self._write(backends)
        self._wish(b"h")

        def taken_over() -> bool:
            log = self._log_since(seen)
            if "[emerg]" in log:
                raise self._failed("did not take the new configuration")
            started = log.count("start worker process ")
            return started >= self._workers and log.count("gracefully shutting down") >= self._workers

        self._wait(taken_over, "did not take the new configuration")

    def stop(self) -> None:
        """End nginx: what is open may finish for two seconds, then everything is cut. Idempotent."""
        self._addresses = {}
        if self._keeper is None:
            return
        self._wish(b"q")
        try:
            self._keeper.wait(_QUIT_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # From here on the keeper needs nobody: it terminates nginx, and kills what is left two seconds later.
            if self._keeper.stdin is not None:
                self._keeper.stdin.close()
        self._keeper.wait(keeper.TERM_S + _START_S)
        self._keeper = None

    def _wish(self, wish: bytes) -> None:
        assert self._keeper is not None
        assert self._keeper.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._keeper.stdin.write(wish)

    def _write(self, backends: Sequence[Backend]) -> None:
        """Put the new configuration in place once nginx itself has found it good."""
        text = nginx_conf.render(
            self._addresses,
            self._domain,
            pools(backends),
            stream_module=self._nginx.stream_module,
            workers=self._workers,
            open_files=self._open_files,
        )
        write_aside(self._folder / _CANDIDATE, text.encode())
        problem = check_configuration(self._nginx, self._folder, _CANDIDATE)
        if problem is not None:
            raise InputError(
                "gateway.nginx",
                f"nginx refuses its configuration: {problem}",
                found=str(self._folder / _CANDIDATE),
                remedy="set `gateway: embedded` in ensconce.yaml, and report this",
            )
        (self._folder / _CANDIDATE).replace(self._folder / _CONFIGURATION)

    def _wait(self, reached: Callable[[], bool], problem: str) -> None:
        deadline = time.monotonic() + _START_S
        while not reached():
            if not self.running or time.monotonic() > deadline:
                raise self._failed(problem)
            time.sleep(0.005)

    def _failed(self, problem: str) -> InputError:
        complaints = [line for line in self._log_since(0).splitlines() if "[emerg]" in line or "[alert]" in line]
        return InputError(
            "gateway.nginx",
            f"nginx {problem}",
            found=complaints[-1][:400] if complaints else None,
            remedy=f"read {self._folder / _ERRORS}; `gateway: embedded` in ensconce.yaml does without nginx",
        )

    def _log_size(self) -> int:
        return (self._folder / _ERRORS).stat().st_size

    def _log_since(self, offset: int) -> str:
        try:
            with (self._folder / _ERRORS).open("rb") as log:
                log.seek(max(offset, log.seek(0, os.SEEK_END) - 65536))
                return log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
