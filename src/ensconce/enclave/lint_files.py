"""Which files the host may write, which it cannot change, and which it cannot read; and what is wrong with that."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ensconce.enclave.contents import NEVER_INSIDE
from ensconce.enclave.lint_finding import Hit
from ensconce.enclave.lint_names import kind_of, looks_secret
from ensconce.enclave.lint_source import Reading, is_template
from ensconce.errors import InputError

__all__ = ["Files", "Listed", "MountEntry", "file_findings"]

_SPECIAL_KEYS = {"_sgx_mrenclave", "_sgx_mrsigner"}
_GRAMINES = re.compile(r"/(dev(/u?random|/attestation(/.*)?)?|proc|sys)$")
_DEBUG = 0x2
_MAX_PATH = 4096


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry of a list of files: its URI, the key where it stands, and the path behind ``file:`` or ``dev:``."""

    uri: str
    key: str

    @property
    def path(self) -> str:
        """The path outside, without a slash at its end; ``.`` is the folder of the start."""
        return _path(self.uri)

    @property
    def is_folder(self) -> bool:
        """It is written as a folder."""
        return self.uri.endswith("/")


@dataclass(frozen=True, slots=True)
class MountEntry:
    """A mount: the path inside, the URI outside, how, and under which key."""

    path: str
    uri: str
    type: str
    key_name: str
    key: str


@dataclass(frozen=True, slots=True)
class Files:
    """What a manifest says of files.

    Attributes:
        trusted: ``sgx.trusted_files``, arrays and Graphene's tables alike.
        allowed: ``sgx.allowed_files``.
        harmless: URIs of allowed files that need no finding of their own.
        mounts: ``fs.root`` first when it is given, then the others in their order; later ones win.
        start: the folder inside in which the program begins, ``fs.start_dir``.
        strict: files of no list are refused.
    """

    trusted: tuple[Listed, ...]
    allowed: tuple[Listed, ...]
    harmless: frozenset[str]
    mounts: tuple[MountEntry, ...]
    start: str
    strict: bool
    _trusted: Mapping[str, Listed]
    _allowed: Mapping[str, Listed]
    _with_allowed: frozenset[str]
    _points: Mapping[str, tuple[int, MountEntry]]

    @classmethod
    def of(cls, reading: Reading, harmless: frozenset[str]) -> Files:
        """Collect them. ``harmless`` are allowed files that need no finding of their own."""
        trusted = tuple(_listed(reading, "sgx.trusted_files"))
        allowed = tuple(_listed(reading, "sgx.allowed_files"))
        mounts = tuple(_mounts(reading))
        return cls(
            trusted=trusted,
            allowed=allowed,
            harmless=harmless,
            mounts=mounts,
            start=str(reading.get("fs.start_dir") or "/"),
            strict=reading.get("sgx.file_check_policy") in (None, "strict"),
            _trusted={entry.path: entry for entry in reversed(trusted)},
            _allowed={entry.path: entry for entry in reversed(allowed)},
            _with_allowed=frozenset(posixpath.dirname(entry.path) for entry in allowed if entry.uri not in harmless),
            _points={_path(mount.path): (index, mount) for index, mount in enumerate(mounts)},
        )

    def outside(self, path: str) -> tuple[str, str]:
        """Where a path inside lies outside, and by which type of mount; relative ones begin where the program does."""
        inside = _path(posixpath.join("/", self.start, path))
        on_the_way = [(*self._points[point], point) for point in _upwards(inside) if point in self._points]
        if on_the_way:
            # What is mounted later hides what was mounted below it.
            _, mount, point = max(on_the_way, key=lambda each: each[0])
            return _path(f"{mount.uri}/{inside[len(point) :]}"), mount.type
        # Without fs.root the folder of the start is the root.
        return _path(inside.lstrip("/") or "."), "chroot"

    def trusts(self, uri: str) -> bool:
        """The file outside is a trusted one, by itself or in a trusted folder, and not an allowed one.

        Gramine 1.9 (``libos/src/fs/chroot/fs.c``) looks into ``sgx.allowed_files`` first, and hashes nothing there.
        """
        path = _path(uri)
        listed = path in self._trusted or any(
            point in self._trusted and self._trusted[point].is_folder for point in _upwards(path)
        )
        return listed and self.allows(path) is None

    def allows(self, path: str) -> Listed | None:
        """The allowed file or folder that the path outside belongs to."""
        return next((self._allowed[point] for point in _upwards(path) if point in self._allowed), None)

    def host_may_write(self, inside: str) -> bool:
        """The host chooses what is read under this path inside."""
        outside, kind = self.outside(inside)
        return kind == "chroot" and self.allows(outside) is not None

    def host_may_add(self, folder: str) -> bool:
        """The host chooses what is found in this folder inside, or one of the things in it."""
        outside, kind = self.outside(folder)
        return self.host_may_write(folder) or (kind == "chroot" and outside in self._with_allowed)


