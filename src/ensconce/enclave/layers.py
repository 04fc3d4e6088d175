"""Layers of an image, kept so that the next image costs a copy and no compilation.

An entry is a folder of files and an ``index.json`` with the SHA-256 of each. It is made aside and renamed, so that none
is ever seen half-made; and it is believed only as far as its index: what does not match, after a power cut or a stray
edit, is dropped and made again. Entries are copied, never linked: no edit of an image may reach the next one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from ensconce.errors import InputError
from ensconce.folders import cache_folder

__all__ = ["ImageFile", "LayerCache", "copy_all", "default_cache", "hash_file"]

_KEPT = 8
_ABANDONED_S = 3600
_CHUNK = 1 << 20


@dataclass(frozen=True, order=True)
class ImageFile:
    """A file that an enclave may read, and must find unchanged.

    Attributes:
        path: relative to the image; absolute for a file of the system.
        size: in bytes.
        sha256: lower-case hexadecimal.
    """

    path: str
    size: int
    sha256: str


def default_cache() -> Path:
    """``ensconce/images`` in the user's cache, see :func:`ensconce.folders.cache_folder`."""
    return cache_folder() / "images"


def hash_file(path: Path, name: str) -> ImageFile:
    """The file at ``path``, under the name ``name``."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return ImageFile(name, size, digest.hexdigest())


def copy_all(pairs: Iterable[tuple[Path, str]], out: Path) -> tuple[ImageFile, ...]:
    """Copy each file to its name below ``out``, hashing what was written; sorted by name.

    Raises:
        OSError: a file cannot be read or written.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return tuple(sorted(pool.map(lambda pair: _copy(pair[0], pair[1], out / pair[1]), pairs)))


def _copy(source: Path, name: str, target: Path) -> ImageFile:
    digest = hashlib.sha256()
    size = 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reader, target.open("xb") as writer:
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            writer.write(chunk)
            size += len(chunk)
    return ImageFile(name, size, digest.hexdigest())


@dataclass(frozen=True)
class LayerCache:
    """The cache in ``folder``; it is made when first needed, for this user alone."""

    folder: Path

    def restore(self, key: str, out: Path) -> tuple[tuple[ImageFile, ...], tuple[ImageFile, ...]] | None:
        """Copy the layer ``key`` into ``out``.

        Returns:
            Its files and the system files that were recorded with it; None when there is no such layer, or when it
            was damaged (then it is gone, and nothing of it is left in ``out``).
        """
        entry = self.folder / key
        try:
            index = json.loads((entry / "index.json").read_bytes())
            expected = tuple(ImageFile(**fields) for fields in index["files"])
            system = tuple(ImageFile(**fields) for fields in index["system_files"])
            os.utime(entry)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            self.drop(key)
            return None
        try:
            if copy_all(((entry / "tree" / file.path, file.path) for file in expected), out) == expected:
                return expected, system
        except FileNotFoundError:
            pass  # Damaged, or pruned by another process just now.
        for file in expected:
            (out / file.path).unlink(missing_ok=True)
        self.drop(key)
        return None

    def drop(self, key: str) -> None:
        """Forget the layer ``key``, if there is one."""
        shutil.rmtree(self.folder / key, ignore_errors=True)

    def save(self, key: str, out: Path, files: Sequence[ImageFile], system_files: Sequence[ImageFile] = ()) -> None:
        """Keep ``files`` of the image ``out`` as the layer ``key``, and drop the layers not used for longest.

        Raises:
            InputError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=".", dir=self.folder))
        except OSError as error:
            raise InputError(
                "image.cache",
                f"cannot write to {self.folder}: {error.strerror}",
                remedy="set XDG_CACHE_HOME to a folder that can be written",
            ) from error
        try:
            copy_all(((out / file.path, file.path) for file in files), aside / "tree")
            index = {"files": [asdict(file) for file in files], "system_files": [asdict(file) for file in system_files]}
            (aside / "index.json").write_text(json.dumps(index))
            aside.rename(self.folder / key)
        except FileExistsError:
            pass  # Another process made the same layer.
        except OSError as error:
            if not (self.folder / key).is_dir():
                raise InputError(
                    "image.cache",
                    f"cannot keep an image in {self.folder}: {error.strerror}",
                    remedy="free some space, or set XDG_CACHE_HOME to another folder",
                ) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        self._prune()

    def _prune(self) -> None:
        """Remove the entries not used for longest, and what killed processes left half-made."""
        with contextlib.suppress(FileNotFoundError):  # Another process prunes at the same time.
            ages = sorted((entry.stat().st_mtime, entry) for entry in self.folder.iterdir())
            entries = [entry for _, entry in ages if not entry.name.startswith(".")]
            remains = [entry for age, entry in ages if entry.name.startswith(".") and age < time.time() - _ABANDONED_S]
            for entry in (*entries[:-_KEPT], *remains):
                shutil.rmtree(entry, ignore_errors=True)
