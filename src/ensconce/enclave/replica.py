"""The program inside the enclave: get keys, open models, serve predictions.

Run as ``python -m ensconce.enclave.replica enclave/server.json``, with argv and environment as the signed manifest has
them. Its folder holds ``enclave/`` (measured) and ``models/`` (ciphertext); it writes ``ready.json`` there while it
serves. Everything it says is for the host's eyes: one JSON object a line, events on standard output and, when it
fails, ``{"error": ...}`` on standard error with that error's exit status. Never keys, never payloads.

Models, keys and the serving stack are imported only once keys were granted: a replica that gets none has read nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ensconce import platform
from ensconce.enclave.config import ReplicaConfig
from ensconce.errors import EnsconceError, InputError, RefusedError, UnreachableError
from ensconce.evidence.spki import spki_of
from ensconce.servables import MAX_VERSION, key_id

if TYPE_CHECKING:
    from ensconce.provisioning.client import Provisioned
    from ensconce.serving.manager import ModelManager
    from ensconce.serving.server import ModelServer, Ports

__all__ = ["main"]

_MODELS = Path("models")
_READY = Path("ready.json")
# A fixed name, so that a manifest can allow it.
_READY_ASIDE = Path("ready.json.part")
_MAX_VERSIONS = 64
_VERSION = re.compile("[1-9][0-9]{0,9}")
_GRACE_S = 5.0
_RETRY_S = 30.0

T = TypeVar("T")


class _Stop(BaseException):
    """SIGTERM or SIGINT came before there was a loop to take it."""


def main() -> None:
    """Run until SIGTERM; the exit status is 0 then, and that of the error otherwise."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    status = 0
    try:
        if len(sys.argv) != 2:
            raise InputError("replica.argv", "the only argument is the configuration", remedy="start what was signed")
        _READY.unlink(missing_ok=True)
        _run(ReplicaConfig.load(Path(sys.argv[1])))
    except (_Stop, KeyboardInterrupt):
        pass
    except EnsconceError as error:
        status = _fail(error)
    except Exception as error:  # The message may quote a request or a model, so only its kind is told.
        status = _fail(EnsconceError("replica.bug", "the server failed in a way nobody foresaw", found=_where(error)))
    _READY.unlink(missing_ok=True)
    _tell("stopped", status=status)
    # Threads of the serving stack, or a renewal under way, have nothing left to finish.
    sys.stderr.flush()
    os._exit(status)


def _run(config: ReplicaConfig) -> None:
    here = platform.current()
    wanted = _versions(config.models)
    _tell("started", platform=here.name, pid=os.getpid(), versions=[f"{name}/{version}" for name, version in wanted])

    def provision() -> Provisioned:
        from ensconce.provisioning.client import provision

        servers = config.provisioning
        return provision(
            servers.servers, servers.server_name, servers.ca_pem.encode(), here.quote, config.domain, wanted
        )

    manager, certificate = _open(wanted, provision(), config.engine.threads or None)
    asyncio.run(_serve(config, manager, certificate, provision))


