"""The machine's simulated CPU as a process: launches enclaves, quotes for them, and serves the vendor's documents.

Run as ``python -m ensconce.platform.simulated.daemon --home DIR --socket PATH --pccs HOST:PORT``. It ends on SIGTERM or
SIGINT, and its enclaves with it. The socket appears when everything is ready. With ``--vendor URL`` instead of the
folder and the address of a PCCS, the vendor is a service elsewhere, and this machine's keys are made when it starts.

Who asks is read from the kernel (SO_PEERCRED), once, when the connection is made: a quote is for the process that was
launched, not for one that it forked, and not for one that inherited its process id.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import logging
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ensconce.addresses import Address
from ensconce.errors import EnsconceError, InputError, RefusedError
from ensconce.platform.simulated.enclaves import Enclave, Enclaves
from ensconce.platform.simulated.http import serve_http
from ensconce.platform.simulated.lifetime import listening, publish, sole_user, watching
from ensconce.platform.simulated.machine import Machine
from ensconce.platform.simulated.pccs import Pccs
from ensconce.platform.simulated.pki import SimulatedVendor, default_home
from ensconce.platform.simulated.quoting import machine_quote
from ensconce.platform.simulated.wire import HEADER_SIZE, body_size, decode, encode

__all__ = ["Daemon", "main"]

_IDLE_S = 30.0
_GRACE_S = 3.0
_MAX_CONNECTIONS = 128
_PEER = struct.Struct("3i")
_LAUNCH = {"manifest": str, "sigstruct": str, "cwd": str, "stdout": str, "stderr": str}

_log = logging.getLogger(__name__)


class Daemon:
    """The protocol of the socket: one answer to each request.

    Requests, beside their ``request``: ``launch`` (manifest, sigstruct, cwd, stdout, stderr: absolute paths),
    ``signal`` (pid, signal), ``list``, ``status``, ``quote`` (report_data: 128 hexadecimal digits).
    """

    def __init__(self, machine: Machine, enclaves: Enclaves, pccs_url: str) -> None:
        """Answer for a machine and the enclaves on it."""
        self._machine = machine
        self._enclaves = enclaves
        self._pccs_url = pccs_url
        self._connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends, falls silent, or breaks the protocol."""
        self._connections += 1
        try:
            stream: socket.socket = writer.get_extra_info("socket")
            pid, uid, _ = _PEER.unpack(stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            if uid == os.geteuid() and self._connections <= _MAX_CONNECTIONS:
                await self._converse(reader, writer, pid, self._enclaves.find(pid))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            _log.debug("a connection ended badly", exc_info=True)
        except asyncio.CancelledError:
            # The server is closing. This is the task's outermost frame, and asyncio's own would log a traceback.
            pass
        finally:
            self._connections -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pid: int, caller: Enclave | None
    ) -> None:
        while True:
            in_step = False
            try:
                async with asyncio.timeout(_IDLE_S):
                    body = await reader.readexactly(body_size(await reader.readexactly(HEADER_SIZE)))
                message = decode(body)
                in_step = True
                answer = encode(await self._answer(message, pid, caller))
            except EnsconceError as error:
                answer = encode({"error": error.fields(), "exit_status": error.exit_status})
            writer.write(answer)
            async with asyncio.timeout(_IDLE_S):
                await writer.drain()
            if not in_step:
                # Where the next message would begin is unknown, or not worth knowing.
                return

    async def _answer(self, message: Mapping[str, Any], pid: int, caller: Enclave | None) -> dict[str, Any]:
        match message.get("request"):
            case "quote":
                return {"quote": base64.b64encode(self._quote(message, pid, caller)).decode()}
            case "launch":
                fields = _fields(message, _LAUNCH)
                return {"pid": await self._enclaves.launch(**{name: _path(text) for name, text in fields.items()})}
            case "signal":
                fields = _fields(message, {"pid": int, "signal": int})
                self._enclaves.signal(fields["pid"], fields["signal"])
                return {}
            case "list":
                _fields(message, {})
                return {"enclaves": [_describe(enclave) for enclave in self._enclaves.all()]}
            case "status":
                _fields(message, {})
                return {"pid": os.getpid(), "root": self._machine.root_name, "pccs": self._pccs_url}
        raise InputError(
            "door.message",
            "a message asks for nothing that is known",
            found=repr(message.get("request"))[:80],
            rule="launch, signal, list, status or quote",
        )

    def _quote(self, message: Mapping[str, Any], pid: int, caller: Enclave | None) -> bytes:
        text = _fields(message, {"report_data": str})["report_data"]
        if caller is None or not caller.running:
            _log.warning("refused a quote to process %d, which is no enclave", pid)
            raise RefusedError(
                "door.not_an_enclave",
                "quotes are for enclaves, and the caller is none",
                found=f"process {pid}",
                rule="the very process that was launched, by the kernel's word",
                remedy="launch the program as an enclave; a process that an enclave forked is not part of it",
            )
        try:
            report_data = bytes.fromhex(text)
        except ValueError:
            report_data = b""
        if len(text) != 128 or len(report_data) != 64:
            raise InputError("door.report_data", "report data is not 64 bytes in hexadecimal", rule="128 digits")
        return machine_quote(self._machine, caller.launchable.report(self._machine.cpu_svn, report_data))


