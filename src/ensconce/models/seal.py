"""Sealing a version: from an engine's folder to ciphertext, key and signed description.

The order, and what an interruption (an error, Ctrl-C, a kill, a power cut) leaves at each point:

1. Under a lock on ``models/<name>/``, encrypt every file into ``.<version>.sealing/`` with a key that is in memory
   only; sign the description; sync all of it. *Interrupted: ciphertext that nothing will ever open, removed at once or
   by the next seal of this version.*
2. Put the key into the keystore. *Interrupted from here on: the key is kept and so is the complete staging folder;
   sealing the same files as the same version again compares them and goes on with step 3. Other files are refused: they
   are another version.*
3. Publish the description as ``<version>.json``.
4. Rename the staged files to ``<version>/``: the version exists from this moment, and is whole.
5. Remove what remains of the staging folder.

A replica looks for folders with a number for a name, so it never sees a version before step 4.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ensconce.encfile import WRAP_KEY_SIZE, Fingerprint, decrypt_bytes, encrypt_file, encrypted_size
from ensconce.errors import EnsconceError, InputError
from ensconce.files import alone_in, read_bounded, sync_folder, write_aside
from ensconce.keys import KeyEntry, Keystore
from ensconce.models.contents import contents_bytes
from ensconce.models.description import MAX_DESCRIPTION, FileDescription, ModelDescription, parse_and_verify, sign
from ensconce.models.importing.record import MAX_RECORD, Origin, parse_record
from ensconce.models.layout import (
    CONTENTS,
    IMPORT,
    Engine,
    ScannedFile,
    check_complete,
    check_name,
    check_version,
    embedded_path,
)
from ensconce.models.source import FolderSource, Progress, Source
from ensconce.servables import key_id

__all__ = ["seal"]


def seal(
    source: Path | Source,
    out_models: Path,
    *,
    name: str,
    version: int,
    engine: Engine,
    keystore: Keystore,
    signing_key: Ed25519PrivateKey,
    now: Callable[[], int],
    progress: Progress | None = None,
) -> ModelDescription:
    """Seal one version of a model under a fresh key.

    Args:
        source: the folder of the version in the form that ``engine`` reads, to which nothing may write meanwhile; or a
            version that was opened in memory.
        out_models: the folder ``models``; ``<name>/<version>/`` and ``<name>/<version>.json`` appear in it.
        name: 1 to 63 of ``a-z 0-9 _ -``, beginning with a letter or digit.
        version: 1 to 2**31 - 1.
        engine: which engine serves it; decides which files must be there.
        keystore: receives the 16-byte wrap key under ``model/<name>/<version>``.
        signing_key: signs the description.
        now: the clock, Unix time in seconds.
        progress: called with the number of further bytes of plaintext that are done.

    Returns:
        The description as published.

    Raises:
        InputError: ``model.name``, ``.version``, ``.engine``, ``.layout``, ``.read``, ``.import``: nothing to seal;
            ``model.exists``: the version is there; ``key.exists``: its key is there, live or retired; ``model.busy``:
            another process is sealing this model; ``model.write``, ``file.*``, ``encfile.*``: a file cannot be read or
            written.
        IntegrityError: the keystore is damaged.
    """
    check_name(name)
    check_version(version)
    if isinstance(source, Path):
        source = FolderSource(source)
    check_complete(source.files, engine)
    job = _Job(source, out_models / name, name, version, engine, keystore, signing_key, now)
    with _lock(job.folder):
        job.check_absent()
        entry = job.key_entry()
        if entry is None:
            job.stage(progress or (lambda _: None))
        else:
            job.check_resumable(entry)
        return job.publish()


@dataclass(frozen=True)
class _Job:
    """One version on its way; a method for each step."""

    source: Source
    folder: Path
    name: str
    version: int
    engine: Engine
    keystore: Keystore
    signing_key: Ed25519PrivateKey
    now: Callable[[], int]

    @property
    def key_id(self) -> str:
        return key_id(self.name, self.version)

    @property
    def target(self) -> Path:
        return self.folder / str(self.version)

    @property
    def public(self) -> Path:
        return self.folder / f"{self.version}.json"

    @property
    def staging(self) -> Path:
        return self.folder / f".{self.version}.sealing"

    @property
    def staged_files(self) -> Path:
        return self.staging / "files"

    @property
    def staged_description(self) -> Path:
        return self.staging / "description.json"

    def embedded(self, path: str) -> str:
        return embedded_path(self.name, self.version, path)

    def key_entry(self) -> KeyEntry | None:
        return next((entry for entry in self.keystore.entries() if entry.key_id == self.key_id), None)

    def check_absent(self) -> None:
        if os.path.lexists(self.target):
            shutil.rmtree(self.staging, ignore_errors=True)  # step 5, if it was missed
            raise InputError(
                "model.exists",
                f"version {self.version} of {self.name} exists",
                found=str(self.target),
                rule="a sealed version never changes",
                remedy="seal the model as its next version",
            )

    def stage(self, progress: Progress) -> None:
        """Steps 1 and 2."""
        key = secrets.token_bytes(WRAP_KEY_SIZE)
        try:
            with _writing(self.staging):
                if self.staging.exists():
                    shutil.rmtree(self.staging)  # of a seal that was killed: its key is lost, its ciphertext worthless
                self.staged_files.mkdir(parents=True)
                described = self._encrypt(key, progress)
                description = ModelDescription(
                    name=self.name,
                    version=self.version,
                    engine=self.engine,
                    files=tuple(sorted(described, key=lambda file: file.path)),
                    key_id=self.key_id,
                    created=self.now(),
                    origin=self._origin(),
                )
                write_aside(self.staged_description, sign(description, self.signing_key))
                for folder, _, _ in os.walk(self.staging):
                    sync_folder(Path(folder))
                sync_folder(self.folder)
            self.keystore.put(self.key_id, key, kind="wrap")
        except BaseException:
            if not self._key_is_kept(key):
                shutil.rmtree(self.staging, ignore_errors=True)
            raise

    def _origin(self) -> Origin | None:
        if all(file.path != IMPORT for file in self.source.files):
            return None
        record = parse_record(self.source.read(IMPORT, MAX_RECORD + 1))
        if record.engine != self.engine:
            raise InputError(
                "model.engine",
                f"this version was imported for {record.engine}, and is to be sealed for {self.engine}",
                remedy=f"name {record.engine} as the model's engine, or import it again for {self.engine}",
            )
        return record.origin

    def _encrypt(self, key: bytes, progress: Progress) -> list[FileDescription]:
        described = []
        for file in self.source.files:
            target = self.staged_files / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            fingerprint = self.source.encrypt(file.path, target, key, self.embedded(file.path), progress)
            described.append(_describe(target, file, fingerprint))
        contents = contents_bytes(tuple(file.path for file in self.source.files))
        plain, target = self.staging / "contents.json", self.staged_files / CONTENTS
        write_aside(plain, contents)
        fingerprint = encrypt_file(plain, target, key, embedded_path=self.embedded(CONTENTS), follow=False)
        described.append(_describe(target, ScannedFile(CONTENTS, len(contents)), fingerprint))
        return described

    def _key_is_kept(self, key: bytes) -> bool:
        """Whether the keystore holds this very key; when nobody can tell, it may."""
        try:
            return self.keystore.get(self.key_id) == key
        except EnsconceError as error:
            return error.check not in ("key.unknown", "key.retired")

    def check_resumable(self, entry: KeyEntry) -> None:
        """Refuse unless an earlier seal of these very files was interrupted after its step 2."""
        try:
            same = entry.retired is None and self._staged_is_source(self.keystore.get(self.key_id))
        except (EnsconceError, OSError):
            same = False
        if not same:
            raise InputError(
                "key.exists",
                f"the key of version {self.version} of {self.name} exists, and the version itself does not",
                found="a live key" if entry.retired is None else "a retired key",
                rule="a key belongs to one version of one model, and is never used for other files",
                remedy="seal the model as its next version"
                + ("" if entry.retired else f", and retire {self.key_id} if nothing needs it"),
            )

    def _staged_is_source(self, key: bytes) -> bool:
        data = read_bounded(self.staged_description, MAX_DESCRIPTION)
        description = parse_and_verify(data, self.signing_key.public_key())
        wanted = {file.path: file.size for file in self.source.files}
        staged = {file.path: file.size for file in description.files if file.path != CONTENTS}
        if (description.key_id, description.engine, staged) != (self.key_id, self.engine, wanted):
            return False
        return all(
            self.source.same(path, decrypt_bytes(self.staged_files / path, key, verify_path=self.embedded(path)))
            for path in wanted
        )

    def publish(self) -> ModelDescription:
        """Steps 3 to 5."""
        data = read_bounded(self.staged_description, MAX_DESCRIPTION)
        description = parse_and_verify(data, self.signing_key.public_key())
        write_aside(self.public, data)
        with _writing(self.target):
            self.staged_files.rename(self.target)
            sync_folder(self.folder)
        shutil.rmtree(self.staging, ignore_errors=True)
        return description


def _describe(target: Path, file: ScannedFile, fingerprint: Fingerprint) -> FileDescription:
    size = target.stat().st_size
    if size != encrypted_size(file.size):
        raise InputError(
            "model.read",
            f"{file.path} changed while it was sealed",
            remedy="let nothing write to it, and seal it again",
        )
    return FileDescription(path=file.path, size=file.size, encrypted_size=size, fingerprint=fingerprint.hex())


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Make the model's folder and hold it alone; an empty one does not outlive a failure."""
    busy = InputError("model.busy", f"another process is sealing into {folder}", remedy="wait until it is done")
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(alone_in(folder, busy))
        except OSError as error:
            raise _cannot_write(folder, error) from error
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                folder.rmdir()
            raise


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> InputError:
    return InputError(
        "model.write", f"cannot write {path}: {error.strerror or error}", remedy="check the folder and the free space"
    )
