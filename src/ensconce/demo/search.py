"""What could the host see? Looks for secrets in everything that it held, at every offset.

A secret is cut into windows; a window counts as found when its bytes stand anywhere in the haystack. Windows are
compared by their first 8 bytes at every offset with NumPy, and confirmed on their whole length.
"""

from __future__ import annotations

import base64
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["Found", "Needles", "image_needles", "key_needles", "search", "weight_needles"]

_PREFIX = 8
_PIECE = 1 << 18
_HASH_BITS = 22
_KNUTH = np.uint32(2654435761)
_WEIGHT_WINDOW = 24
_PIXELS = 8


@dataclass
class Needles:
    """Windows of secrets to look for: the bytes of a window, and what it is a window of."""

    windows: dict[bytes, str] = field(default_factory=dict)

    def add(self, what: str, window: bytes) -> None:
        """Add one window of at least 8 bytes; windows that any file may hold by chance are left out.

        Raises:
            ValueError: shorter than 8 bytes.
        """
        if len(window) < _PREFIX:
            raise ValueError(f"a window has at least {_PREFIX} bytes, this one has {len(window)}")
        if len(set(window)) > _PREFIX // 2:
            self.windows[window] = what

    def __or__(self, other: Needles) -> Needles:
        return Needles({**self.windows, **other.windows})


@dataclass(frozen=True)
class Found:
    """The outcome of one search: how much was looked at, and what was found where."""

    files: int
    bytes: int
    windows: int
    hits: tuple[tuple[str, str, int], ...]
    """``(what, file, offset)`` of each window that was found."""


def weight_needles(weights: bytes) -> Needles:
    """Windows of 24 bytes at every 16th byte of a weights file."""
    needles = Needles()
    for start in range(0, len(weights) - _WEIGHT_WINDOW + 1, 16):
        needles.add("model weights", weights[start : start + _WEIGHT_WINDOW])
    return needles


def key_needles(key_id: str, secret: bytes) -> Needles:
    """A key, in windows of 16 bytes: raw, as hexadecimal, and as base64 wherever it stands in an encoded text.

    Args:
        key_id: names the key in the outcome.
        secret: the secret bytes alone, at least 16, without any header that other keys share.
    """
    needles = Needles()
    for start in range(0, len(secret) - 15, 16):
        part = secret[start : start + 16]
        # Base64 turns three bytes into four characters; what stands before the key shifts it by none, one or two.
        encoded = [base64.b64encode(part[shift:])[:16] for shift in range(3)]
        for form in (part, part.hex().encode(), part.hex().upper().encode(), *encoded):
            needles.add(f"key {key_id}", form)
    return needles


def image_needles(images: npt.NDArray[np.uint8]) -> Needles:
    """Runs of 8 neighbouring pixels, as they stand in a file (uint8), in a tensor (float32) and in JSON text.

    Args:
        images: ``[n, height, width]``, values 0 to 16.
    """
    needles = Needles()
    for image in images:
        flat = image.reshape(-1)
        for start in range(0, flat.size - _PIXELS + 1, _PIXELS):
            run = flat[start : start + _PIXELS]
            if np.unique(run).size < _PIXELS - 2 or np.count_nonzero(run) < _PIXELS - 1:
                continue
            needles.add("client's pixels", run.tobytes())
            needles.add("client's pixels", run.astype("<f4").tobytes())
            needles.add("client's pixels", ",".join(f"{float(value)}" for value in run).encode())
            needles.add("client's pixels", ", ".join(f"{float(value)}" for value in run).encode())
    return needles


def search(paths: Iterable[Path], needles: Needles) -> Found:
    """Look for every window in every file, at every offset.

    Args:
        paths: files, and folders that are walked; links are not followed, a file with several names counts once.
        needles: what to look for.
    """
    by_prefix: dict[int, list[bytes]] = {}
    for window in needles.windows:
        by_prefix.setdefault(int.from_bytes(window[:_PREFIX], "little"), []).append(window)
    places = _Filter(by_prefix).places
    longest = max(map(len, needles.windows), default=_PREFIX)

    files = total = 0
    hits: set[tuple[str, str, int]] = set()
    for path in _files(paths):
        files += 1
        for base, piece in _pieces(path, longest):
            total = total + len(piece) if base == 0 else total + len(piece) - longest
            for offset in places(piece):
                prefix = int.from_bytes(piece[offset : offset + _PREFIX], "little")
                for window in by_prefix.get(prefix, ()):
                    if piece[offset : offset + len(window)] == window:
                        hits.add((needles.windows[window], str(path), base + offset))
    return Found(files, total, len(needles.windows), tuple(sorted(hits)))


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """Every file once, however many names it has."""
    seen: set[tuple[int, int]] = set()
    for path in paths:
        found: Sequence[Path] = sorted(path.rglob("*")) if path.is_dir() else [path]
        for each in found:
            status = each.lstat()
            if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                yield each


def _pieces(path: Path, overlap: int) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        base, carried = 0, b""
        while part := file.read(_PIECE):
            yield base, carried + part
            carried = (carried + part)[-overlap:]
            base = file.tell() - len(carried)


class _Filter:
    """Finds the places where one of many 8-byte prefixes stands: a hash table of bits first, then the prefixes."""

    def __init__(self, prefixes: Iterable[int]) -> None:
        self._prefixes = np.array(sorted(prefixes), dtype="<u8")
        self._likely = np.zeros(1 << _HASH_BITS, dtype=bool)
        self._likely[self._hash(self._prefixes.astype("<u4"))] = True

    def places(self, piece: bytes) -> Iterator[int]:
        """The offsets in ``piece`` at which a prefix stands."""
        for alignment in range(4):
            count = (len(piece) - alignment) // 4
            if count < 2:
                continue
            words = np.frombuffer(piece, dtype="<u4", count=count, offset=alignment)
            at = np.flatnonzero(self._likely[self._hash(words[:-1])])
            pairs = words[at].astype("<u8") | (words[at + 1].astype("<u8") << np.uint64(32))
            nearest = np.searchsorted(self._prefixes, pairs).clip(max=self._prefixes.size - 1)
            yield from (int(place) * 4 + alignment for place in at[self._prefixes[nearest] == pairs])

    @staticmethod
    def _hash(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        return (words * _KNUTH) >> np.uint32(32 - _HASH_BITS)
