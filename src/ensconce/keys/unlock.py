"""What opens a sealed keystore file: a passphrase through scrypt, or a file of 32 random bytes."""

from __future__ import annotations

import os
import secrets
import stat
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ensconce.errors import InputError
from ensconce.files import write_aside

__all__ = [
    "KEY_FILE_SIZE",
    "KeyFile",
    "Passphrase",
    "ScryptCost",
    "SealKeys",
    "Unlock",
    "check_new_passphrase",
    "derive",
    "new_key_file",
]

KEY_FILE_SIZE = 32
MIN_PASSPHRASE = 8
MAX_PASSPHRASE = 1024
"""Longest passphrase, in characters."""
_KEY_FILE_INFO = b"ensconce keystore 1: key file"


@dataclass(frozen=True)
class Passphrase:
    """A passphrase; it is normalised (Unicode NFC, UTF-8), so that it opens the keystore from any keyboard."""

    text: str = field(repr=False)


@dataclass(frozen=True)
class KeyFile:
    """A file of exactly 32 raw bytes that only its owner can read (mode 0600 or stricter)."""

    path: Path


Unlock = Passphrase | KeyFile


@dataclass(frozen=True)
class ScryptCost:
    """Parameters of scrypt (RFC 7914); memory is 128 * r * 2**log2_n bytes."""

    log2_n: int
    r: int
    p: int


@dataclass(frozen=True)
class SealKeys:
    """What the unlocking secret derives to: the AES-256-GCM key, and the key that confirms the secret is right."""

    seal: bytes = field(repr=False)
    confirm: bytes = field(repr=False)


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
    write_aside(path, secrets.token_bytes(KEY_FILE_SIZE), mode=0o600)
    return KeyFile(path)


def check_new_passphrase(passphrase: Passphrase) -> None:
    """Refuse a passphrase that scrypt cannot save.

    Raises:
        InputError: ``keystore.passphrase``.
    """
    if len(passphrase.text) < MIN_PASSPHRASE:
        raise InputError(
            "keystore.passphrase",
            "the passphrase is too short",
            found=f"{len(passphrase.text)} characters",
            rule=f"at least {MIN_PASSPHRASE} characters",
            remedy="use several words",
        )


def derive(unlock: Unlock, salt: bytes, cost: ScryptCost | None) -> SealKeys:
    """Derive the two keys of a keystore file from what opens it.

    Args:
        unlock: the passphrase or key file.
        salt: 32 bytes from the keystore's header.
        cost: scrypt's parameters for a passphrase, already bounded by the caller; None for a key file.

    Raises:
        InputError: the key file cannot be read, is readable by others, or has the wrong size; the passphrase is too
            long or not text; or ``unlock`` is of the other sort than the keystore.
    """
    if isinstance(unlock, Passphrase):
        if cost is None:
            raise _wrong_sort("a key file", "a passphrase")
        data = _passphrase_bytes(unlock)
        both = Scrypt(salt=salt, length=64, n=1 << cost.log2_n, r=cost.r, p=cost.p).derive(data)
    else:
        if cost is not None:
            raise _wrong_sort("a passphrase", "a key file")
        both = HKDF(SHA256(), length=64, salt=salt, info=_KEY_FILE_INFO).derive(_read_key_file(unlock.path))
    return SealKeys(seal=both[:32], confirm=both[32:])


def _wrong_sort(needed: str, given: str) -> InputError:
    return InputError(
        "keystore.unlock", f"this keystore is opened by {needed}, not by {given}", remedy=f"give it {needed}"
    )


def _passphrase_bytes(passphrase: Passphrase) -> bytes:
    problem = None
    data = b""
    if len(passphrase.text) > MAX_PASSPHRASE:
        problem = f"the passphrase is longer than {MAX_PASSPHRASE} characters"
    else:
        try:
            data = unicodedata.normalize("NFC", passphrase.text).encode()
        except UnicodeEncodeError:
            problem = "the passphrase is not valid Unicode text"
    # Raised out here, because a UnicodeEncodeError carries the passphrase and would travel as the cause.
    if problem is not None:
        raise InputError("keystore.passphrase", problem, remedy="check what was typed or piped in")
    return data


def _read_key_file(path: Path) -> bytes:
    try:
        # O_NONBLOCK: a FIFO in the file's place must not hang us. The checks are made on what was opened.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
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
        data = os.read(handle, KEY_FILE_SIZE + 1)
    finally:
        os.close(handle)
    if len(data) != KEY_FILE_SIZE:
        raise InputError(
            "keystore.key_file",
            f"{path} is not a key file",
            found=f"{len(data)} bytes" if len(data) <= KEY_FILE_SIZE else f"more than {KEY_FILE_SIZE} bytes",
            rule=f"{KEY_FILE_SIZE} raw bytes",
            remedy="check that this is the right file",
        )
    return data
