"""HashiCorp Vault, or OpenBao, as the service that wraps the root key: the transit secrets engine.

API: ``POST /v1/<mount>/encrypt/<key>`` and ``/decrypt/<key>``, ``GET /v1/auth/token/lookup-self``,
``POST /v1/auth/token/renew-self`` (Vault's HTTP API documentation, "Transit" and "Token"). The key must be of an AEAD
type, such as ``aes256-gcm96``: what the root key is for goes in as associated data. Vault keeps several versions of a
key; a wrapped key names its own (``vault:v3:...``), and a new root key is wrapped by the newest.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import os
import ssl
import stat
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import httpx

from ensconce.errors import EnsconceError, InputError, IntegrityError, UnreachableError
from ensconce.keys.memory import SecretBuffer
from ensconce.keys.unlock import ROOT_KEY_SIZE, Sort

__all__ = ["VaultTransit"]

_log = logging.getLogger(__name__)

_MAX_ANSWER = 64 * 1024
_MAX_TOKEN = 8 * 1024
_MAX_WRAPPED = 8192
_SHOWN = 300
_TIMEOUT_S = 10.0
_TOTAL_S = 30.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
# How Vault says that a ciphertext is not one of this key's, or was changed (statuses are all 400).
_DAMAGED = ("message authentication failed", "invalid ciphertext", "unable to decrypt")
_VERSION = ("version is disallowed by policy", "version is too new")


@dataclass(frozen=True)
class VaultTransit:
    """A transit key of a Vault server.

    Attributes:
        address: ``https://HOST:PORT``; ``http`` only to this machine, because the token travels with each question.
        key: the key's name.
        token_file: holds the token, alone on its line; read anew each time, so that an agent may replace it.
        mount: where the engine is mounted.
        ca_file: PEM of the authorities to expect the server's certificate from, instead of the system's.
        namespace: of Vault Enterprise or OpenBao; None for the root.
    """

    address: str
    key: str
    token_file: Path
    mount: str = "transit"
    ca_file: Path | None = None
    namespace: str | None = None

    @property
    def sort(self) -> Sort:
        """Vault."""
        return Sort.VAULT

    def wrap(self, root: SecretBuffer, binding: Mapping[str, str]) -> str:
        """As :meth:`~ensconce.keys.unlock.KeyService.wrap`; the newest version of the key wraps.

        Raises:
            InputError: ``vault.address``, ``vault.ca_file``, ``vault.token_file``, ``vault.token``,
                ``vault.permission``, ``vault.mount``, ``vault.key``, ``vault.request``.
            UnreachableError: ``vault.unreachable``, ``vault.tls``, ``vault.sealed``, ``vault.standby``,
                ``vault.busy``, ``vault.failed``, ``vault.answer``.
        """
        return asyncio.run(self._wrap(root, binding))

    async def _wrap(self, root: SecretBuffer, binding: Mapping[str, str]) -> str:
        question = {"plaintext": base64.b64encode(root.view).decode(), "associated_data": _associated(binding)}
        async with _Session(self) as session:
            wrapped = _text(await session.ask("POST", f"{self.mount}/encrypt/{self.key}", question), "ciphertext")
        if not (
            wrapped.isascii() and wrapped.isprintable() and 0 < len(wrapped) <= _MAX_WRAPPED and " " not in wrapped
        ):
            raise _answer("it gave no ciphertext", f"{len(wrapped)} characters")
        return wrapped

    def unwrap(self, wrapped: str, binding: Mapping[str, str]) -> SecretBuffer:
        """As :meth:`~ensconce.keys.unlock.KeyService.unwrap`; then renews the token if it is past half its life.

        Raises:
            InputError, UnreachableError: as :meth:`wrap`; ``vault.key_version``: the key's version that wrapped it may
                not unwrap any more.
            IntegrityError: ``vault.ciphertext``: it is damaged, or was wrapped by another key or for something else.
        """
        return asyncio.run(self._unwrap(wrapped, binding))

    async def _unwrap(self, wrapped: str, binding: Mapping[str, str]) -> SecretBuffer:
        question = {"ciphertext": wrapped, "associated_data": _associated(binding)}
        async with _Session(self) as session:
            plaintext = _text(await session.ask("POST", f"{self.mount}/decrypt/{self.key}", question), "plaintext")
            try:
                root = bytearray(base64.b64decode(plaintext, validate=True))
            except binascii.Error:
                root = bytearray()
            if len(root) != ROOT_KEY_SIZE:
                raise _answer("what it unwrapped is no root key", f"{len(root)} bytes")
            buffer = SecretBuffer.of(root)
            await session.renew()
        return buffer


class _Session:
    """A few questions over one connection, with the token of the moment."""

    def __init__(self, vault: VaultTransit) -> None:
        self._vault = vault
        self._until = asyncio.get_running_loop().time() + _TOTAL_S
        headers = {
            "X-Vault-Token": _read_token(vault.token_file),
            "X-Vault-Request": "true",
            "Accept-Encoding": "identity",
        }
        if vault.namespace is not None:
            headers["X-Vault-Namespace"] = vault.namespace
        # Without trust_env: a proxy that the environment names is nobody that the owner chose.
        self._client = httpx.AsyncClient(
            base_url=_base(vault.address),
            verify=_tls(vault.ca_file),
            headers=headers,
            timeout=_TIMEOUT_S,
            trust_env=False,
            follow_redirects=False,
        )

    async def __aenter__(self) -> _Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def ask(self, method: str, path: str, question: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The ``data`` of a good answer; every other is an error that says what to do."""
        status, answer = await self._exchange(method, path, question)
        if status == 200:
            data = answer.get("data")
            return data if isinstance(data, dict) else {}
        said = answer.get("errors")
        words = "; ".join(map(str, said))[:_SHOWN] if isinstance(said, list) else ""
        if status == 403 and path != "auth/token/lookup-self":
            await self._refused(path, words)
        raise _refusal(status, words, self._vault, path)

    async def renew(self) -> None:
        """Ask for a longer life of a token that is past half of it; that it cannot be had is worth a warning only."""
        try:
            token = await self.ask("GET", "auth/token/lookup-self")
            life, left = token.get("creation_ttl"), token.get("ttl")
            if token.get("renewable") is True and type(life) is int and type(left) is int and left < life / 2:
                await self.ask("POST", "auth/token/renew-self")
        except EnsconceError as error:
            _log.warning("the Vault token could not be looked up or renewed: %s", error)

    async def _refused(self, path: str, words: str) -> NoReturn:
        # Vault says the same to a token that it does not know and to one that may not: ask which.
        try:
            await self.ask("GET", "auth/token/lookup-self")
        except InputError as error:
            if error.check != "vault.permission":
                raise
            raise InputError(
                "vault.token",
                "Vault does not know the token: it is wrong, expired or revoked",
                found=f"the token in {self._vault.token_file}",
                remedy="put a new one there, or let Vault Agent keep it",
            ) from None
        raise _refusal(403, words, self._vault, path)

    async def _exchange(self, method: str, path: str, question: Mapping[str, str] | None) -> tuple[int, dict[str, Any]]:
        url = "/v1/" + urllib.parse.quote(path)
        try:
            # A limit on each read alone would let a server keep us for ever, byte by byte.
            async with asyncio.timeout_at(self._until), self._client.stream(method, url, json=question) as response:
                body = bytearray()
                async for chunk in response.aiter_raw():  # unpacked, a small answer could be endless
                    body += chunk
                    if len(body) > _MAX_ANSWER:
                        raise _answer("its answer is too long", f"more than {_MAX_ANSWER} bytes")
                status = response.status_code
        except TimeoutError:
            raise _unreachable(httpx.ReadTimeout("the whole answer takes too long"), self._vault) from None
        except httpx.HTTPError as error:
            raise _unreachable(error, self._vault) from None
        if status == 204:
            return 200, {}
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            if status == 200:
                raise _answer("its answer is not Vault's", f"{len(body)} bytes")
            answer = {}
        return status, answer


