"""Opening a sealed version into memory, from a folder that the host controls.

What the host can change, and what becomes of it: a file's bytes (its GCM tags fail), a file put in another's place (the
embedded path differs), a file of another version (the key differs), a file left out or added (the sealed list of files
differs), a symbolic link or a device (refused), sizes (authenticated before memory is taken). Each byte is read once.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path

from ensconce.encfile import decrypt_to_memory
from ensconce.errors import EnsconceError, InputError, IntegrityError
from ensconce.models.contents import parse_contents
from ensconce.models.layout import CONTENTS, check_name, check_version, embedded_path, scan

__all__ = ["open_sealed"]


def open_sealed(models_dir: Path, name: str, version: int, key: bytes) -> dict[str, memoryview]:
    """Decrypt every file of a sealed version into memory.

    The description beside the folder plays no part: the key, which was released for this version alone, does.

    Args:
        models_dir: the folder ``models``.
        name: the model.
        version: the version; ``models_dir/<name>/<version>/`` holds the ciphertext.
        key: the version's wrap key, 16 bytes.

    Returns:
        Path relative to the version's folder, and plaintext, of each file that the owner sealed; in memory that may be
        written to.

    Raises:
        InputError: ``model.name``, ``model.version``; ``model.missing``: there is no such folder; ``model.read``,
            ``encfile.memory``: it cannot be read or does not fit.
        IntegrityError: ``encfile.*``: a file was changed or swapped, or is of another version; ``model.layout``: a link
            or a device; ``model.contents``: a file is missing or was added. ``found`` names model, version and file.
    """
    check_name(name)
    check_version(version)
    folder = models_dir / name / str(version)
    _check_folder(folder)
    with _naming(name, version, None):
        present = {file.path for file in scan(folder, IntegrityError)}
        if CONTENTS not in present:
            raise IntegrityError(
                "model.contents",
                f"{CONTENTS} is missing",
                rule="every sealed version holds the sealed list of its files",
                remedy="copy the whole folder from the owner's bundle again",
            )
    listed = parse_contents(bytes(_decrypt(folder, name, version, CONTENTS, key)))
    if listed != present - {CONTENTS}:
        wrong = min(listed ^ (present - {CONTENTS}))
        with _naming(name, version, wrong):
            raise IntegrityError(
                "model.contents",
                "a file of the version is missing" if wrong in listed else "a file was added to the version",
                rule="exactly the files that the owner sealed",
                remedy="copy the whole folder from the owner's bundle again",
            )
    return {path: _decrypt(folder, name, version, path, key) for path in sorted(listed)}


def _decrypt(folder: Path, name: str, version: int, path: str, key: bytes) -> memoryview:
    with _naming(name, version, path):
        return decrypt_to_memory(folder / path, key, verify_path=embedded_path(name, version, path))


def _check_folder(folder: Path) -> None:
    for part in (folder.parent, folder):
        try:
            mode = part.lstat().st_mode
        except OSError as error:
            raise InputError(
                "model.missing",
                f"there is no sealed model in {folder}: {error.strerror}",
                remedy="copy the folder from the owner's bundle",
            ) from error
        if not stat.S_ISDIR(mode):
            raise IntegrityError(
                "model.layout",
                f"{part} is not a folder",
                rule="a model is a folder, not a link",
                remedy="copy it again",
            )


@contextlib.contextmanager
def _naming(name: str, version: int, path: str | None) -> Iterator[None]:
    """Put model, version and file in front of what an error found."""
    try:
        yield
    except EnsconceError as error:
        what = f"model {name}, version {version}" + ("" if path is None else f", file {path}")
        raise error.altered(found=what if error.found is None else f"{what}: {error.found}") from error
