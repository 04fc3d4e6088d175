"""Gramine's signed manifest (`.manifest.sgx`), read for what it says about the enclave's identity and start.

Source: Gramine 1.9, "Manifest syntax". The bytes are the owner's, but they pass through the host's hands, so every
size is bounded and every value that the start depends on is checked. Options that hand a choice to the host
(`insecure__*`, passed-through environment, `argv_src_file`) are recorded in :attr:`Manifest.insecure`; whether they
are tolerable is for the lint, the launcher and the policy to say.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ensconce.errors import InputError

__all__ = ["MAX_MANIFEST_SIZE", "Manifest", "Mount", "TrustedFile", "load_signed", "load_toml", "parse_manifest"]

MAX_MANIFEST_SIZE = 8 * 1024 * 1024
"""Longest manifest that is read, in bytes; one that lists all of Python's library takes 1.6 million."""

_MAX_DEPTH = 16
# Python's reader takes the cube of the number of parts of a key: one of 16 kB took two seconds.
_LONG_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){64}""", re.ASCII)
_AMBIGUOUS = re.compile(r"""\"{3}|'{3}|\\u0000|\\U00000000""")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_SIZE = re.compile(r"([0-9]{1,15})([KMG]?)")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True, slots=True)
class TrustedFile:
    """A file that the enclave accepts with these contents only.

    Attributes:
        uri: as in the manifest, beginning with `file:`.
        path: the URI without its scheme; a relative one is relative to the working directory of the launch.
        sha256: of the contents, 32 bytes.
    """

    uri: str
    path: str
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Mount:
    """A host path that appears inside the enclave under another name.

    Attributes:
        path: inside.
        uri: outside; empty for types that have none (`tmpfs`).
        type: `chroot` unless said otherwise.
    """

    path: str
    uri: str
    type: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest, as far as launching, measuring and linting need it.

    Attributes:
        raw: the very bytes; the measurement covers all of them.
        entrypoint: `libos.entrypoint`, the program inside the enclave.
        argv: `loader.argv`; empty when the manifest names none.
        env: `loader.env`, without passed-through variables.
        trusted_files: `sgx.trusted_files`.
        allowed_files: URIs of `sgx.allowed_files`, which the host may change at will.
        mounts: `fs.mounts`.
        file_check_policy: `sgx.file_check_policy`: what happens to files that are neither trusted nor allowed.
        log_level: `loader.log_level`.
        debug: `sgx.debug`.
        max_threads: `sgx.max_threads`.
        enclave_size: `sgx.enclave_size` in bytes.
        isv_prod_id: `sgx.isvprodid`.
        isv_svn: `sgx.isvsvn`.
        insecure: dotted names of the options that hand a choice to the host and are switched on.
    """

    raw: bytes
    entrypoint: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    trusted_files: tuple[TrustedFile, ...]
    allowed_files: tuple[str, ...]
    mounts: tuple[Mount, ...]
    file_check_policy: str
    log_level: str
    debug: bool
    max_threads: int
    enclave_size: int
    isv_prod_id: int
    isv_svn: int
    insecure: tuple[str, ...]


def parse_manifest(data: bytes) -> Manifest:
    """Read a signed manifest.

    Raises:
        InputError: not TOML, too large, a needed value is missing, or one has the wrong type or form; says which.
    """
    if len(data) > MAX_MANIFEST_SIZE:
        raise _wrong("size", "the manifest is too large", f"{len(data)} bytes", f"at most {MAX_MANIFEST_SIZE} bytes")
    try:
        document = load_signed(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _wrong("toml", "the manifest is not TOML", str(error)[:200], "TOML 1.0") from error
    insecure = _switched_on(document)
    libos, loader, sgx = (_table(document, name) for name in ("libos", "loader", "sgx"))
    env, passed_through = _environment(_table(loader, "env"))
    return Manifest(
        raw=data,
        entrypoint=_string(libos, "libos.entrypoint"),
        argv=tuple(_text(item, "loader.argv") for item in _array(loader, "loader.argv")),
        env=MappingProxyType(env),
        trusted_files=_trusted_files(sgx),
        allowed_files=tuple(_uri(item, "sgx.allowed_files") for item in _array(sgx, "sgx.allowed_files")),
        mounts=tuple(_mount(item) for item in _array(_table(document, "fs"), "fs.mounts")),
        file_check_policy=_text(sgx.get("file_check_policy", "strict"), "sgx.file_check_policy"),
        log_level=_text(loader.get("log_level", "error"), "loader.log_level"),
        debug=_boolean(sgx, "sgx.debug"),
        max_threads=_integer(sgx, "sgx.max_threads", 4, 4096),
        enclave_size=_size(sgx, "sgx.enclave_size"),
        isv_prod_id=_integer(sgx, "sgx.isvprodid", 0, 0xFFFF),
        isv_svn=_integer(sgx, "sgx.isvsvn", 0, 0xFFFF),
        insecure=(*insecure, *passed_through),
    )


def load_toml(text: str) -> dict[str, Any]:
    """What ``tomllib`` makes of a text, unless a key in it has so many parts that it would take hours.

    Raises:
        ValueError: it is not TOML, or has such a key.
        RecursionError: its arrays or tables are nested too deeply.
    """
    if (long := _LONG_KEY.search(text)) is not None:
        raise ValueError(f"a key of more than 64 parts begins at line {text.count(chr(10), 0, long.start()) + 1}")
    return tomllib.loads(text)


def load_signed(text: str) -> dict[str, Any]:
    """The same for a signed form, which Gramine reads with a reader of its own (tomlc99).

    Where the two would read different things, somebody could have signed what nobody has seen: that reader takes three
    quotes behind an escaped backslash for no end of a string, so that it finds options in what is text to others, and
    it ends names at a NUL.
    ``gramine-sgx-sign`` writes neither.

    Raises:
        ValueError, RecursionError: as :func:`load_toml`, and for such a text.
    """
    if (found := _AMBIGUOUS.search(text)) is not None:
        line = text.count("\n", 0, found.start()) + 1
        raise ValueError(f"a string of several lines, or a NUL, which Gramine reads otherwise, at line {line}")
    return load_toml(text)


def _environment(table: dict[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The variables that the manifest sets, and the names of those that it takes from the host."""
    env: dict[str, str] = {}
    passed_through: list[str] = []
    for name, value in table.items():
        where = f"loader.env.{name[:80]}"
        if not name or "=" in name or "\0" in name:
            raise _wrong("loader.env", "an environment variable has no proper name", _shown(name), "no '=' and no NUL")
        if isinstance(value, dict):
            if set(value) - {"passthrough", "value"} or type(value.get("passthrough", False)) is not bool:
                raise _wrong(
                    where, f"{where} is wrong", ", ".join(value)[:80], "{ value = STRING } or { passthrough = BOOL }"
                )
            if value.get("passthrough"):
                passed_through.append(f"loader.env.{name}.passthrough")
                continue
            if "value" not in value:
                continue
            value = value["value"]
        env[name] = _text(value, where)
    return env, tuple(passed_through)


