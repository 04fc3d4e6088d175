"""What a model version is on disk: its names and paths, what each engine needs, and which trees are taken at all.

A version is a folder. Sealed, it lies at ``models/<name>/<version>/``, each file with that path embedded, and holds
one file more than before: ``ensconce-contents.json``, sealed as the others are, which lists them.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ensconce.errors import InputError, IntegrityError
from ensconce.servables import MAX_VERSION, MODEL_NAME_RULE, is_model_name

__all__ = [
    "CONTENTS",
    "ENGINES",
    "IMPORT",
    "MAX_ENTRIES",
    "Engine",
    "ScannedFile",
    "check_complete",
    "check_name",
    "check_version",
    "embedded_path",
    "scan",
    "valid_file_path",
]

Engine = Literal["openvino", "tensorflow"]
"""``openvino``: OpenVINO's intermediate representation; ``tensorflow``: a SavedModel."""
ENGINES: tuple[Engine, ...] = get_args(Engine)

CONTENTS = "ensconce-contents.json"
"""Lists a sealed version's files, so that one that was left out is missed; no model may have a file of this name."""
IMPORT = "ensconce-import.json"
"""What `ensconce model import` wrote down of a version's origin; a version that it did not make has none."""
MAX_ENTRIES = 4096
"""Most files and folders in a version."""
MAX_BYTES = 256 * 2**30
"""Most bytes of all files of a version together."""
MAX_PATH = 600
"""Longest path within a version; with ``models/<name>/<version>/`` it stays below Gramine's 771 bytes."""

# Printable ASCII without "/" and "\": the same bytes, and the same name, on every file system.
_PART = re.compile(r"[\x20-\x2e\x30-\x5b\x5d-\x7e]{1,255}")
_REQUIRED: dict[Engine, tuple[str, ...]] = {
    "openvino": ("model.xml", "model.bin", "signatures.json"),
    "tensorflow": ("saved_model.pb",),
}


@dataclass(frozen=True)
class ScannedFile:
    """A regular file of a version: its path relative to the version's folder, with ``/``, and its size in bytes."""

    path: str
    size: int


def check_name(name: str) -> None:
    """Refuse what is not a model's name.

    Raises:
        InputError: ``model.name``.
    """
    if not is_model_name(name):
        raise InputError(
            "model.name",
            "this is not a model's name",
            found=ascii(name)[:100],
            rule=MODEL_NAME_RULE,
        )


def check_version(version: int) -> None:
    """Refuse what is not a version.

    Raises:
        InputError: ``model.version``.
    """
    if not 1 <= version <= MAX_VERSION:
        raise InputError(
            "model.version",
            "this is not a version",
            found=str(version)[:40],
            rule=f"a whole number from 1 to {MAX_VERSION}",
        )


def embedded_path(name: str, version: int, path: str) -> str:
    """The path that is sealed into a file, and under which Gramine opens it: relative to the enclave's folder."""
    return f"models/{name}/{version}/{path}"


def valid_file_path(path: str) -> bool:
    """Whether ``path`` may name a file of a version: relative, in normal form, printable ASCII without backslashes."""
    parts = path.split("/")
    return len(path) <= MAX_PATH and all(part not in (".", "..") and _PART.fullmatch(part) for part in parts)


def scan(folder: Path, problem: type[InputError] | type[IntegrityError]) -> tuple[ScannedFile, ...]:
    """Every file below ``folder``, sorted by path; nothing is followed and nothing is opened.

    Args:
        folder: the version's folder.
        problem: which error to raise for a tree that is not taken: the owner's mistake, or the host's doing.

    Raises:
        EnsconceError: of class ``problem``, ``model.layout``: a symbolic link, a special file, a name that is not
            printable ASCII, too many entries, too many bytes.
        InputError: ``model.read``: a folder cannot be read.
    """
    files: list[ScannedFile] = []
    todo, entries, total = [""], 0, 0
    while todo:
        prefix = todo.pop()
        try:
            with os.scandir(folder / prefix) as listing:
                for entry in listing:
                    path, status = prefix + entry.name, entry.stat(follow_symlinks=False)
                    entries, total = entries + 1, total + status.st_size
                    if entries > MAX_ENTRIES or total > MAX_BYTES:
                        raise problem(
                            "model.layout",
                            "the version's folder holds too much",
                            found=f"more than {MAX_ENTRIES} entries" if entries > MAX_ENTRIES else f"{total} bytes",
                            rule=f"at most {MAX_ENTRIES} files and folders, and {MAX_BYTES} bytes",
                            remedy="check that this is the folder of one version",
                        )
                    if not valid_file_path(path):
                        raise _not_taken(problem, path, "a name that is not taken", "printable ASCII, no backslash")
                    if stat.S_ISDIR(status.st_mode):
                        todo.append(f"{path}/")
                    elif stat.S_ISREG(status.st_mode):
                        files.append(ScannedFile(path, status.st_size))
                    else:
                        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "a special file"
                        raise _not_taken(problem, path, kind, "regular files and folders only")
        except OSError as error:
            raise InputError(
                "model.read",
                f"cannot read the folder {folder / prefix}: {error.strerror}",
                remedy="check the path and its permissions",
            ) from error
    return tuple(sorted(files, key=lambda file: file.path))


def check_complete(files: tuple[ScannedFile, ...], engine: Engine) -> None:
    """Refuse a version that lacks what its engine needs.

    Raises:
        InputError: ``model.layout``; ``model.engine`` for an engine that there is not.
    """
    if engine not in _REQUIRED:
        raise InputError(
            "model.engine", "no such engine", found=ascii(engine)[:40], rule=f"one of {', '.join(ENGINES)}"
        )
    paths = {file.path for file in files}
    missing = [path for path in _REQUIRED[engine] if path not in paths]
    if missing:
        raise InputError(
            "model.layout",
            "the folder is empty" if not files else f"the folder is not a model for {engine}",
            found=f"{', '.join(missing)} missing",
            rule=f"an {engine} model has {', '.join(_REQUIRED[engine])}",
            remedy="name the folder of the version itself",
        )
    if CONTENTS in paths:
        raise InputError(
            "model.layout",
            f"the folder holds a file called {CONTENTS}",
            rule="this name is kept for the list of the version's files",
            remedy="rename the file; if the folder is a sealed version already, there is nothing to do",
        )


def _not_taken(
    problem: type[InputError] | type[IntegrityError], path: str, kind: str, rule: str
) -> InputError | IntegrityError:
    return problem(
        "model.layout",
        f"the version's folder holds {kind}",
        found=ascii(path[:200]),
        rule=rule,
        remedy="replace it by a regular file with a plain name, or remove it",
    )