def file_findings(reading: Reading, files: Files, *, ours: bool) -> Iterator[Hit]:
    """Everything that is wrong with files: allowed ones, mounts, trusted ones, keys, the program itself."""
    yield from _allowed(files, ours=ours)
    yield from _mount_findings(files)
    yield from _trusted(files)
    yield from _keys(reading, files)
    policy = reading.get("sgx.file_check_policy")
    if is_template(policy):
        yield Hit("files.policy", "sgx.file_check_policy", f"sgx.file_check_policy is {policy}", severity="warn")
    elif not files.strict:
        yield Hit("files.policy", "sgx.file_check_policy", f"sgx.file_check_policy is {policy!r}")
    yield from _entrypoint(reading, files)


def _allowed(files: Files, *, ours: bool) -> Iterator[Hit]:
    for entry in files.trusted:
        allowed = files.allows(entry.path)
        if allowed is not None:
            yield Hit("allowed_files.trusted", entry.key, f"{entry.uri} is trusted, and {allowed.uri} allows it")
    for entry in files.allowed:
        if entry.uri in files.harmless:
            continue
        if entry.uri.startswith("dev:"):
            code = "allowed_files.device"
        else:
            code = f"allowed_files.{kind_of(entry.path, is_folder=entry.is_folder)}"
        problem = f"{entry.uri} is an allowed file"
        # In a manifest of ours every allowed file is known; any other is a mistake, whatever it holds.
        yield Hit(code, entry.key, problem, severity="refuse" if ours else None)


def _mount_findings(files: Files) -> Iterator[Hit]:
    for mount in files.mounts:
        if mount.type != "tmpfs" and _GRAMINES.match(_path(mount.path)):
            yield Hit("mount.gramines", mount.key, f"{mount.path} is mounted from {mount.uri}")
        if mount.type == "untrusted_shm":
            yield Hit("mount.shared_memory", mount.key, f"{mount.path} is memory shared with the host")
        elif mount.type == "chroot":
            outside = _path(mount.uri)
            if looks_secret(mount.path) or looks_secret(outside):
                yield Hit("mount.secret", mount.key, f"{mount.path} is mounted in the clear from {mount.uri}")
            allowed = files.allows(outside)
            if allowed is not None and kind_of(allowed.path, is_folder=True) == "folder":
                yield Hit("mount.writable", mount.key, f"{mount.path} is a mount that may be written, unencrypted")


def _trusted(files: Files) -> Iterator[Hit]:
    folders = [entry for entry in files.trusted if entry.is_folder]
    if folders:
        names = ", ".join(entry.uri for entry in folders[:4]) + (", ..." if len(folders) > 4 else "")
        yield Hit("trusted_files.folder", folders[0].key, f"whole folders are trusted: {names}")
    for entry in files.trusted:
        if looks_secret(entry.path):
            yield Hit("trusted_files.secret", entry.key, f"{entry.uri} is a trusted file")
    for name in NEVER_INSIDE:
        module = name.replace("-", "_")
        inside = next((entry for entry in files.trusted if module in entry.path.split("/")), None)
        if inside is not None:
            yield Hit("trusted_files.contents", inside.key, f"{name} is in the image")


def _keys(reading: Reading, files: Files) -> Iterator[Hit]:
    for table in ("fs.insecure__keys", "sgx.insecure__keys"):
        for name in reading.table(table):
            yield Hit("key.in_manifest", f"{table}.{name}", f"the key {name!r} is written into the manifest")
    for key in ("fs.insecure__protected_files_key", "sgx.insecure__protected_files_key", "sgx.protected_files_key"):
        if reading.get(key):
            yield Hit("key.in_manifest", key, "a key is written into the manifest")
    flags = reading.get("sgx.seal_key.flags_mask")
    if isinstance(flags, str) and not is_template(flags) and not _has_debug(flags):
        yield Hit("key.seal_mask", "sgx.seal_key.flags_mask", f"sgx.seal_key.flags_mask is {flags}")
    encrypted = [mount for mount in files.mounts if mount.type == "encrypted"]
    seen: dict[str, int] = {}
    for mount in encrypted:
        seen[mount.key_name] = seen.get(mount.key_name, 0) + 1
        if mount.key_name == "_sgx_mrsigner":
            yield Hit("key.mrsigner", mount.key, f"{mount.path} is encrypted for every enclave of the signer")
        elif mount.key_name not in _SPECIAL_KEYS and seen[mount.key_name] == 2:
            yield Hit("key.shared", mount.key, f"the key {mount.key_name!r} opens several mounts")