def _trusted_files(sgx: dict[str, Any]) -> tuple[TrustedFile, ...]:
    where = "sgx.trusted_files"
    found: dict[str, TrustedFile] = {}
    for item in _array(sgx, where):
        if not isinstance(item, dict) or "sha256" not in item:
            remedy = "sign the manifest first; the template lists names, the signed manifest (.manifest.sgx) has hashes"
            raise _wrong(where, "a trusted file has no hash", _shown(item, 200), "{ uri = ..., sha256 = ... }", remedy)
        if set(item) != {"uri", "sha256"}:
            raise _wrong(where, "a trusted file has an unknown field", _shown(sorted(item), 200), "uri and sha256")
        uri, digest = _uri(item["uri"], where), item["sha256"]
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise _wrong(where, f"the hash of {uri} is none", _shown(digest), "64 hexadecimal digits")
        path = uri.removeprefix("file:")
        if path.endswith("/") or ".." in path.split("/"):
            raise _wrong(where, "a trusted file's path is ambiguous", uri, "a file, and no '..' in its path")
        file = TrustedFile(uri, path, bytes.fromhex(digest))
        if found.setdefault(path, file).sha256 != file.sha256:
            raise _wrong(where, "a trusted file is listed twice with different hashes", uri, "one hash for each file")
    return tuple(found.values())


