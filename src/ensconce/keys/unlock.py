"""What opens a sealed keystore: a passphrase, a key file, or a service that unwraps the keystore's root key.

A passphrase (scrypt) and a key file (HKDF) give the sealing keys themselves. A key service keeps a key of its own and
wraps a random 32-byte root key with it: the keystore's header holds the wrapped root key, and whoever opens the
keystore asks the service to unwrap it (envelope encryption).
"""

from __future__ import annotations

import os
import secrets
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ensconce.errors import InputError
from ensconce.files import write_aside
from ensconce.keys.memory import SecretBuffer

__all__ = [
    "ROOT_KEY_SIZE",
    "KeyFile",
    "KeyService",
    "Passphrase",
    "RootKey",
    "ScryptCost",
    "SealKeys",
    "Sort",
    "Unlock",
    "check_new_passphrase",
    "from_key_file",
    "from_passphrase",
    "from_root_key",
    "new_key_file",
    "sort_of",
]

ROOT_KEY_SIZE = 32
"""Size in bytes of the key that a service wraps, or that shares are made of."""
_KEY_FILE_SIZE = 32
_MIN_PASSPHRASE = 8
_MAX_PASSPHRASE = 1024
_KEY_FILE_INFO = b"ensconce keystore 1: key file"
_ROOT_KEY_INFO = b"ensconce keystore 2: root key"


class Sort(IntEnum):
    """What opens a keystore, as its header says."""

    PASSPHRASE = 1
    KEY_FILE = 2
    VAULT = 3
    AWS_KMS = 4
    SHARES = 5

    @property
    def words(self) -> str:
        """For sentences: what is needed."""
        return {
            Sort.PASSPHRASE: "a passphrase",
            Sort.KEY_FILE: "a key file",
            Sort.VAULT: "HashiCorp Vault",
            Sort.AWS_KMS: "AWS KMS",
            Sort.SHARES: "the shares of a backup",
        }[self]


@dataclass(frozen=True)
class Passphrase:
    """A passphrase; it is normalised (Unicode NFC, UTF-8), so that it opens the keystore from any keyboard."""

    text: str = field(repr=False)


@dataclass(frozen=True)
class KeyFile:
    """A file of exactly 32 raw bytes that only its owner can read (mode 0600 or stricter).

    While it is being replaced, its successor lies beside it, at ``successor``, and either may be the one that opens.
    """

    path: Path

    @property
    def successor(self) -> Path:
        """Where the next key file waits until the keystore is sealed under it."""
        return self.path.with_name(f"{self.path.name}.next")


@dataclass(frozen=True)
class RootKey:
    """The root key itself, 32 bytes, put together from a backup's shares."""

    key: SecretBuffer = field(repr=False)


class KeyService(Protocol):
    """A service that wraps and unwraps root keys with a key that never leaves it."""

    @property
    def sort(self) -> Sort:
        """Which one it is."""

    def wrap(self, root: SecretBuffer, binding: Mapping[str, str]) -> str:
        """The root key, wrapped; printable ASCII.

        Args:
            root: 32 bytes.
            binding: what the wrapped key is for; the same must be given to unwrap it. Not secret.

        Raises:
            InputError: the service's name, key or credentials are wrong.
            UnreachableError: it does not answer, or answers that it cannot work now.
        """

    def unwrap(self, wrapped: str, binding: Mapping[str, str]) -> SecretBuffer:
        """The root key again, in a buffer that the caller wipes.

        Raises:
            InputError, UnreachableError: as :meth:`wrap`.
            IntegrityError: the wrapped key is damaged, or was wrapped by another key or for something else.
        """


Unlock = Passphrase | KeyFile | KeyService | RootKey


def sort_of(unlock: Unlock) -> Sort:
    """Which sort of unlock this is."""
    if isinstance(unlock, Passphrase):
        return Sort.PASSPHRASE
    if isinstance(unlock, KeyFile):
        return Sort.KEY_FILE
    if isinstance(unlock, RootKey):
        return Sort.SHARES
    return unlock.sort


@dataclass(frozen=True)
class ScryptCost:
    """Parameters of scrypt (RFC 7914); memory is 128 * r * 2**log2_n bytes."""

    log2_n: int
    r: int
    p: int


@dataclass(frozen=True)
class SealKeys:
    """What the unlocking secret derives to, 64 bytes in locked memory: the sealing key, then the confirming key."""

    both: SecretBuffer = field(repr=False)

    @property
    def seal(self) -> memoryview:
        """The AES-256-GCM key."""
        return self.both.view[:32]

    @property
    def confirm(self) -> memoryview:
        """The key that confirms that the secret is right."""
        return self.both.view[32:]


