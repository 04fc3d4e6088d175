"""Fetching a sealed version from where it lies: all of it or nothing, as its owner described and signed it.

What is fetched is ciphertext, and the place it comes from is believed in nothing: the description must carry the
owner's signature, every file must have the length that it says and begin with the metadata node that it names. That
node commits to all others, but only the version's key can tell: what was changed further back is found when a replica
opens it, which then does not serve it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from ensconce.errors import InputError, IntegrityError
from ensconce.files import alone_in, read_bounded, sync_folder, write_aside
from ensconce.models.description import MAX_DESCRIPTION, FileDescription, ModelDescription, parse_and_verify
from ensconce.models.layout import MAX_BYTES, check_name, check_version
from ensconce.models.remote import Remote

__all__ = ["load_owner_key", "pull"]

_NODE: Final = 4096
_MAX_PEM: Final = 1 << 16

Progress = Callable[[int], None]


def load_owner_key(path: Path) -> Ed25519PublicKey:
    """The owner's public key, ``owner.pub``.

    Raises:
        InputError: ``pull.owner_key``; ``file.*``.
    """
    try:
        key = load_pem_public_key(read_bounded(path, _MAX_PEM))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError("pull.owner_key", f"{path} is no Ed25519 public key", remedy="take owner.pub of the bundle")
    return key


def pull(
    remote: Remote,
    models: Path,
    *,
    name: str,
    version: int,
    owner_key: Ed25519PublicKey,
    progress: Progress | None = None,
) -> ModelDescription:
    """Fetch one sealed version into ``models/<name>/<version>/``, its description to ``<version>.json`` beside it.

    A version that is there already, whole by its description, is left as it is.

    Args:
        remote: has the content of a bundle's ``models/``.
        models: the folder ``models`` here.
        name: of the model.
        version: of it.
        owner_key: signed its description.
        progress: called with the number of further bytes that have come.

    Raises:
        InputError: ``model.name``, ``.version``; ``pull.busy``, ``pull.write``; ``file.*``.
        UnreachableError: ``pull.connect``, ``pull.missing``.
        IntegrityError: ``description.*``: not the owner's; ``pull.file``: a file is not the one that is described;
            ``pull.kept``: nor is one that was here before.
    """
    check_name(name)
    check_version(version)
    data = _whole(remote, f"{name}/{version}.json", MAX_DESCRIPTION)
    description = parse_and_verify(data, owner_key)
    if (description.name, description.version) != (name, version):
        raise IntegrityError(
            "description.version",
            "this is the description of another version",
            found=f"{description.name}/{description.version}",
            rule=f"{name}/{version}",
            remedy="put the owner's bundle there again as it was",
        )
    folder = models / name
    busy = InputError("pull.busy", f"another process is fetching into {folder}", remedy="wait until it is done")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone_in(folder, busy):
            if os.path.lexists(folder / str(version)):
                _check_kept(folder / str(version), description)
            else:
                _fetch(remote, folder, description, progress or (lambda _: None))
            write_aside(folder / f"{version}.json", data)
    except OSError as error:
        raise InputError(
            "pull.write",
            f"cannot write to {folder}: {error.strerror or error}",
            remedy="check the folder and the free space; nothing half-written is taken for a version",
        ) from error
    return description


def _fetch(remote: Remote, folder: Path, description: ModelDescription, progress: Progress) -> None:
    total = sum(file.encrypted_size for file in description.files)
    if total > MAX_BYTES:
        raise IntegrityError("pull.size", "the version is too large", found=f"{total} bytes", rule=f"{MAX_BYTES}")
    # A replica looks for folders with a number for a name, so it never sees a version that is not whole.
    aside = folder / f".{description.version}.pulling"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir()
        for file in description.files:
            target = aside / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            _fetch_file(remote, f"{description.name}/{description.version}/{file.path}", target, file, progress)
        for parent, _, _ in os.walk(aside):
            sync_folder(Path(parent))
        aside.rename(folder / str(description.version))
        sync_folder(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _fetch_file(remote: Remote, path: str, target: Path, file: FileDescription, progress: Progress) -> None:
    size, head = 0, b""
    with target.open("xb") as out:
        for chunk in remote.chunks(path):
            size += len(chunk)
            if size > file.encrypted_size:
                break
            if len(head) < _NODE:
                head += chunk[: _NODE - len(head)]
            out.write(chunk)
            progress(len(chunk))
        out.flush()
        os.fsync(out.fileno())
    if problem := _differs(size, head, file):
        raise IntegrityError(
            "pull.file",
            f"{path} is not the file that the owner described",
            found=problem,
            rule=f"{file.encrypted_size} bytes, fingerprint {file.fingerprint}",
            remedy="put the owner's bundle there again as it was; nothing of it was kept",
        )


def _check_kept(folder: Path, description: ModelDescription) -> None:
    for file in description.files:
        path = folder / file.path
        try:
            with path.open("rb") as kept:
                problem = _differs(os.fstat(kept.fileno()).st_size, kept.read(_NODE), file)
        except OSError as error:
            problem = error.strerror or "it cannot be read"
        if problem:
            raise IntegrityError(
                "pull.kept",
                f"{path} is there, and is not the file that the owner described",
                found=problem,
                remedy=f"remove {folder}, then fetch it again",
            )


def _differs(size: int, head: bytes, file: FileDescription) -> str:
    if size > file.encrypted_size:
        return f"more than {file.encrypted_size} bytes"
    if size < file.encrypted_size:
        return f"{size} bytes"
    fingerprint = hashlib.sha256(head).hexdigest()
    return "" if hmac.compare_digest(fingerprint, file.fingerprint) else f"fingerprint {fingerprint}"


def _whole(remote: Remote, path: str, limit: int) -> bytes:
    data = b""
    for chunk in remote.chunks(path):
        data += chunk
        if len(data) > limit:
            raise IntegrityError(
                "pull.size", f"{path} is too large", found=f"more than {limit} bytes", rule=f"at most {limit} bytes"
            )
    return data
