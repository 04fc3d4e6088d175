"""Sealing a model anew under a fresh key, as its next version, without its source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.recorded import RecordedKeystore
from ensconce.errors import InputError, IntegrityError
from ensconce.files import read_bounded
from ensconce.keys import KeyEntry, get_private_key
from ensconce.models.description import MAX_DESCRIPTION, ModelDescription, parse_and_verify
from ensconce.models.layout import check_name, check_version
from ensconce.models.load import open_sealed
from ensconce.models.seal import seal
from ensconce.models.source import MemorySource
from ensconce.servables import key_id, receivable
from ensconce.times import unix_now

__all__ = ["described", "reseal_model"]


def described(owner: OwnerFolder, name: str, version: int) -> ModelDescription:
    """The description of a version in the owner's bundle, once her signature is checked.

    Raises:
        InputError: ``model.name``, ``model.version``, ``model.missing``: there is no such version.
        IntegrityError: ``description.*``: it is not hers; ``model.description``: it is of another version.
    """
    check_name(name)
    check_version(version)
    path = owner.bundle / "models" / name / f"{version}.json"
    if not path.is_file():
        raise InputError(
            "model.missing",
            f"there is no version {version} of {name} in the owner's bundle",
            found=str(path),
            remedy="name a version that was sealed here",
        )
    description = parse_and_verify(read_bounded(path, MAX_DESCRIPTION), owner.public_key())
    if (description.name, description.version) != (name, version):
        raise IntegrityError(
            "model.description",
            f"{path} describes another version",
            found=description.key_id,
            rule=key_id(name, version),
            remedy="put the description that belongs there back",
        )
    return description


def reseal_model(
    owner: OwnerFolder, name: str, version: int, progress: Callable[[int], None] | None = None
) -> ModelDescription:
    """Open a sealed version in this process's memory and seal the same files as the next one, under a fresh key.

    The old version and its key stay as they are, until `ensconce model retire`.

    Args:
        owner: her folder, with the version's ciphertext in its bundle.
        name: the model.
        version: the version to open.
        progress: called with the number of further bytes of plaintext that are sealed.

    Returns:
        The new version's description; its number is one above the highest that the owner's bundle or keystore knows.

    Raises:
        InputError: ``model.missing``; there are no numbers left (``model.version``); the bundle cannot be written.
        RefusedError: ``key.retired``: the version's key is gone.
        IntegrityError: the ciphertext or its description was changed.
    """
    description = described(owner, name, version)
    keystore = owner.keystore()
    log = owner.audit_log(keystore)
    models = owner.bundle / "models"
    files = open_sealed(models, name, version, keystore.get(description.key_id))
    try:
        new = seal(
            MemorySource(files),
            models,
            name=name,
            version=_next(models / name, keystore.entries(), name),
            engine=description.engine,
            keystore=RecordedKeystore(keystore, log),
            signing_key=get_private_key(keystore, "signing/owner", "ed25519"),
            now=unix_now,
            progress=progress,
        )
    finally:
        for content in files.values():
            content[:] = bytes(len(content))
    log.append("model.sealed", model=name, version=new.version, key_id=new.key_id, resealed_from=version)
    return new


def _next(folder: Path, keys: tuple[KeyEntry, ...], name: str) -> int:
    start = f"{receivable(name)}/"
    known = {int(entry.key_id.removeprefix(start)): entry for entry in keys if entry.key_id.startswith(start)}
    there = {int(path.name) for path in folder.iterdir() if path.name.isdecimal()}
    highest = max({*known, *there})
    live = highest in known and known[highest].retired is None
    if live and highest not in there and (folder / f".{highest}.sealing").is_dir():
        return highest  # interrupted after its key was made: sealing the same files again completes it
    return highest + 1
