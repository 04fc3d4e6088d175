"""What the host says at the start, and what Gramine is told to give up: arguments, environment, switches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ensconce.enclave.lint_files import Files
from ensconce.enclave.lint_finding import Hit
from ensconce.enclave.lint_keys import value_is_on
from ensconce.enclave.lint_source import Reading, is_template

__all__ = ["arguments", "environment", "switches"]

_INSECURE = {
    "insecure__use_cmdline_argv": "argv.host",
    "insecure__use_host_env": "env.host",
    "insecure__rpc_thread_num": "insecure.rpc_threads",
    "rpc_thread_num": "insecure.rpc_threads",
    "insecure__allow_memfaults_without_exinfo": "insecure.memfaults",
    "insecure__disable_aslr": "insecure.aslr",
    "insecure__allow_eventfd": "insecure.eventfd",
    "insecure_allow_eventfd": "insecure.eventfd",
}
# These have a rule of their own: see `keys_in_manifest` of lint_files.
_KEYS = ("insecure__keys", "insecure__protected_files_key")
_SWITCHES = (
    ("sgx.debug", "debug.on"),
    ("sgx.enable_stats", "debug.profile"),
    ("sgx.print_stats", "debug.profile"),
    ("sgx.vtune_profile", "debug.profile"),
    ("sgx.allow_file_creation", "allowed_files.creation"),
    ("sys.enable_extra_runtime_domain_names_conf", "names.host"),
    ("sys.experimental__enable_flock", "experimental.on"),
)
_SEARCH_PATHS = (
    *("LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT", "GCONV_PATH", "OPENSSL_CONF", "OPENSSL_ENGINES", "OPENSSL_MODULES"),
    *("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONSTARTUP", "PATH", "BASH_ENV", "ENV", "CLASSPATH"),
    *("NODE_PATH", "PERL5LIB", "PERLLIB", "RUBYLIB", "LUA_PATH", "LUA_CPATH", "R_LIBS"),
)
# In these a name without a slash is looked for where libraries are, and blanks separate, too.
_LIBRARIES = ("LD_PRELOAD", "LD_AUDIT")
_INTERPRETER = re.compile(r"(ba|da|k|z)?sh|busybox|python[\d.]*|perl[\d.]*|ruby[\d.]*|node|lua[\d.]*|php[\d.]*|Rscript")
_SECRET_NAME = re.compile(r"SECRET|PASSWORD|PASSWD|PASSPHRASE|TOKEN|CREDENTIAL|API_?KEY|PRIVATE|ACCESS_KEY|_KEY$")
_NO_SECRET = re.compile(r"_(FILE|PATH|DIR|URL|URI|NAME|ID|SERVERS?|ENABLED?)$|^SECRET_PROVISION_(?!SECRET_STRING$)")
_SECRET_VALUE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bghp_[A-Za-z0-9]{36}\b")
_FILE_KEY = re.compile(r"(^|_)(PF|PROTECTED_FILES?|WRAP|ENCRYPTED_FILES?)_KEY$")


def arguments(reading: Reading, files: Files) -> Iterator[Hit]:
    """Where the arguments come from."""
    source = reading.get("loader.argv_src_file")
    if source is not None:
        yield Hit("argv.file", "loader.argv_src_file", f"arguments come from {source}")
    yield from _script(reading, files)
    if source is None and not reading.get("loader.argv") and not _on(reading, "loader.insecure__use_cmdline_argv"):
        yield Hit("argv.missing", "loader.argv", "no arguments are given")


def _script(reading: Reading, files: Files) -> Iterator[Hit]:
    """The file that an interpreter is given to run."""
    argv, program = reading.get("loader.argv"), reading.get("libos.entrypoint")
    if not isinstance(argv, list) or not _INTERPRETER.fullmatch(str(program).rpartition("/")[2]):
        return
    for index, item in enumerate(argv[1:], start=1):
        if isinstance(item, str) and not item.startswith("-"):
            if files.host_may_write(item):
                yield Hit("argv.script", f"loader.argv[{index}]", f"the program runs {item}, which the host may write")
            return


def environment(reading: Reading, files: Files) -> Iterator[Hit]:
    """Where the environment comes from, and what it gives away."""
    source = reading.get("loader.env_src_file")
    if source is not None:
        yield Hit("env.file", "loader.env_src_file", f"variables come from {source}")
    for name, entry in reading.table("loader.env").items():
        key = f"loader.env.{name}"
        if isinstance(entry, Mapping):
            if value_is_on(entry.get("passthrough", False)):
                yield Hit("env.passthrough", key, f"{name} comes from the host")
                continue
            entry = entry.get("value")
        if isinstance(entry, str):
            yield from _variable(name, entry, key, files)


def _variable(name: str, value: str, key: str, files: Files) -> Iterator[Hit]:
    if _FILE_KEY.search(name) and not name.startswith("SECRET_PROVISION_") and value:
        yield Hit("env.key", key, f"{name} holds a key of encrypted files")
    elif _looks_secret(name, value):
        yield Hit("env.secret", key, f"{name} looks like a secret, and has a value")
    if name in _SEARCH_PATHS:
        for part in re.split("[: ;]" if name in _LIBRARIES else "[:;]", value):
            if part and not (name in _LIBRARIES and "/" not in part) and files.host_may_add(part):
                yield Hit("env.search_path", key, f"{name} leads to {part}, which the host may write to")
    if name.startswith("RA_TLS_ALLOW_") and value_is_on(value):
        yield Hit("ratls.tolerant", key, f"{name} is on")


def _looks_secret(name: str, value: str) -> bool:
    if _SECRET_VALUE.search(value):
        return True
    named = _SECRET_NAME.search(name) and not _NO_SECRET.search(name)
    # A path, a switch or a number is no secret, whatever the variable is called.
    return bool(named) and len(value) > 5 and not value.startswith(("/", "file:", "http")) and not is_template(value)


def switches(reading: Reading) -> Iterator[Hit]:
    """Options that are on and should not be, and those that are off and should be on."""
    for key, value in reading.leaves():
        parts = key.split(".")
        name = next((part for part in parts if part.startswith("insecure__")), parts[-1])
        if key.startswith(("loader.env.", "fs.mounts", *(f"fs.{each}" for each in _KEYS))) or name in _KEYS:
            continue
        code = _INSECURE.get(name) or ("insecure.unknown" if name.startswith("insecure__") else None)
        if code:
            yield from _switch(code, key, value)
    for key, code in _SWITCHES:
        yield from _switch(code, key, reading.get(key))
    profile = reading.get("sgx.profile.enable")
    if profile not in (None, "none", False, 0):
        yield Hit("debug.profile", "sgx.profile.enable", f"sgx.profile.enable is {profile!r}")
    if reading.get("sgx.debug") is None and _is_graphene(reading):
        yield Hit("debug.default", "sgx.debug", "sgx.debug is not set")
    if reading.get("sys.allowed_ioctls"):
        yield Hit("ioctl.allowed", "sys.allowed_ioctls", "device calls pass through")
    if reading.get("sys.debug__mock_syscalls"):
        yield Hit("syscalls.mocked", "sys.debug__mock_syscalls", "system calls are mocked")
    if reading.get("libos.check_invalid_pointers") is False:
        yield Hit("pointers.unchecked", "libos.check_invalid_pointers", "pointers in system calls are not checked")
    yield from _log(reading)
    yield from _users(reading)


def _switch(code: str, key: str, value: object) -> Iterator[Hit]:
    if is_template(value):
        if "true" in str(value).lower() or not re.search(r"['\"`]", str(value)):
            yield Hit(code, key, f"{key} may be switched on: {value}", severity="warn")
    elif value is not None and value_is_on(value):
        yield Hit(code, key, f"{key} is switched on")


def _log(reading: Reading) -> Iterator[Hit]:
    for key in ("loader.log_level", "loader.debug_type"):
        level = reading.get(key)
        if is_template(level):
            yield Hit("template.computed", key, f"{key} is computed: {level}")
        elif level == "warning":
            yield Hit("log.warnings", key, f"{key} is {level!r}")
        elif level not in (None, "none", "error"):
            yield Hit("log.level", key, f"{key} is {level!r}")


def _users(reading: Reading) -> Iterator[Hit]:
    for key in ("loader.uid", "loader.gid"):
        value = reading.get(key)
        if is_template(value):
            yield Hit("uid.computed", key, f"{key} is computed: {value}")
        elif value == 0 and value is not False:
            yield Hit("uid.root", key, f"{key} is 0")


def _on(reading: Reading, key: str) -> bool:
    value: Any = reading.get(key)
    return value is not None and (is_template(value) or value_is_on(value))


def _is_graphene(reading: Reading) -> bool:
    """A manifest from before Gramine 1.0; ``libos.entrypoint`` came with Graphene 1.2."""
    return reading.get("libos.entrypoint") is None and any(
        reading.get(key) is not None for key in ("loader.exec", "loader.preload", "loader.execname", "fs.mount")
    )
