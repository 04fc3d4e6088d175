"""Finding and opening the owner's keystore, also where a change of what opens it was interrupted.

Such a change touches two files that no rename covers: the keystore, and ``ensconce.yaml`` (or ``unlock.key``). Before
it, the new ``keystore:`` block is written to ``keystore.next.yaml``; after it, that file goes away. Whoever finds it
without its writer looks which of the two opens the keystore, and finishes or drops the change.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ensconce.appraisal import strict_yaml
from ensconce.cluster.deployment import Deployment, FolderState
from ensconce.cluster.keystore_entry import (
    AwsKmsEntry,
    FileEntry,
    KeystoreEntry,
    PassphraseEntry,
    VaultEntry,
    read_entry,
    replaced_in,
    unlock_of,
)
from ensconce.cluster.state import open_state
from ensconce.errors import EnsconceError, InputError, IntegrityError
from ensconce.files import read_bounded, sync_folder, write_aside
from ensconce.keys import FolderPlace, KeyFile, Place, SealedKeystore, StorePlace, get_private_key
from ensconce.keys.header import parse_header
from ensconce.keys.lock import open_lock, other_unlock
from ensconce.keys.sealed import open_sealed
from ensconce.keys.unlock import Sort, Unlock
from ensconce.times import unix_now

if TYPE_CHECKING:
    from ensconce.cluster.owner import OwnerFolder

__all__ = [
    "announce",
    "ask_at_terminal",
    "claim",
    "entry_of",
    "finish",
    "forget",
    "new_text",
    "open_keystore",
    "place_of",
]

_NEXT = "keystore.next.yaml"
_SORTS = {
    FileEntry: Sort.KEY_FILE,
    PassphraseEntry: Sort.PASSPHRASE,
    VaultEntry: Sort.VAULT,
    AwsKmsEntry: Sort.AWS_KMS,
}


def ask_at_terminal(prompt: str) -> str:
    """What is typed at the terminal, without echo.

    Raises:
        InputError: ``keystore.passphrase``: there is no terminal, or what was typed is not text.
    """
    with contextlib.suppress(UnicodeDecodeError):  # it carries what was typed, and would travel as a cause
        return _read_at_terminal(prompt)
    raise InputError(
        "keystore.passphrase",
        "what was typed is not text in the terminal's encoding",
        remedy="set the terminal and the locale (LANG) to UTF-8",
    )


def _read_at_terminal(prompt: str) -> str:
    try:
        with warnings.catch_warnings():
            # Without a terminal getpass would warn, and read with echo.
            warnings.simplefilter("error", getpass.GetPassWarning)
            return getpass.getpass(prompt)
    except (getpass.GetPassWarning, EOFError, OSError):
        raise InputError(
            "keystore.passphrase",
            "the keystore's passphrase is needed, and there is no terminal to ask at",
            remedy="run it at a terminal; what runs unattended opens its keystore by a key file, Vault or AWS KMS",
        ) from None


def entry_of(deployment: Deployment) -> KeystoreEntry:
    """What opens the keystore according to the deployment file; the key file, when it says nothing."""
    return deployment.keystore or FileEntry()


def place_of(owner: OwnerFolder) -> Place:
    """Where the keystore lies: in the owner's folder, or in the database that her servers share."""
    if isinstance(owner.deployment().state, FolderState):
        return FolderPlace(owner.path / "keystore")
    return StorePlace(open_state(owner).store)


def open_keystore(owner: OwnerFolder) -> SealedKeystore:
    """The owner's keystore, opened as the deployment file says.

    Raises:
        InputError: ``keystore.*``, ``vault.*``, ``kms.*``, ``state.*``: it cannot be opened like this.
        IntegrityError: it is damaged; ``owner.folder``: the key file is missing; ``keystore.owner``: it is not hers.
        UnreachableError: the key service or the database cannot be reached.
    """
    place, marker = place_of(owner), owner.path / _NEXT
    ask = functools.cache(owner.ask)  # once, however often it is tried
    while True:
        if marker.exists():
            _settle(owner, place, ask)
        entry = entry_of(owner.deployment())
        try:
            keystore = SealedKeystore.open(place, _unlock(entry, owner, ask), now=unix_now)
        except (InputError, IntegrityError):
            # Another command may have changed what opens it after we had read what does.
            if not marker.exists() and entry_of(owner.deployment()) == entry:
                raise
        else:
            _check_owner(owner, keystore)
            return keystore


def _check_owner(owner: OwnerFolder, keystore: SealedKeystore) -> None:
    """A service may open the keystores of several deployments, and one may have been put in another's place."""
    if get_private_key(keystore, "signing/owner", "ed25519").public_key() != owner.public_key():
        raise IntegrityError(
            "keystore.owner",
            "this is the keystore of another owner",
            rule=f"its signing key belongs to {owner.public_key_file}",
            remedy="put this deployment's own keystore back, or recover it from a backup",
        )


