"""Encrypting and decrypting directories: every file of a tree, or none.

The result is built in a staging folder beside its final place and renamed when it is complete, so whoever looks
sees the whole tree or nothing. That is why the target may exist only as an empty folder.

Only regular files and folders are taken. A symbolic link is taken as the file that it leads to, if that file lies
in the same tree; a link that leads out of the tree, to a folder or to nothing is an error, as is anything else
(devices, pipes, sockets): leaving something out silently would be worse.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ensconce.encfile.crew import Progress
from ensconce.encfile.decrypt import decrypt_file
from ensconce.encfile.encrypt import encrypt_file
from ensconce.encfile.layout import Format
from ensconce.encfile.metadata import Fingerprint
from ensconce.encfile.names import path_bytes, shown
from ensconce.encfile.wrapkey import check_wrap_key
from ensconce.errors import EnsconceError, InputError
from ensconce.files import sync_folder

__all__ = ["Tree", "decrypt_tree", "encrypt_tree", "scan_tree"]


@dataclass(frozen=True)
class Tree:
    """What is in a folder.

    Attributes:
        folders: relative paths of all folders below it, parents first.
        files: relative path of every file (as it is named in the tree), and the file to read for it.
        size: bytes of all files together.
    """

    folders: tuple[str, ...]
    files: dict[str, Path]
    size: int


def scan_tree(root: Path) -> Tree:
    """List a folder, in sorted order.

    Raises:
        InputError: it is no folder or cannot be read, or holds something that is neither a file nor a folder nor a
            link to a file of the same tree.
    """
    folders: list[str] = []
    files: dict[str, Path] = {}
    size = 0
    todo = [""]
    try:
        real_root = root.resolve(strict=True)
        while todo:
            folder = todo.pop()
            with os.scandir(root / folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(name)
                        todo.append(name)
                    else:
                        files[name], length = _file_behind(Path(entry.path), real_root)
                        size += length
    except OSError as error:
        raise InputError(
            "encfile.input", f"cannot read {shown(error.filename or root)}: {error.strerror or error}"
        ) from error
    return Tree(tuple(sorted(folders)), dict(sorted(files.items())), size)


def _file_behind(path: Path, real_root: Path) -> tuple[Path, int]:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        try:
            path = path.resolve(strict=True)
            found = path.lstat()
        except (OSError, RuntimeError) as error:
            raise InputError("encfile.tree", f"{shown(path)} is a link that leads nowhere") from error
        if not path.is_relative_to(real_root):
            raise InputError(
                "encfile.tree",
                "a symbolic link leads out of the tree",
                found=f"a link to {shown(path)}",
                rule="links may lead to files of the same tree only",
                remedy="replace the link by a copy of the file",
            )
    if not stat.S_ISREG(found.st_mode):
        raise InputError(
            "encfile.tree",
            f"{shown(path)} is not a regular file",
            found=stat.filemode(found.st_mode),
            rule="a tree may hold folders, regular files and links to its own files",
            remedy="remove it from the tree",
        )
    return path, found.st_size


def encrypt_tree(
    src_dir: Path,
    dst_dir: Path,
    wrap_key: bytes,
    *,
    embedded_root: str,
    format: Format = 2,
    progress: Progress | None = None,
) -> dict[str, Fingerprint]:
    """Encrypt every file below ``src_dir`` to the same relative path below ``dst_dir``.

    Args:
        src_dir: the folder to encrypt.
        dst_dir: must not exist, or be an empty folder; nothing else appears there before all is done.
        wrap_key: 16 bytes; one for all files, each file's own key is derived from it with a fresh nonce.
        embedded_root: ``<embedded_root>/<relative path>`` is embedded in each file.
        format: 1 or 2.
        progress: called with the number of further bytes done, over all files.

    Returns:
        Relative path of each file, and the fingerprint of its encrypted form.

    Raises:
        InputError: as :func:`scan_tree` and :func:`ensconce.encfile.encrypt.encrypt_file`.
    """
    check_wrap_key(wrap_key)
    tree = scan_tree(src_dir)
    paths = {name: f"{embedded_root}/{name}" for name in tree.files}
    for path in paths.values():
        path_bytes(path)  # All lengths are checked before the first byte is encrypted.
    with _staging(src_dir, dst_dir, tree, mode=0o755) as staging:
        made: dict[str, Fingerprint] = {}
        for name, source in tree.files.items():
            with _naming(name):
                made[name] = encrypt_file(
                    source,
                    staging / name,
                    wrap_key,
                    embedded_path=paths[name],
                    format=format,
                    progress=progress,
                    follow=False,
                )
    return made


def decrypt_tree(
    src_dir: Path,
    dst_dir: Path,
    wrap_key: bytes,
    *,
    verify_root: str | None,
    progress: Progress | None = None,
) -> None:
    """Decrypt every file below ``src_dir`` to the same relative path below ``dst_dir``.

    Args:
        src_dir: a folder in which every file is encrypted.
        dst_dir: must not exist, or be an empty folder; nothing else appears there before all is verified.
        wrap_key: 16 bytes.
        verify_root: each file must hold the path ``<verify_root>/<relative path>``; None to accept any.
        progress: called with the number of further bytes done, over all files.

    Raises:
        InputError: as :func:`scan_tree` and :func:`ensconce.encfile.decrypt.decrypt_file`.
        IntegrityError: as there; the problem names the file.
    """
    check_wrap_key(wrap_key)
    tree = scan_tree(src_dir)
    with _staging(src_dir, dst_dir, tree, mode=0o700) as staging:
        for name, source in tree.files.items():
            path = None if verify_root is None else f"{verify_root}/{name}"
            with _naming(name):
                decrypt_file(source, staging / name, wrap_key, verify_path=path, progress=progress, follow=False)


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Let an error say which file of the tree it is about."""
    try:
        yield
    except EnsconceError as error:
        raise error.altered(problem=f"{shown(name)}: {error.problem}") from error


@contextlib.contextmanager
def _staging(src_dir: Path, dst_dir: Path, tree: Tree, mode: int) -> Iterator[Path]:
    """A folder with the folders of ``tree`` that becomes ``dst_dir`` when the block ends well."""
    target = dst_dir.resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(
            "encfile.output",
            f"the output {shown(dst_dir)} exists",
            rule="the output of a folder must not exist yet, or be an empty folder",
            remedy="choose another output, or remove this one",
        )
    if target.is_relative_to(src_dir.resolve()):
        raise InputError("encfile.output", "the output lies inside the input", found=shown(dst_dir))
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    except OSError as error:
        raise InputError(
            "encfile.output",
            f"cannot create {shown(dst_dir)}: {error.strerror or error}",
            remedy="check the folder it should lie in",
        ) from error
    try:
        for folder in tree.folders:
            (staging / folder).mkdir()
        yield staging
        staging.chmod(mode)
        sync_folder(staging)
        staging.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        raise InputError("encfile.output", f"cannot write {shown(dst_dir)}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