def _mount(item: object) -> Mount:
    if not isinstance(item, dict):
        raise _wrong("fs.mounts", "a mount is not a table", _shown(item), "{ path = ..., uri = ... }")
    path = _text(item.get("path"), "fs.mounts.path")
    return Mount(path, _text(item.get("uri", ""), "fs.mounts.uri"), _text(item.get("type", "chroot"), "fs.mounts.type"))


def _switched_on(document: dict[str, Any]) -> tuple[str, ...]:
    """Names of all options, at any depth, that let the host choose."""
    names: list[str] = []
    pending = [("", document, 0)]
    while pending:
        prefix, table, depth = pending.pop()
        if depth > _MAX_DEPTH:
            raise _wrong("depth", "the manifest is nested too deeply", None, f"at most {_MAX_DEPTH} tables deep")
        for name, value in table.items():
            dotted = f"{prefix}{name}"
            # Variables and mounts may be called anything: their names are the owner's, not options.
            if dotted in ("loader.env", "fs.mounts"):
                continue
            if name.startswith("insecure__") or dotted in ("loader.argv_src_file", "loader.env_src_file"):
                if value not in (False, [], {}):
                    names.append(dotted)
            elif isinstance(value, dict):
                pending.append((f"{dotted}.", value, depth + 1))
    return tuple(sorted(names))


def _table(table: dict[str, Any], name: str) -> dict[str, Any]:
    value = table.get(name, {})
    if not isinstance(value, dict):
        raise _wrong(name, f"{name} is not a table", _shown(value), "a table")
    return value


def _array(table: dict[str, Any], where: str) -> list[Any]:
    value = table.get(where.rpartition(".")[2], [])
    if not isinstance(value, list):
        raise _wrong(where, f"{where} is not an array", _shown(value), "an array")
    return value


def _string(table: dict[str, Any], where: str) -> str:
    value = _text(table.get(where.rpartition(".")[2]), where)
    if not value:
        raise _wrong(where, f"{where} is empty", None, "a path")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or "\0" in value:
        problem = f"{where} is missing" if value is None else f"{where} is not a string without NUL"
        raise _wrong(where, problem, None if value is None else _shown(value), "a string without NUL")
    return value


def _uri(value: object, where: str) -> str:
    uri = _text(value, where)
    if not uri.startswith("file:") or uri == "file:":
        raise _wrong(where, "a file is not named by a file: URI", uri[:200], "file:PATH")
    return uri


def _boolean(table: dict[str, Any], where: str) -> bool:
    value = table.get(where.rpartition(".")[2], False)
    if type(value) is not bool:
        raise _wrong(where, f"{where} is not a boolean", _shown(value), "true or false")
    return value


def _integer(table: dict[str, Any], where: str, default: int, limit: int) -> int:
    value = table.get(where.rpartition(".")[2], default)
    if type(value) is not int or not 0 <= value <= limit:
        raise _wrong(where, f"{where} is out of range", _shown(value), f"0 to {limit}")
    return value


def _size(table: dict[str, Any], where: str) -> int:
    value = table.get(where.rpartition(".")[2], "256M")
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise _wrong(where, f"{where} is not a size", _shown(value), 'a string such as "512M"')
    return int(match[1]) * _UNITS[match[2]]


def _shown(value: object, limit: int = 80) -> str:
    try:
        return repr(value)[:limit]
    except ValueError:  # Python writes no more than 4300 digits, and reads any number of them in hexadecimal
        return "a number of thousands of digits"


def _wrong(
    where: str,
    problem: str,
    found: str | None,
    rule: str,
    remedy: str = "correct the manifest's template, then build and sign the enclave again",
) -> InputError:
    return InputError(f"manifest.{where}", problem, found=found, rule=rule, remedy=remedy)