def _has_debug(mask: str) -> bool:
    try:
        return bool(int(mask, 16) & _DEBUG)
    except ValueError:
        return False


def _entrypoint(reading: Reading, files: Files) -> Iterator[Hit]:
    key = next((key for key in ("libos.entrypoint", "loader.exec") if isinstance(reading.get(key), str)), None)
    if key is None:
        yield Hit("entrypoint.missing", "libos.entrypoint", "libos.entrypoint is not set")
        return
    program = str(reading.get(key))
    outside = _path(program) if key == "loader.exec" else files.outside(program)[0]
    kind = "chroot" if key == "loader.exec" else files.outside(program)[1]
    computed = is_template(program) or any(is_template(mount.uri + mount.path) for mount in files.mounts)
    names = {outside}
    if program.startswith("file:") or computed:  # as releases before 1.0 had it
        names |= {_path(program), _path(program.lstrip("/"))}
    if any(files.trusts(f"file:{name}") for name in names) or kind == "encrypted":
        return
    where = files.allows(outside)
    problem = f"{program} is not a trusted file" + (f", and {where.uri} allows it" if where else "")
    yield Hit("entrypoint.host", key, problem, severity="note" if computed and not where else None)


def _listed(reading: Reading, key: str) -> Iterator[Listed]:
    value: Any = reading.get(key)
    if isinstance(value, Mapping):  # Graphene's: a name for each
        for name, uri in value.items():
            if isinstance(uri, str):
                yield Listed(uri, f"{key}.{name}")
    for index, entry in enumerate(value if isinstance(value, list) else ()):
        uri = entry.get("uri") if isinstance(entry, Mapping) else entry
        if isinstance(uri, str):
            yield Listed(uri, f"{key}[{index}]")


def _mounts(reading: Reading) -> Iterator[MountEntry]:
    root = reading.table("fs.root")
    if root:
        yield _mount({"path": "/", **root}, "fs.root")
    for name, entry in reading.table("fs.mount").items():
        if isinstance(entry, Mapping):
            yield _mount(entry, f"fs.mount.{name}")
    mounts = reading.get("fs.mounts")
    for index, entry in enumerate(mounts if isinstance(mounts, list) else ()):
        if isinstance(entry, Mapping):
            yield _mount(entry, f"fs.mounts[{index}]")
    for old, key_name in (("", "default"), ("mrenclave_", "_sgx_mrenclave"), ("mrsigner_", "_sgx_mrsigner")):
        for file in _listed(reading, f"sgx.protected_{old}files"):
            yield MountEntry(posixpath.join("/", file.path), file.uri, "encrypted", key_name, file.key)


def _mount(entry: Mapping[str, Any], key: str) -> MountEntry:
    path, uri, kind, name = (entry.get(part) for part in ("path", "uri", "type", "key_name"))
    return MountEntry(
        path if isinstance(path, str) else "/",
        uri if isinstance(uri, str) else "",
        kind if isinstance(kind, str) else "chroot",
        name if isinstance(name, str) else "default",
        key,
    )


def _path(uri: str) -> str:
    scheme = next((each for each in ("file:", "dev:") if uri.startswith(each)), "")
    path = uri[len(scheme) :]
    # normpath keeps two slashes at the beginning, which POSIX lets mean something else.
    return posixpath.normpath(path).replace("//", "/", 1) if path else "."


def _upwards(path: str) -> Iterator[str]:
    """A path, and every folder that it lies in; for a relative one, the folder of the start at last.

    Raises:
        InputError: ``manifest.path``: it is longer than any that Gramine opens.
    """
    if len(path) > _MAX_PATH:
        raise InputError(
            "manifest.path", "a path is too long", found=f"{len(path)} characters", rule=f"at most {_MAX_PATH}"
        )
    while path not in ("", "/", "."):
        yield path
        path = posixpath.dirname(path)
    yield path or "."
