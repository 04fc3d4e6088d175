"""A backup of a whole keystore: a sealed keystore whose root key exists only in shares.

The file is in the keystore's own format (:mod:`ensconce.keys.sealed`), opened by "the shares of a backup". Its root key
is made for it alone and forgotten.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from ensconce.errors import InputError, IntegrityError
from ensconce.keys.header import Header, Shared, begins_as_keystore, new_salt, parse_header
from ensconce.keys.lock import open_lock
from ensconce.keys.memory import SecretBuffer
from ensconce.keys.sealed import Contents, open_sealed, seal
from ensconce.keys.shares import Shares, combine, split
from ensconce.keys.unlock import ROOT_KEY_SIZE, RootKey, Sort, from_root_key

__all__ = ["Backup", "about_backup", "make_backup", "open_backup"]


@dataclass(frozen=True)
class Backup:
    """A new backup.

    Attributes:
        data: the file; not secret as long as fewer than ``shares.threshold`` shares come together.
        shares: what opens it.
    """

    data: bytes
    shares: Shares


def make_backup(contents: Contents, *, deployment: str, shares: int, threshold: int, now: int) -> Backup:
    """Seal a copy of a keystore's contents under a fresh root key, and split that.

    Args:
        contents: what :meth:`SealedKeystore.contents` yields.
        deployment: the service's domain, which the file names in the clear.
        shares: how many to make.
        threshold: how many open it.
        now: Unix time in seconds.

    Raises:
        InputError: ``backup.shares``.
    """
    with SecretBuffer.of(bytearray(secrets.token_bytes(ROOT_KEY_SIZE))) as root:
        made = split(root, shares, threshold)
        label = Shared(
            deployment=deployment, created=now, identifier=made.identifier, shares=shares, threshold=threshold
        )
        header = Header(Sort.SHARES, None, new_salt(), label)
        backup = Backup(seal(header, from_root_key(root, header.salt), contents), made)
    # A backup that does not open is noticed now, by whoever can make another one; from the last shares as from any.
    with open_backup(backup.data, made.texts[-threshold:]) as again:
        if again.entries() != contents.entries():
            raise IntegrityError("backup.check", "the backup does not hold what it should", remedy="try again")
    return backup


def about_backup(data: bytes) -> Shared:
    """What a backup says of itself without its shares; nobody has vouched for it.

    Raises:
        IntegrityError: ``keystore.format``: it is damaged.
        InputError: ``backup.file``: it is something else; or a keystore, and no backup of one.
    """
    if not begins_as_keystore(data):
        raise InputError(
            "backup.file",
            "this is not a backup",
            found=f"{len(data)} bytes of something else",
            rule="a file that `ensconce key backup` wrote",
            remedy="give the backup's file",
        )
    label = parse_header(data).label
    if not isinstance(label, Shared):
        raise InputError("backup.file", "this is a keystore, not a backup of one", remedy="give the backup's file")
    return label


def open_backup(data: bytes, texts: Sequence[str]) -> Contents:
    """What a backup holds; the caller leaves the contents' context when done.

    Raises:
        InputError: ``backup.file``; ``backup.share``, ``backup.mixed``, ``backup.too_few``: see
            :func:`~ensconce.keys.shares.combine`; ``backup.other``: the shares belong together, but to another backup.
        IntegrityError: ``keystore.format``, ``keystore.seal``: the file is damaged.
    """
    label = about_backup(data)
    identifier, root = combine(texts)
    with root:
        if identifier != label.identifier:
            raise InputError(
                "backup.other",
                "these are the shares of another backup",
                rule="each backup has shares of its own",
                remedy="give the shares that were made with this file, or the file that was made with these shares",
            )
        header = parse_header(data)
        try:
            return open_sealed(data, header, open_lock(RootKey(root), header))[1]
        except IntegrityError as error:
            damaged = error.altered(remedy="recover from another copy of the backup, or from another backup")
        raise damaged
