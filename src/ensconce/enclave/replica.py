"""The program inside the enclave: get keys, open models, serve predictions.

Run as ``python -m ensconce.enclave.replica enclave/server.json``, with argv and environment as the signed manifest has
them. Its folder holds ``enclave/`` (measured) and ``models/`` (ciphertext); it writes ``ready.json`` there while it
serves, and ends with the exit status of the error that it tells last (:mod:`ensconce.enclave.telling`). While it
serves, it looks for versions that the host lays beside those that are there (:mod:`ensconce.enclave.versions`).

Models, keys and the serving stack are imported only once keys were granted: a replica that gets none has read nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ensconce import platform
from ensconce.enclave.asking import until_answered
from ensconce.enclave.config import MAX_LOADED, ModelConfig, ReplicaConfig
from ensconce.enclave.present import choose, folders
from ensconce.enclave.telling import Telling, kind, tell, tell_error, tell_unexpected
from ensconce.errors import EnsconceError, InputError, RefusedError, UnreachableError
from ensconce.evidence.spki import spki_of
from ensconce.provisioning.threads import Threads
from ensconce.servables import key_id

if TYPE_CHECKING:
    from ensconce.provisioning.client import Provisioned
    from ensconce.serving.fronts import FrontOptions
    from ensconce.serving.server import Ports

__all__ = ["main"]

# Absolute, because the process's working directory is another one while OpenVINO reads a model.
_MODELS = Path("models").absolute()
_READY = Path("ready.json").absolute()
# A fixed name, so that a manifest can allow it.
_READY_ASIDE = Path("ready.json.part").absolute()
_GRACE_S = 5.0
_RETRY_S, _RENEWED, _CHANCE = 30.0, (0.6, 0.7), random.SystemRandom()

T = TypeVar("T")


class _Stop(BaseException):
    """SIGTERM or SIGINT came before there was a loop to take it."""


def main() -> None:
    """Run until SIGTERM; the exit status is 0 then, and that of the error otherwise."""
    # As the paths above; PYTHONHOME is relative, and modules may be imported at any time.
    sys.path[:] = [os.path.abspath(path) for path in sys.path]  # noqa: PTH100  # strings, as the interpreter wants them
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    logging.basicConfig(level=logging.WARNING, handlers=[Telling()])
    threading.excepthook = sys.unraisablehook = tell_unexpected
    status = 0
    try:
        if len(sys.argv) != 2:
            raise InputError("replica.argv", "the only argument is the configuration", remedy="start what was signed")
        _READY.unlink(missing_ok=True)
        _run(ReplicaConfig.load(Path(sys.argv[1])))
    except (_Stop, KeyboardInterrupt):
        pass
    except EnsconceError as error:
        status = tell_error(error)
    except Exception as error:
        bug = EnsconceError("replica.bug", "the server failed in a way nobody foresaw", found=kind(error))
        status = tell_error(bug)
    _READY.unlink(missing_ok=True)
    tell("stopped", status=status)
    # Threads of the serving stack, or a renewal under way, have nothing left to finish.
    sys.stderr.flush()
    os._exit(status)


def _run(config: ReplicaConfig) -> None:
    here = platform.current()
    servers = config.provisioning

    def provision(wanted: Sequence[tuple[str, int]]) -> Provisioned:
        from ensconce.provisioning.client import provision

        return provision(
            servers.servers, servers.server_name, servers.ca_pem.encode(), here.quote, config.domain, wanted
        )

    every = _versions(config.models)
    wanted = [
        (model.name, number)
        for model in config.models
        for number in sorted(choose(model, [number for name, number in every if name == model.name], ()))
    ]
    tell("started", platform=here.name, pid=os.getpid(), versions=[f"{name}/{version}" for name, version in wanted])
    # Nothing here has a name for what is granted: it holds keys, and this runs as long as the replica.
    _Replica(config, provision, here.quote).run(_granted(provision, wanted, every))


def _granted(
    provision: Callable[[Sequence[tuple[str, int]]], Provisioned],
    wanted: Sequence[tuple[str, int]],
    every: Sequence[tuple[str, int]],
) -> Provisioned:
    try:
        return until_answered(lambda: provision(wanted))
    except RefusedError:
        if wanted == every:
            raise
    # Perhaps the newest versions have been retired, and older ones are what the owner means to have served.
    return until_answered(lambda: provision(every))


def _versions(models: tuple[ModelConfig, ...]) -> list[tuple[str, int]]:
    """The versions of our models whose ciphertext the host has laid into ``models/``, of all that may be served."""
    found = []
    for model in models:
        specific = model.versions.specific if model.versions is not None else None
        numbers = sorted(folders(_MODELS / model.name))
        found += [(model.name, number) for number in numbers if specific is None or number in specific]
    if not 0 < len(found) <= MAX_LOADED:
        raise InputError(
            "replica.models",
            "there is nothing to serve" if not found else "there are too many versions to serve",
            found=f"{len(found)} versions of {', '.join(model.name for model in models)} in models/",
            rule=f"1 to {MAX_LOADED} folders models/NAME/NUMBER",
            remedy="copy the owner's sealed models here" if not found else "remove versions that are not served",
        )
    return found


class _Replica:
    """What serves, and what is known of it outside."""

    def __init__(
        self,
        config: ReplicaConfig,
        provision: Callable[[Sequence[tuple[str, int]]], Provisioned],
        quote: Callable[[bytes], bytes],
    ) -> None:
        # Only now, because keys were granted.
        from ensconce.enclave.versions import Versions
        from ensconce.serving.manager import ModelManager
        from ensconce.serving.metrics import Metrics

        self._config = config
        self._provision, self._quote = provision, quote
        self._manager = ModelManager()
        self._metrics = Metrics() if config.serving.metrics_path is not None else None
        self._versions = Versions(
            _MODELS,
            config.models,
            config.engine,
            self._manager,
            self._ask,
            tell,
            around=self._metrics.counting if self._metrics is not None else lambda loader: loader,
        )
        self._announced: dict[str, Any] = {}
        self._ports: Ports | None = None
        # Of these, unlike the executor's, nobody waits for one when the process ends.
        self._renewals, self._reloads = Threads(1, "renewal"), Threads(1, "reload")

    def run(self, granted: Provisioned) -> None:
        """Load what was granted, and serve until told to stop."""
        self._certificate = _Certificate.of(granted)
        for refused, error in sorted(granted.refused.items()):
            tell("refused", key_id=refused, **error.fields())
        tell("provisioned", key_ids=sorted(granted.secrets), valid_until=self._certificate.valid_until)
        self._versions.start(_by_version(granted.secrets), _by_version(granted.refused))
        del granted  # It holds keys.
        labels = {model.name: model.labels for model in self._config.models if model.labels}
        self._manager.label(labels, allow_unavailable=True)
        asyncio.run(self._serve())

    def _ask(self, name: str, number: int) -> bytes:
        """The key of a version, from the owner, over a session of its own. Its certificate is nobody's."""
        key = key_id(name, number)
        secret = self._provision([(name, number)]).secrets[key]
        tell("granted", key_id=key)
        return secret

    def _options(self) -> FrontOptions:
        from ensconce.serving.fronts import FrontOptions
        from ensconce.serving.quotes import Quotes
        from ensconce.serving.rest import RestOptions
        from ensconce.serving.sealing import Sealing

        serving = self._config.serving
        sealed = serving.sealed_bodies
        return FrontOptions(
            batching=serving.batching.parameters() if serving.batching is not None else None,
            merge=serving.merge,
            rest=RestOptions(metrics_path=serving.metrics_path),
            reload=self._reload if serving.allow_reload else None,
            metrics=self._metrics,
            quotes=Quotes(self._quote),
            sealing=Sealing(required=sealed == "required") if sealed is not None else None,
        )

    async def _serve(self) -> None:
        from ensconce.serving.signals import told_to_end

        loop, stopped, looking = asyncio.get_running_loop(), told_to_end(), threading.Event()
        self._ports = await self._start()
        self._announce()
        tell("ready", **self._announced)
        self._follow(loop, looking)
        renewal = asyncio.create_task(self._renew())
        await asyncio.wait((renewal, stopped), return_when=asyncio.FIRST_COMPLETED)
        looking.set()
        _READY.unlink(missing_ok=True)
        self._ports = None
        await self._server.stop(_GRACE_S)
        if renewal.done():
            renewal.result()

    async def _start(self) -> Ports:
        """Listen where the configuration says; several replicas on one machine cannot, and take free ports instead."""
        from ensconce.serving.collection import set_aside
        from ensconce.serving.server import ModelServer

        set_aside()

        async def start(grpc: str, rest: str) -> Ports:
            self._server = ModelServer(
                self._manager,
                grpc_address=grpc,
                rest_address=rest,
                private_key_pem=self._certificate.private_key_pem,
                certificate_chain_pem=self._certificate.chain_pem,
                options=self._options(),
            )
            return await self._server.start()

        listen = self._config.listen
        try:
            return await start(listen.grpc, listen.rest)
        except InputError as error:
            if error.check != "serving.port" or not listen.fixed:
                raise
            tell("ports taken", **error.fields())
        return await start(*(f"{address.rpartition(':')[0]}:0" for address in (listen.grpc, listen.rest)))

    def _follow(self, loop: asyncio.AbstractEventLoop, stop: threading.Event) -> None:
        """Look for versions that come, in a thread; loading them is another's."""
        from ensconce.serving.source import every

        def look() -> None:
            self._versions.look()
            with contextlib.suppress(RuntimeError):  # The loop has ended.
                loop.call_soon_threadsafe(self._announce)

        self._versions.follow()
        if self._config.serving.poll_seconds > 0:
            every(self._config.serving.poll_seconds, look, stop, "models")

    def _announce(self) -> None:
        """Write ``ready.json`` where it has changed: advice to whoever routes requests, and proof of nothing."""
        if self._ports is None:
            return
        servables = [f"{name}/{version}" for name, version in self._manager.models()]
        key = self._certificate.key_sha256
        ready = {"grpc": self._ports.grpc, "rest": self._ports.rest, "key_sha256": key, "servables": servables}
        if ready == self._announced:
            return
        if self._announced and servables != self._announced["servables"]:
            tell("serving", servables=servables)
        self._announced = ready
        _READY_ASIDE.write_text(json.dumps(ready))
        _READY_ASIDE.replace(_READY)

    async def _renew(self) -> None:
        """Ask for a new certificate, for a new key, at about two thirds of the old one's life; end only by an error.

        Not exactly, or replicas that began together would come back together for ever. The owner appraises this enclave
        anew each time. A version that she no longer grants is served no more; when she grants none, the replica ends.
        """
        while True:
            valid_until = self._certificate.valid_until
            await asyncio.sleep(max(0.0, (valid_until - time.time()) * _CHANCE.uniform(*_RENEWED)))
            served = self._manager.models()[:MAX_LOADED]
            try:
                granted = await self._renewals.run(self._provision, served)
            except EnsconceError as error:
                # Who answers in the owner's place has no more say in whether this replica lives than who keeps silent.
                unheard = isinstance(error, UnreachableError) or error.check == "provisioning.server_certificate"
                if not unheard or time.time() >= valid_until:
                    raise
                tell("renewal failed", **error.fields())
                await asyncio.sleep(min(_RETRY_S, max(1.0, (valid_until - time.time()) / 4)) * _CHANCE.uniform(0.5, 1))
                continue
            for (name, number), reason in _by_version(granted.refused).items():
                tell("withdrawn", model=name, version=number, **reason.fields())
                self._versions.withdraw(name, number, reason)
            self._certificate = _Certificate.of(granted)
            del granted  # It holds keys, and the next renewal is hours away.
            self._server.replace_certificate(self._certificate.private_key_pem, self._certificate.chain_pem)
            self._announce()
            valid_until = self._certificate.valid_until
            tell("renewed", key_sha256=self._certificate.key_sha256, valid_until=valid_until)

    async def _reload(self, request: Any) -> Any:
        """Change policies and labels of the measured models, because the measured configuration lets clients do so."""
        from ensconce.enclave.reload import models_of
        from ensconce.tfserving.messages import ReloadConfigResponse

        models, labels = models_of(request.config, {model.name: model for model in self._config.models})
        self._manager.label(labels)
        await self._reloads.run(self._versions.serve, models)
        tell("reloaded", models=[model.name for model in models])
        return ReloadConfigResponse()


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


def _by_version(by_key: Mapping[str, T]) -> dict[tuple[str, int], T]:
    """The same by name and version instead of key id."""
    versions = {}
    for key, value in by_key.items():
        _, name, number = key.split("/")
        versions[name, int(number)] = value
    return versions


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise _Stop


if __name__ == "__main__":
    main()
