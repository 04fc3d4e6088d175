"""What the owner may show of a log: its signed head and the hash of every entry, none of which says what it holds.

The file: the head's line, then one line of 64 lowercase hexadecimal digits for each entry's leaf hash. A leaf hash is
of a line that has the owner's signature in it, so nobody can try what an entry might have said against it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from ensconce.audit.head import MAX_HEAD, Head, parse_head
from ensconce.audit.merkle import Tree
from ensconce.audit.proofs import ConsistencyProof
from ensconce.errors import InputError, IntegrityError
from ensconce.files import read_bounded

__all__ = ["PublicLog", "load_public_key", "read_head", "read_public_log", "to_public_bytes"]

_LEAF = re.compile(rb"[0-9a-f]{64}\n")
_MAX_PEM = 1 << 16
_MAX_FILE = 1 << 30


@dataclass(frozen=True)
class PublicLog:
    """An exported log, checked against its head.

    Attributes:
        head: the signed head.
        tree: the hashes that it covers.
    """

    head: Head
    tree: Tree

    def consistency(self, first: int, second: int) -> ConsistencyProof:
        """The proof that the log of ``first`` entries is the beginning of the log of ``second``.

        Raises:
            InputError: ``merkle.range``.
        """
        return ConsistencyProof(first, second, tuple(self.tree.consistency(first, second)))


def to_public_bytes(head: Head, leaves: Sequence[bytes]) -> bytes:
    """The file for this head and the leaf hashes that it covers."""
    return head.to_bytes() + b"".join(leaf.hex().encode() + b"\n" for leaf in leaves)


def read_public_log(path: Path, key: Ed25519PublicKey) -> PublicLog:
    """Read an exported log and check that its hashes lead to the signed root.

    Raises:
        InputError: ``file.*``.
        IntegrityError: ``audit.head``, ``audit.key``; ``audit.public``, ``audit.root``: the hashes are not the head's.
    """
    first, newline, rest = read_bounded(path, _MAX_FILE).partition(b"\n")
    head = parse_head(first + newline, key)
    if len(rest) != 65 * head.size:
        raise _changed(
            "audit.public", f"{len(rest)} bytes of hashes", f"{65 * head.size} bytes for {head.size} entries"
        )
    tree = Tree()
    for at in range(0, len(rest), 65):
        line = rest[at : at + 65]
        if _LEAF.fullmatch(line) is None:
            raise _changed("audit.public", ascii(line), "64 hexadecimal digits on each line")
        tree.append(bytes.fromhex(line[:64].decode()))
    if tree.root(head.size) != head.root:
        raise _changed("audit.root", tree.root(head.size).hex(), f"the signed root {head.root.hex()}")
    return PublicLog(head, tree)


def read_head(path: Path, key: Ed25519PublicKey) -> Head:
    """Read a head that somebody kept.

    Raises:
        InputError: ``file.*``.
        IntegrityError: ``audit.head``, ``audit.key``.
    """
    return parse_head(read_bounded(path, MAX_HEAD), key)


def load_public_key(path: Path) -> Ed25519PublicKey:
    """The owner's public key, PEM (``owner.pub``).

    Raises:
        InputError: ``file.*``; ``audit.public_key``: it is no such key.
    """
    try:
        key = load_pem_public_key(read_bounded(path, _MAX_PEM))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError("audit.public_key", f"{path} is no Ed25519 public key", remedy="name the owner's owner.pub")
    return key


def _changed(check: str, found: str, rule: str) -> IntegrityError:
    return IntegrityError(
        check, "the exported log is not what its head was signed over", found=found, rule=rule, remedy="export it again"
    )