def main(arguments: list[str] | None = None) -> int:
    """Run the daemon until it is told to end; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ensconce.platform.simulated.daemon", description=__doc__)
    parser.add_argument("--home", type=Path, default=default_home(), help="folder of the simulated vendor")
    parser.add_argument("--socket", type=Path, required=True, help="where to listen for the host and the enclaves")
    parser.add_argument("--pccs", default="127.0.0.1:0", metavar="HOST:PORT", help="address of the PCCS (default: any)")
    parser.add_argument("--vendor", metavar="URL", help="have this vendor certify the machine, and serve no PCCS")
    parser.add_argument(
        "--exit-with-parent",
        nargs="?",
        type=int,
        const=os.getppid(),
        metavar="PID",
        help="end when the process that started this one ends (its id, if it could end before this one looks)",
    )
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        enrolled = None if chosen.vendor is None else _enrol(chosen.vendor, chosen.exit_with_parent)
        return asyncio.run(_run(chosen, enrolled))
    except EnsconceError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status


def _enrol(vendor: str, parent: int | None) -> Machine:
    """Before there is anything to close: until then, a signal simply ends this process, and so does a parent's end."""
    # With a client of HTTP, which a machine that is its own vendor has no use for.
    from ensconce.platform.simulated.enrolment import enrol

    def wait(seconds: float) -> None:
        time.sleep(seconds)
        if parent is not None and os.getppid() != parent:
            sys.exit(0)

    return enrol(vendor, sleep=wait)


async def _run(chosen: argparse.Namespace, enrolled: Machine | None) -> int:
    path, parent = chosen.socket.absolute(), chosen.exit_with_parent
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        if parent is not None:
            stack.enter_context(watching(parent, stop.set))
        stack.enter_context(sole_user(path))
        machine, url = await _machine(chosen, enrolled, stack)
        enclaves = Enclaves(path)
        daemon = Daemon(machine, enclaves, url)
        public = stack.enter_context(listening(path))
        server = await asyncio.start_unix_server(daemon.serve, sock=public)
        stack.callback(server.close)
        stack.push_async_callback(enclaves.stop, _GRACE_S)
        publish(path)
        _log.info("simulated platform %s ready, PCCS at %s", machine.root_name, url)
        await stop.wait()
    _log.info("simulated platform stopped")
    return 0


async def _machine(
    chosen: argparse.Namespace, enrolled: Machine | None, stack: contextlib.AsyncExitStack
) -> tuple[Machine, str]:
    """This machine, and where its vendor answers."""
    if enrolled is None:
        vendor = SimulatedVendor.open(chosen.home, int(time.time()))
        http = await _serve_pccs(chosen.pccs, vendor)
        stack.callback(http.close)
        host, port = http.sockets[0].getsockname()[:2]
        return Machine.of(vendor), f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    return enrolled, chosen.vendor


async def _serve_pccs(address: str, vendor: SimulatedVendor) -> asyncio.Server:
    where = Address.parse(address, lowest_port=0)
    try:
        return await serve_http(*where, Pccs(vendor, lambda: int(time.time())).get)
    except OSError as error:
        raise InputError(
            "daemon.pccs",
            f"cannot listen on {address}: {error.strerror}",
            remedy="choose another port, or end the program that uses this one",
        ) from error


def _fields(message: Mapping[str, Any], types: Mapping[str, type]) -> dict[str, Any]:
    """The fields of a message beside ``request``: exactly these, of exactly these types."""
    fields = {name: value for name, value in message.items() if name != "request"}
    wrong = sorted(fields.keys() ^ types.keys()) or [name for name in types if type(fields[name]) is not types[name]]
    if wrong:
        rule = ", ".join(f"{name}: {kind.__name__}" for name, kind in types.items()) or "no fields"
        raise InputError(
            "door.message", "a message has unknown, missing or wrong fields", found=", ".join(wrong)[:200], rule=rule
        )
    return fields


def _path(text: str) -> Path:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        text = ""
    if not text.startswith("/") or "\0" in text:
        raise InputError("door.path", "a path is not absolute", found=repr(text)[:200], rule="an absolute path")
    return Path(text)


def _describe(enclave: Enclave) -> dict[str, Any]:
    return {
        "pid": enclave.process.pid,
        "mr_enclave": enclave.launchable.mr_enclave.hex(),
        "running": enclave.running,
        "exit_status": enclave.exit_status,
    }


if __name__ == "__main__":
    sys.exit(main())