def _refusal(status: int, words: str, vault: VaultTransit, path: str) -> EnsconceError:
    found = f"status {status}" + (f": {words}" if words else "")
    if status == 503 and "sealed" in words:
        return UnreachableError("vault.sealed", "Vault is sealed", found=found, remedy="let its operators unseal it")
    if status in (307, 308, 472, 473):
        return UnreachableError(
            "vault.standby", f"{vault.address} is a standby", found=found, remedy="name the active server's address"
        )
    if status == 429:
        return UnreachableError("vault.busy", "Vault has too many questions", found=found, remedy="try again later")
    if status >= 500:
        return UnreachableError("vault.failed", "Vault cannot answer", found=found, remedy="read the server's log")
    if status == 403:
        return InputError(
            "vault.permission",
            "the token may not do this",
            found=found,
            rule=f'path "{path}" {{ capabilities = ["update"] }}',
            remedy="give its policy this path",
        )
    if status == 404:
        return InputError(
            "vault.mount",
            "Vault has nothing at this path",
            found=f"{path}, {found}",
            remedy="check the mount, and the namespace; `vault secrets enable transit` mounts the engine",
        )
    if "key not found" in words:
        return InputError(
            "vault.key", f"Vault has no transit key {vault.key}", found=found, remedy=f"vault write -f {path}"
        )
    if any(each in words for each in _VERSION):
        return InputError(
            "vault.key_version",
            "the version of the Vault key that wrapped the keystore's root key may not unwrap it",
            found=found,
            remedy="lower the key's min_decryption_version, run `ensconce key rewrap`, and raise it again",
        )
    if "/decrypt/" in path and any(each in words for each in _DAMAGED):
        return IntegrityError(
            "vault.ciphertext",
            "Vault cannot unwrap the keystore's root key: it is damaged, or was wrapped by another key",
            found=found,
            remedy="check mount and key; restore the keystore from a backup",
        )
    return InputError(
        "vault.request", "Vault refuses the question", found=found, remedy="use a key of type aes256-gcm96, not derived"
    )


