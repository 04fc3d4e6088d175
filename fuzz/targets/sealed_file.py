"""Gramine's encrypted files: without the key nothing opens but what was sealed, byte for byte.

The first byte says what the rest is: an encrypted file; or what a metadata node of format 1 or 2 says (size, length of
the path, path, head) and the nodes behind it, sealed here under the right key, as a bug in another writer would.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from ensconce.encfile import Format, decrypt_bytes, encrypt_file, encrypted_size
from ensconce.encfile.layout import HEAD_SIZE, NODE_SIZE
from ensconce.encfile.metadata import Metadata, seal_metadata
from ensconce.encfile.names import PATH_SIZE
from ensconce.errors import IntegrityError
from fuzz import world
from fuzz.target import Havoc, Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]

_PATH = "models/digits/1/model.bin"
_SEALED, _SAID_1, _SAID_2 = 0, 1, 2


def check(data: bytes) -> bool:
    """Open what the first byte says; see the module."""
    sort, rest = (data[0] if data else 0), data[1:]
    if sort == _SEALED:
        opened = attempt(lambda: decrypt_bytes(rest, world.WRAP_KEY, verify_path=None), IntegrityError)
        named = attempt(lambda: decrypt_bytes(rest, world.WRAP_KEY, verify_path=_PATH), IntegrityError)
        if isinstance(opened, Refused):
            holds(isinstance(named, Refused), "opens under a name and not without")
            return False
        holds(bytes(opened) == _files().get(rest), "a file opens that nobody sealed")
        holds(named == opened, "opens, but not under its name")
        return True
    format: Format = 1 if sort == _SAID_1 else 2
    return _check_said(format, rest)


def _check_said(format: Format, said: bytes) -> bool:
    size, length = int.from_bytes(said[:8], "little"), int.from_bytes(said[8:10], "little")
    path, behind = said[10 : 10 + length], said[10 + length :]
    node = seal_metadata(Metadata(path[:PATH_SIZE], size, bytes(32), behind[:HEAD_SIZE]), world.WRAP_KEY, format)
    sealed = node + behind[HEAD_SIZE:]
    opened = attempt(lambda: decrypt_bytes(sealed, world.WRAP_KEY, verify_path=None), IntegrityError)
    if isinstance(opened, Refused):
        return False
    # Nothing that is sealed under a key of zeros comes with a right tag, so only the head can be there.
    holds(size <= HEAD_SIZE and len(opened) == size, "another size than the file's own word")
    holds(encrypted_size(size) == len(sealed) == NODE_SIZE, "bytes that belong to nothing")
    holds(opened == behind[:size].ljust(size, b"\0"), "another head")
    return True


@functools.cache
def _files() -> dict[bytes, bytes]:
    """Encrypted files, and what is in them; the same each time."""
    contents = [b"", b"a little", bytes(range(256)) * 12, bytes(HEAD_SIZE) + b"one byte more than fits"]
    files: dict[bytes, bytes] = {}
    formats: tuple[Format, ...] = (1, 2)
    with tempfile.TemporaryDirectory() as name, mock.patch("os.urandom", _stream()):
        folder = Path(name)
        for format, content in itertools.product(formats, contents):
            (folder / "plain").write_bytes(content)
            encrypt_file(
                folder / "plain", folder / "sealed", world.WRAP_KEY, embedded_path=_PATH, format=format, workers=1
            )
            files[(folder / "sealed").read_bytes()] = content
    return files


def _stream() -> Callable[[int], bytes]:
    """Stands in for the randomness of sealing, so that the files are the same each time."""
    numbers = itertools.count()
    return lambda size: hashlib.shake_256(b"fuzzing %d" % next(numbers)).digest(size)


def _mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    """Bend one node or one field; bending twelve kilobytes at random finds neither."""
    if len(data) < 1 + 64 or rng.random() < 0.25:
        return havoc(data)
    size = rng.choice((16, 64, 64, 512))
    at = 1 + rng.choice((0, 0, rng.randrange(len(data) - 1), len(data) // NODE_SIZE * NODE_SIZE))
    return data[:at] + havoc(data[at : at + size]) + data[at + size :]


def seeds() -> dict[str, bytes]:
    """Files of both formats, of one node and of three, and what a metadata node may say."""
    sealed = list(_files())
    made = {f"good-file-{number}": b"\0" + sealed[number] for number in (0, 3, 5)}
    path = b"a/path"
    for sort, size in ((1, 0), (1, 11), (2, 11), (2, HEAD_SIZE)):
        said = size.to_bytes(8, "little") + len(path).to_bytes(2, "little") + path + b"hello world"
        made[f"good-said-{sort}-{size}"] = bytes([sort]) + said
    made["said-too-much"] = b"\x02" + b"\xff" * 8 + b"\0\0" + b"hello world"
    made["said-no-end"] = b"\x01" + bytes(8) + PATH_SIZE.to_bytes(2, "little") + b"p" * PATH_SIZE
    return made


TARGET = Target("sealed-file", check, seeds, _mutate, words=(b"GRAFS_PF\x01\x00", b"GRAFS_PF\x02\x00"))