def _unlock(entry: KeystoreEntry, owner: OwnerFolder, ask: Callable[[str], str]) -> Unlock:
    unlock = unlock_of(entry, owner.path, ask)
    if isinstance(unlock, KeyFile) and not (unlock.path.exists() or unlock.successor.exists()):
        raise IntegrityError(
            "owner.folder",
            f"{unlock.path} is missing",
            remedy="restore it from a backup, or recover the keys with `ensconce key recover`",
        )
    return unlock


def new_text(owner: OwnerFolder, entry: KeystoreEntry) -> str:
    """The deployment file's text with ``entry`` as what opens the keystore; nothing is written.

    Raises:
        InputError: ``deployment.keystore``: the file cannot be edited without changing something else.
    """
    text = read_bounded(owner.deployment_file, strict_yaml.MAX_BYTES).decode()
    wanted = None if isinstance(entry, FileEntry) else entry
    edited = replaced_in(text, wanted)
    expected = owner.deployment().model_copy(update={"keystore": wanted})
    try:
        found = strict_yaml.parse(edited.encode(), str(owner.deployment_file)).validate(Deployment)
    except InputError:
        found = None
    if found != expected:
        raise InputError(
            "deployment.keystore",
            f"the keystore block of {owner.deployment_file} cannot be replaced without touching something else",
            remedy="write it as one block that begins with `keystore:` at the margin, without empty lines",
        )
    return edited


def announce(owner: OwnerFolder, entry: KeystoreEntry) -> None:
    """Write down what is about to open the keystore; to be called while holding the keystore alone."""
    body = yaml.safe_dump({"keystore": entry.model_dump(exclude_none=True)}, sort_keys=False)
    write_aside(owner.path / _NEXT, body.encode(), mode=0o600)


def finish(owner: OwnerFolder, entry: KeystoreEntry) -> None:
    """Make ``entry`` what opens the keystore, now that it does; each step can be done twice."""
    file = KeyFile(owner.path / "unlock.key")
    if isinstance(entry, FileEntry) and file.successor.exists():
        file.successor.replace(file.path)
    if entry_of(owner.deployment()) != entry:
        write_aside(owner.deployment_file, new_text(owner, entry).encode())
    if not isinstance(entry, FileEntry):
        for old in (file.path, file.successor):
            old.unlink(missing_ok=True)
    _drop(owner.path / _NEXT)


def forget(owner: OwnerFolder) -> None:
    """Drop a change that was interrupted, and the key file that was made for it."""
    KeyFile(owner.path / "unlock.key").successor.unlink(missing_ok=True)
    _drop(owner.path / _NEXT)


def claim(owner: OwnerFolder) -> None:
    """Let the next opening decide about an ``unlock.key.next`` that was made, and whose change was never announced.

    For whoever keeps other changes out.
    """
    if KeyFile(owner.path / "unlock.key").successor.exists() and not (owner.path / _NEXT).exists():
        announce(owner, FileEntry())


def _settle(owner: OwnerFolder, place: Place, ask: Callable[[str], str]) -> None:
    """Finish an interrupted change if the new opens the keystore, drop it if the old does, else leave all as it is."""
    with place.locked() as slot:
        path, data = owner.path / _NEXT, slot.read()
        if not path.exists() or data is None:
            return  # its writer was at it, and has finished
        file = KeyFile(owner.path / "unlock.key")
        # The successor is gone when only the deployment file was still to be written.
        successor = KeyFile(file.successor) if file.successor.exists() else file
        new, old = read_entry(str(path)), entry_of(owner.deployment())
        after = _what_hinders(data, new, owner, ask, successor)
        if after is None:
            finish(owner, new)
            return
        before = _what_hinders(data, old, owner, ask, file)
        if before is None:
            if isinstance(new, FileEntry):
                file.successor.unlink(missing_ok=True)
            _drop(path)
            return
    # What may pass says more than that the other one is wrong.
    raise min((after, before), key=lambda error: (error.check == "keystore.unlock", isinstance(error, IntegrityError)))


def _what_hinders(
    data: bytes, entry: KeystoreEntry, owner: OwnerFolder, ask: Callable[[str], str], file: KeyFile
) -> EnsconceError | None:
    """Why this entry does not open a keystore; None when it does. ``file`` is the key file, if it should be one."""
    try:
        header, sort = parse_header(data), _SORTS[type(entry)]
        if sort is not header.sort:
            return other_unlock(header.sort, sort)
        unlock = file if isinstance(entry, FileEntry) else unlock_of(entry, owner.path, ask)
        with open_sealed(data, header, open_lock(unlock, header))[1]:
            return None
    except EnsconceError as error:
        return error


def _drop(path: Path) -> None:
    path.unlink(missing_ok=True)
    sync_folder(path.parent)