def _unreachable(error: httpx.HTTPError, vault: VaultTransit) -> UnreachableError:
    # Who waits in vain has ssl.SSLWantReadError among the causes.
    cause: BaseException | None = None if isinstance(error, httpx.TimeoutException) else error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLError):
        reason = getattr(cause, "verify_message", "") or cause.reason or type(cause).__name__
        return UnreachableError(
            "vault.tls",
            f"no trusted TLS connection to {vault.address}",
            found=str(reason)[:_SHOWN],
            remedy="check the address; give the authority of its certificate as ca_file",
        )
    return UnreachableError(
        "vault.unreachable",
        f"{vault.address} does not answer",
        found=f"{type(error).__name__}: {error}"[:_SHOWN],
        remedy="check the address, and that Vault runs",
    )


def _answer(problem: str, found: str) -> UnreachableError:
    return UnreachableError(
        "vault.answer", f"Vault did not answer as it should: {problem}", found=found, remedy="check the address"
    )


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str):
        raise _answer(f"there is no {name}", f"{type(value).__name__}")
    return value


def _associated(binding: Mapping[str, str]) -> str:
    text = json.dumps(dict(binding), sort_keys=True, separators=(",", ":"))
    return base64.b64encode(text.encode("ascii")).decode()


def _base(address: str) -> str:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        url = httpx.URL("")
    safe = url.scheme == "https" or (url.scheme == "http" and url.host in _LOOPBACK)
    if (
        not safe
        or not url.host
        or not 0 < (url.port or 443) < 1 << 16
        or url.path not in ("", "/")
        or url.query
        or url.fragment
        or url.userinfo
    ):
        raise InputError(
            "vault.address",
            "this is no address of a Vault server",
            found=ascii(address)[:_SHOWN],
            rule="https://HOST:PORT; http:// only to this machine, because the token travels with each question",
            remedy="correct it in ensconce.yaml",
        )
    return str(url)


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            "vault.ca_file",
            f"cannot use {ca_file} as the authorities of Vault's certificate",
            found=error.strerror or type(error).__name__,
            rule="a PEM file of certificates",
            remedy="check the path",
        ) from None


def _read_token(path: Path) -> str:
    problem, remedy, data = None, "check the path, and what writes the token there", b""
    try:
        # O_NONBLOCK: a FIFO in the file's place must not hang us. The checks are made on what was opened.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                problem = "it is not a regular file"
            elif status.st_mode & 0o027:
                # Vault Agent's own default is 0640.
                problem, remedy = (
                    f"others can read or write it, mode {stat.S_IMODE(status.st_mode):04o}",
                    f"chmod 600 {path}",
                )
            else:
                data = os.read(handle, _MAX_TOKEN + 1).strip()
        finally:
            os.close(handle)
    except OSError as error:
        problem = error.strerror
    if problem is None and not (0 < len(data) <= _MAX_TOKEN and all(0x21 <= each <= 0x7E for each in data)):
        problem = "it holds no token"
    if problem is not None:
        raise InputError("vault.token_file", f"cannot use the token file {path}: {problem}", remedy=remedy)
    return data.decode("ascii")
