"""What the owner does with her keystore: secrets in and out of use, another lock, backup and recovery.

Each function records what it does in the audit log before it does it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from ensconce.audit.log import AuditLog
from ensconce.cluster.keystore_entry import FileEntry, KeystoreEntry, PassphraseEntry, unlock_of
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.recorded import RecordedKeystore, check_against_log, retired_in
from ensconce.cluster.state import open_state
from ensconce.cluster.unlocking import announce, claim, entry_of, finish, forget, new_text, place_of
from ensconce.errors import InputError
from ensconce.files import alone_in, read_bounded, writing_aside
from ensconce.keys import KeyEntry, KeyFile, Passphrase, SealedKeystore, new_key_file
from ensconce.keys.backup import make_backup, open_backup
from ensconce.keys.keystore import key_unknown
from ensconce.keys.sealed import MAX_FILE, Contents, Record
from ensconce.keys.unlock import Unlock
from ensconce.servables import MODEL_NAME
from ensconce.times import unix_now

__all__ = ["Recovered", "backup", "checked_keystore", "find_key", "put_secret", "recover", "retire_key", "rewrap"]

_SECRET = re.compile(f"secret/{MODEL_NAME}")
_MAX_BACKUP = MAX_FILE + (1 << 16)


def checked_keystore(owner: OwnerFolder) -> SealedKeystore:
    """The owner's keystore, once the audit log has confirmed that it is not an earlier one.

    Raises:
        IntegrityError: ``keystore.rollback``; the keystore or the log is damaged.
        EnsconceError: as :meth:`OwnerFolder.keystore`.
    """
    return _checked(owner)[0]


def _checked(owner: OwnerFolder) -> tuple[SealedKeystore, AuditLog]:
    keystore = owner.keystore()
    # Opened to be written: what a writer left that was killed is put right first, and hinders nobody.
    log = owner.audit_log(keystore)
    check_against_log(keystore, log.entries())
    return keystore, log


def put_secret(owner: OwnerFolder, key_id: str, secret: bytes) -> None:
    """Store something that the owner wants to give to enclaves, under ``secret/<name>``.

    Raises:
        InputError: ``key.id``, ``key.size``, ``key.exists``.
    """
    if _SECRET.fullmatch(key_id) is None:
        raise InputError(
            "key.id",
            "this is not the id of a secret",
            found=ascii(key_id)[:100],
            rule=f"{_SECRET.pattern}; models' keys are made by `ensconce model seal`",
        )
    keystore = owner.keystore()
    RecordedKeystore(keystore, owner.audit_log(keystore)).put(key_id, secret, kind="secret")


def retire_key(owner: OwnerFolder, key_id: str) -> None:
    """Destroy a model's key or a secret for good.

    Raises:
        InputError: ``key.needed``: the deployment cannot be without it; ``key.unknown``.
    """
    if not key_id.startswith(("model/", "secret/")):
        raise InputError(
            "key.needed",
            f"{ascii(key_id)[:100]} cannot be retired",
            rule="only keys of models and secrets: without one of the others nobody could go on with this deployment",
            remedy="see `Rotating keys` in docs/reference/keystore.md",
        )
    keystore = owner.keystore()
    RecordedKeystore(keystore, owner.audit_log(keystore)).retire(key_id)


def find_key(owner: OwnerFolder, key_id: str) -> tuple[KeyEntry, bytes | None]:
    """What may be told about a key: its entry, and of a private key the public one, DER (SubjectPublicKeyInfo).

    Raises:
        InputError: ``key.unknown``.
    """
    with owner.keystore().contents() as contents:
        record = contents.records.get(key_id)
        if record is None:
            raise key_unknown(key_id)
        public = None
        if record.entry.kind in ("ed25519", "rsa", "ec") and record.secret is not None:
            key = load_der_private_key(bytes(record.secret), password=None)
            public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return record.entry, public


def rewrap(owner: OwnerFolder, entry: KeystoreEntry | None) -> None:
    """Seal the keystore under a new root key, and let something else open it from now on.

    Args:
        owner: her folder.
        entry: what opens it; None for the same as now, with a new root key: a new key file, a new passphrase, or
            wrapped by the newest version of the same service's key.

    Raises:
        InputError: the new unlock cannot be used, or ``ensconce.yaml`` cannot be edited; nothing has changed.
        UnreachableError: the key service does not answer; nothing has changed.
    """
    with _alone(owner):
        claim(owner)
        keystore, log = _checked(owner)
        before = entry_of(owner.deployment())
        after = entry or before
        new_text(owner, after)
        # A passphrase, or the same key of a service: ensconce.yaml stays, so one rename is the whole change.
        in_two_steps = after != before or isinstance(after, FileEntry)

        def record(generation: int) -> None:
            if in_two_steps:
                announce(owner, after)
            log.append("keystore.rewrapped", before=before.kind, after=after.kind, generation=generation)

        keystore.rewrap(
            _new_unlock(owner, after),
            deployment=owner.deployment().service.domain,
            record=record,
            settle=(lambda: finish(owner, after)) if in_two_steps else (lambda: None),
        )


def backup(
    owner: OwnerFolder, target: Path, shares: int, threshold: int, hand_out: Callable[[int, int, str], None]
) -> None:
    """Write the whole keystore, sealed under a key that exists only in shares.

    Args:
        owner: her folder.
        target: the file to write; it must not exist.
        shares: how many to make.
        threshold: how many open the backup.
        hand_out: is given each share: its number from 1, how many there are, and its words.

    Raises:
        InputError: ``backup.shares``, ``backup.exists``; the file cannot be written, which shows before any share does.
    """
    _check_free(target)
    keystore, log = _checked(owner)
    with keystore.contents() as contents:
        made = make_backup(
            contents,
            deployment=owner.deployment().service.domain,
            shares=shares,
            threshold=threshold,
            now=unix_now(),
        )
        generation = contents.generation
    # On the disk before anybody writes down a share, and in its place after: without shares it is worth nothing.
    with writing_aside(target, mode=0o600) as file:
        file.write(made.data)
        file.flush()
        os.fsync(file.fileno())
        log.append(
            "keystore.backed_up",
            shares=shares,
            threshold=threshold,
            identifier=made.shares.identifier,
            generation=generation,
            sha256=hashlib.sha256(made.data).hexdigest(),
        )
        for number, words in enumerate(made.shares.texts, 1):
            hand_out(number, shares, words)
        _check_free(target)  # handing them out may have taken an hour


def _check_free(target: Path) -> None:
    if target.exists():
        raise InputError(
            "backup.exists", f"{target} exists", rule="a backup is never overwritten", remedy="choose another file"
        )


@dataclass(frozen=True)
class Recovered:
    """What came back from a backup.

    Attributes:
        entries: every key, as it now is.
        retired: ids that were live in the backup and that the log says were retired since; they stay retired.
        lost: ids that the log says were added since, and that are gone.
    """

    entries: tuple[KeyEntry, ...]
    retired: tuple[str, ...]
    lost: tuple[str, ...]


def recover(owner: OwnerFolder, source: Path, texts: Sequence[str]) -> Recovered:
    """Make a new keystore out of a backup, in an owner's folder that has none.

    The audit log has the last word: what it says was retired stays retired.

    Args:
        owner: her folder, with everything but the keystore; what opens the new one is in ``ensconce.yaml``.
        source: the backup.
        texts: shares of it.

    Raises:
        InputError: ``backup.*``: see :func:`~ensconce.keys.backup.open_backup`; ``keystore.exists``;
            ``backup.owner``: the backup is of another owner.
        IntegrityError: the backup or the log is damaged.
    """
    place = place_of(owner)
    if place.read() is not None:
        raise InputError(
            "keystore.exists",
            f"there is a keystore in {place} already",
            rule="a keystore is never overwritten",
            remedy="move it away first, if it is worth nothing any more",
        )
    data = read_bounded(source, _MAX_BACKUP)
    with _alone(owner), open_backup(data, texts) as contents:
        # As a writer again, or a log that one left unfinished would keep the keystore from coming back.
        log = AuditLog.open(open_state(owner).log, _owner_key(owner, contents), unix_now, begin=False)
        entries = list(log.entries())
        gone, highest = retired_in(entries)
        records, retired = dict(contents.records), []
        for key_id, record in contents.records.items():
            if key_id in gone and record.entry.retired is None:
                records[key_id] = Record(replace(record.entry, retired=unix_now()), None)
                retired.append(key_id)
        added = {str(each.fields["key_id"]) for each in entries if each.event == "key.added"}
        whole = Contents(contents.identity, max(contents.generation, highest), records)
        log.append(
            "keystore.recovered",
            generation=whole.generation,
            sha256=hashlib.sha256(data).hexdigest(),
        )
        forget(owner)  # a change of what opened the keystore that is lost
        entry = entry_of(owner.deployment())
        unlock = _recovery_unlock(owner, entry)
        SealedKeystore.create(place, unlock, deployment=owner.deployment().service.domain, contents=whole, now=unix_now)
        return Recovered(whole.entries(), tuple(sorted(retired)), tuple(sorted(added - set(records))))


def _owner_key(owner: OwnerFolder, contents: Contents) -> Ed25519PrivateKey:
    record, key = contents.records.get("signing/owner"), None
    if record is not None and record.secret is not None:
        key = load_der_private_key(bytes(record.secret), password=None)
    if not isinstance(key, Ed25519PrivateKey) or key.public_key() != owner.public_key():
        raise InputError(
            "backup.owner",
            "the backup is of another owner than this folder",
            rule=f"its signing key belongs to {owner.public_key_file}",
            remedy="name the right folder with --owner",
        )
    return key


def _recovery_unlock(owner: OwnerFolder, entry: KeystoreEntry) -> Unlock:
    if isinstance(entry, FileEntry):
        # One that is there opened the keystore that is lost, or was made by a recovery that was interrupted.
        return KeyFile(owner.unlock_file) if owner.unlock_file.exists() else new_key_file(owner.unlock_file)
    return _new_unlock(owner, entry)


def _new_unlock(owner: OwnerFolder, entry: KeystoreEntry) -> Unlock:
    if isinstance(entry, PassphraseEntry):
        first = owner.ask("New passphrase of the keystore: ")
        if owner.ask("The same again: ") != first:
            raise InputError("keystore.passphrase", "the two passphrases differ", remedy="type them once more")
        return Passphrase(first)
    unlock = unlock_of(entry, owner.path, owner.ask)
    if isinstance(unlock, KeyFile):
        new_key_file(unlock.successor)
    return unlock


def _alone(owner: OwnerFolder) -> AbstractContextManager[None]:
    """Keep a second one of these commands out."""
    busy = InputError(
        "keystore.busy", "what opens the keystore is just being changed", remedy="wait until that is done"
    )
    return alone_in(owner.path, busy)