def new_key_file(path: Path) -> KeyFile:
    """Make a key file with 32 fresh random bytes, mode 0600.

    Raises:
        InputError: ``keystore.key_file`` when something is at ``path`` already, or the file cannot be written.
    """
    if path.exists() or path.is_symlink():
        raise InputError(
            "keystore.key_file",
            f"{path} exists already",
            rule="a key file is never overwritten: what it opens would be lost",
            remedy="choose another path",
        )
    write_aside(path, secrets.token_bytes(_KEY_FILE_SIZE), mode=0o600)
    return KeyFile(path)


def check_new_passphrase(passphrase: Passphrase) -> None:
    """Refuse a passphrase that scrypt cannot save.

    Raises:
        InputError: ``keystore.passphrase``.
    """
    if len(passphrase.text) < _MIN_PASSPHRASE:
        raise InputError(
            "keystore.passphrase",
            "the passphrase is too short",
            found=f"{len(passphrase.text)} characters",
            rule=f"at least {_MIN_PASSPHRASE} characters",
            remedy="use several words",
        )


def from_passphrase(passphrase: Passphrase, salt: bytes, cost: ScryptCost) -> SealKeys:
    """Derive the keys of a keystore from its passphrase.

    Args:
        passphrase: what the owner typed.
        salt: 32 bytes from the keystore's header.
        cost: scrypt's parameters, already bounded by the caller.

    Raises:
        InputError: ``keystore.passphrase``: too long, or not text.
    """
    keys = SealKeys(SecretBuffer(64))
    with SecretBuffer.of(bytearray(_passphrase_bytes(passphrase))) as data:
        Scrypt(salt=salt, length=64, n=1 << cost.log2_n, r=cost.r, p=cost.p).derive_into(data.view, keys.both.view)
    return keys


def from_key_file(file: KeyFile, salt: bytes) -> Iterator[SealKeys]:
    """The keys of a keystore that the key file's successor opens, where there is one, then those of the file itself.

    In this order, because a successor that has just gone has become the file.

    Raises:
        InputError: ``keystore.key_file``, ``keystore.permissions``: it cannot be used.
    """
    found = False
    for path in (file.successor, file.path):
        secret = _read_key_file(path)
        if secret is not None:
            found = True
            with SecretBuffer.of(secret) as data:
                keys = _expand(data, salt, _KEY_FILE_INFO)
            yield keys
    if not found:
        raise InputError(
            "keystore.key_file",
            f"there is no key file {file.path}",
            remedy="check the path; if the file is lost, recover the keys from a backup",
        )


def from_root_key(root: SecretBuffer, salt: bytes) -> SealKeys:
    """The keys of a keystore whose root key is known."""
    return _expand(root, salt, _ROOT_KEY_INFO)


def _expand(secret: SecretBuffer, salt: bytes, info: bytes) -> SealKeys:
    keys = SealKeys(SecretBuffer(64))
    HKDF(SHA256(), length=64, salt=salt, info=info).derive_into(secret.view, keys.both.view)
    return keys


def _passphrase_bytes(passphrase: Passphrase) -> bytes:
    problem = None
    data = b""
    if len(passphrase.text) > _MAX_PASSPHRASE:
        problem = f"the passphrase is longer than {_MAX_PASSPHRASE} characters"
    else:
        try:
            data = unicodedata.normalize("NFC", passphrase.text).encode()
        except UnicodeEncodeError:
            problem = "the passphrase is not valid Unicode text"
    # Raised out here, because a UnicodeEncodeError carries the passphrase and would travel as the cause.
    if problem is not None:
        raise InputError("keystore.passphrase", problem, remedy="check what was typed or piped in")
    return data


def _read_key_file(path: Path) -> bytearray | None:
    try:
        # O_NONBLOCK: a FIFO in the file's place must not hang us. The checks are made on what was opened.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(
            "keystore.key_file",
            f"cannot open the key file {path}: {error.strerror}",
            remedy="check the path and its permissions",
        ) from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise InputError("keystore.key_file", f"{path} is not a regular file", remedy="check the path")
        if status.st_mode & 0o077:
            raise InputError(
                "keystore.permissions",
                f"others can read or write the key file {path}",
                found=f"mode {stat.S_IMODE(status.st_mode):04o}",
                rule="mode 0600 or stricter",
                remedy=f"chmod 600 {path}",
            )
        data = bytearray(_KEY_FILE_SIZE + 1)
        size = os.readv(handle, [data])
    finally:
        os.close(handle)
    if size != _KEY_FILE_SIZE:
        raise InputError(
            "keystore.key_file",
            f"{path} is not a key file",
            found=f"{size} bytes" if size <= _KEY_FILE_SIZE else f"more than {_KEY_FILE_SIZE} bytes",
            rule=f"{_KEY_FILE_SIZE} raw bytes",
            remedy="check that this is the right file",
        )
    del data[_KEY_FILE_SIZE:]
    return data
