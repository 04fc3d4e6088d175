"""From what opens a keystore to the keys that seal it: for a new root key, and for one that a header holds."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterator
from typing import assert_never

from ensconce.errors import InputError, IntegrityError
from ensconce.keys.header import Header, Shared, Wrapped, binding, new_salt, passphrase_cost
from ensconce.keys.memory import SecretBuffer
from ensconce.keys.unlock import (
    ROOT_KEY_SIZE,
    KeyFile,
    Passphrase,
    RootKey,
    SealKeys,
    Sort,
    Unlock,
    check_new_passphrase,
    from_key_file,
    from_passphrase,
    from_root_key,
    sort_of,
)

__all__ = ["new_lock", "open_lock", "other_unlock"]


def new_lock(unlock: Unlock, deployment: str) -> tuple[Header, SealKeys]:
    """A header and keys for a keystore to be sealed under a root key that nothing was sealed under before.

    Args:
        unlock: what will open it. Of a key file that has a successor, the successor is taken.
        deployment: the service's domain; a key service binds the root key to it.

    Raises:
        InputError: ``keystore.passphrase``: too short, or not text; ``keystore.key_file``; ``vault.*``, ``kms.*``.
        UnreachableError: the key service does not work.
        IntegrityError: ``keystore.wrap``: it does not unwrap what it has wrapped.
    """
    salt = new_salt()
    match unlock:
        case Passphrase():
            check_new_passphrase(unlock)
            cost = passphrase_cost()
            return Header(Sort.PASSPHRASE, cost, salt), from_passphrase(unlock, salt, cost)
        case KeyFile():
            return Header(Sort.KEY_FILE, None, salt), next(from_key_file(unlock, salt))
        case RootKey():
            raise TypeError("a backup names its shares: see ensconce.keys.backup")
        case service:
            with SecretBuffer.of(bytearray(secrets.token_bytes(ROOT_KEY_SIZE))) as root:
                purpose = binding(deployment, salt)
                wrapped = service.wrap(root, purpose)
                # A service may be allowed to wrap and not to unwrap: nothing is sealed that could not be opened.
                with service.unwrap(wrapped, purpose) as again:
                    if not hmac.compare_digest(again.view, root.view):
                        raise IntegrityError(
                            "keystore.wrap",
                            "the key service does not unwrap what it has wrapped",
                            remedy="check the service; nothing was sealed under this root key",
                        )
                header = Header(service.sort, None, salt, Wrapped(deployment=deployment, wrapped=wrapped))
                return header, from_root_key(root, salt)


def open_lock(unlock: Unlock, header: Header) -> Iterator[SealKeys]:
    """The keys that may open the keystore; more than one only while a key file is being replaced.

    Raises:
        InputError: ``keystore.unlock``: the keystore is opened by something else; whatever reading the unlock raises.
        IntegrityError, UnreachableError: a key service refuses, or does not answer.
    """
    if sort_of(unlock) is not header.sort:
        raise other_unlock(header.sort, sort_of(unlock))
    match unlock, header.label:
        case Passphrase(), None:
            assert header.cost is not None  # parse_header has made sure
            yield from_passphrase(unlock, header.salt, header.cost)
        case KeyFile(), None:
            yield from from_key_file(unlock, header.salt)
        case RootKey(), Shared():
            yield from_root_key(unlock.key, header.salt)
        case service, Wrapped() as label if not isinstance(service, Passphrase | KeyFile | RootKey):
            with service.unwrap(label.wrapped, label.binding(header.salt)) as root:
                yield from_root_key(root, header.salt)
        case _:
            assert_never(unlock)  # type: ignore[arg-type]  # parse_header ties the label to the sort


def other_unlock(needed: Sort, given: Sort) -> InputError:
    """The error for a keystore that something else opens."""
    return InputError(
        "keystore.unlock",
        f"this keystore is opened by {needed.words}, not by {given.words}",
        remedy=f"give it {needed.words}",
    )