def _versions(names: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """The versions of our models whose ciphertext the host has laid into ``models/``."""
    found = []
    for name in names:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            entries = _folders(_MODELS / name)
            numbers = sorted(int(path.name) for path in entries)
            found += [(name, number) for number in numbers if number <= MAX_VERSION]
    if not 0 < len(found) <= _MAX_VERSIONS:
        raise InputError(
            "replica.models",
            "there is nothing to serve" if not found else "there are too many versions to serve",
            found=f"{len(found)} versions of {', '.join(names)} in {_MODELS}/",
            rule=f"1 to {_MAX_VERSIONS} folders {_MODELS}/NAME/NUMBER",
            remedy="copy the owner's sealed models here" if not found else "remove versions that are not served",
        )
    return tuple(found)


def _folders(model: Path) -> list[Path]:
    """The folders in a model's folder that are named like versions."""
    try:
        return [path for path in model.iterdir() if _VERSION.fullmatch(path.name) and path.is_dir()]
    except PermissionError as error:
        raise InputError(
            "replica.models",
            f"cannot look into {model}: {error.strerror}",
            remedy="let the replica's user read models/",
        ) from error


def _open(
    wanted: tuple[tuple[str, int], ...], granted: Provisioned, threads: int | None
) -> tuple[ModelManager, _Certificate]:
    """Load every version whose key was granted, in memory; the keys are referred to by nobody afterwards."""
    from ensconce.models.load import open_sealed
    from ensconce.serving.engines.openvino import OpenVinoServable
    from ensconce.serving.manager import ModelManager

    certificate = _Certificate.of(granted)
    for refused, error in sorted(granted.refused.items()):
        _tell("refused", key_id=refused, **error.fields())
    _tell("provisioned", key_ids=sorted(granted.secrets), valid_until=certificate.valid_until)
    manager = ModelManager()
    for name, version in wanted:
        key = granted.secrets.get(key_id(name, version))
        if key is None:
            continue
        start = time.monotonic()
        files = open_sealed(_MODELS, name, version, key)
        manager.add(name, version, OpenVinoServable(files, threads=threads))
        # The engine uses the weights in place; of everything else it has made its own form.
        for path, content in files.items():
            if not path.endswith(".bin"):
                content[:] = bytes(len(content))
        _tell("loaded", model=name, version=version, files=len(files), seconds=round(time.monotonic() - start, 3))
    return manager, certificate


async def _serve(
    config: ReplicaConfig, manager: ModelManager, certificate: _Certificate, provision: Callable[[], Provisioned]
) -> None:
    from ensconce.serving.server import ModelServer

    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    server = ModelServer(
        manager,
        grpc_address=config.listen.grpc,
        rest_address=config.listen.rest,
        private_key_pem=certificate.private_key_pem,
        certificate_chain_pem=certificate.chain_pem,
    )
    ports = await server.start()
    servables = [f"{name}/{version}" for name, version in manager.models()]
    _announce(ports, certificate, servables)
    _tell("ready", grpc=ports.grpc, rest=ports.rest, key_sha256=certificate.key_sha256, servables=servables)
    renewal = asyncio.create_task(_renew(server, ports, servables, certificate, provision))
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait((renewal, stopped), return_when=asyncio.FIRST_COMPLETED)
    _READY.unlink(missing_ok=True)
    await server.stop(_GRACE_S)
    if renewal.done():
        renewal.result()


async def _renew(
    server: ModelServer,
    ports: Ports,
    servables: list[str],
    certificate: _Certificate,
    provision: Callable[[], Provisioned],
) -> None:
    """Ask for a new certificate, for a new key, at two thirds of the old one's life; end only by an error.

    The owner appraises this enclave anew each time. If she no longer grants what is served here, the replica ends:
    that is how a retired version disappears from replicas that run.
    """
    while True:
        await asyncio.sleep(max(0.0, (certificate.valid_until - time.time()) * 2 / 3))
        try:
            granted = await _in_thread(provision)
        except EnsconceError as error:
            # Who answers in the owner's place has no more say in whether this replica lives than who keeps silent.
            unheard = isinstance(error, UnreachableError) or error.check == "provisioning.server_certificate"
            if not unheard or time.time() >= certificate.valid_until:
                raise
            _tell("renewal failed", **error.fields())
            await asyncio.sleep(min(_RETRY_S, max(1.0, (certificate.valid_until - time.time()) / 4)))
            continue
        missing = sorted({f"model/{servable}" for servable in servables} - set(granted.secrets))
        if missing:
            reason = granted.refused[missing[0]]
            raise RefusedError(
                reason.check,
                f"the owner no longer grants what is served here: {reason.problem}",
                found=", ".join(missing),
                rule=reason.rule,
                remedy="start the replica again: it then serves what is granted",
            )
        certificate = _Certificate.of(granted)
        del granted  # It holds keys, and the next renewal is hours away.
        server.replace_certificate(certificate.private_key_pem, certificate.chain_pem)
        _announce(ports, certificate, servables)
        _tell("renewed", key_sha256=certificate.key_sha256, valid_until=certificate.valid_until)


@dataclass(frozen=True, repr=False)
class _Certificate:
    """A serving certificate and its key."""

    private_key_pem: bytes
    chain_pem: bytes
    key_sha256: str
    valid_until: int

    @classmethod
    def of(cls, granted: Provisioned) -> _Certificate:
        leaf = x509.load_pem_x509_certificates(granted.certificate_chain)[0]
        return cls(
            granted.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            granted.certificate_chain,
            hashlib.sha256(spki_of(granted.private_key.public_key())).hexdigest(),
            int(leaf.not_valid_after_utc.timestamp()),
        )


def _announce(ports: Ports, certificate: _Certificate, servables: list[str]) -> None:
    """Write ``ready.json``: advice to whoever routes requests, and proof of nothing."""
    ready = {"grpc": ports.grpc, "rest": ports.rest, "key_sha256": certificate.key_sha256, "servables": servables}
    _READY_ASIDE.write_text(json.dumps(ready))
    _READY_ASIDE.replace(_READY)


def _tell(event: str, **fields: Any) -> None:
    print(json.dumps({"time": round(time.time(), 3), "event": event, **fields}), flush=True)  # noqa: T201 - its log


def _fail(error: EnsconceError) -> int:
    print(json.dumps({"error": error.fields()}), file=sys.stderr, flush=True)  # noqa: T201 - its last words
    return error.exit_status


def _where(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "nowhere"
    return f"{type(error).__name__} at {place}"


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise _Stop


async def _in_thread(function: Callable[[], T]) -> T:
    """Run ``function`` in a thread that nobody waits for when the process ends, unlike the executor's."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # a T: without an error there is one

    def work() -> None:
        try:
            result, error = function(), None
        except BaseException as caught:
            result, error = None, caught
        with contextlib.suppress(RuntimeError):  # The loop has ended.
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, daemon=True, name="renewal").start()
    return await future


if __name__ == "__main__":
    main()
