"""The options of a manifest: which ones Gramine 1.9 knows, and what became of those that it knows no more.

Source: Gramine 1.9, "Manifest syntax"; the same page of 1.0 to 1.8 and of Graphene for what was renamed or dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ensconce.enclave.lint_finding import Hit
from ensconce.enclave.lint_source import Reading, is_template

__all__ = ["options", "residue", "value_is_on"]

# Dotted names; `*` is one part of anybody's choice, `**` any number.
_BOOLEANS: Final = (
    "libos.check_invalid_pointers",
    "loader.insecure__disable_aslr",
    "loader.insecure__use_cmdline_argv",
    "loader.insecure__use_host_env",
    "sgx.debug",
    "sgx.edmm_enable",
    "sgx.enable_stats",
    "sgx.insecure__allow_memfaults_without_exinfo",
    "sgx.preheat_enclave",
    "sgx.profile.with_stack",
    "sgx.use_exinfo",
    "sgx.vtune_profile",
    "sys.disallow_subprocesses",
    "sys.enable_extra_runtime_domain_names_conf",
    "sys.enable_sigterm_injection",
    "sys.experimental__enable_flock",
    "sys.insecure__allow_eventfd",
)
_NUMBERS: Final = (
    "loader.gid",
    "loader.uid",
    "sgx.insecure__rpc_thread_num",
    "sgx.isvprodid",
    "sgx.isvsvn",
    "sgx.max_threads",
    "sgx.profile.frequency",
    "sys.fds.limit",
)
_TEXTS: Final = (
    "fs.insecure__keys.*",
    "fs.root.key_name",
    "fs.root.type",
    "fs.root.uri",
    "fs.start_dir",
    "libos.entrypoint",
    "loader.argv_src_file",
    "loader.entrypoint.sha256",
    "loader.entrypoint.uri",
    "loader.env_src_file",
    "loader.log_file",
    "loader.log_level",
    "sgx.cpu_features.amx",
    "sgx.cpu_features.avx",
    "sgx.cpu_features.avx512",
    "sgx.cpu_features.mpx",
    "sgx.cpu_features.pkru",
    "sgx.enclave_size",
    "sgx.file_check_policy",
    "sgx.profile.enable",
    "sgx.profile.mode",
    "sgx.remote_attestation",
    "sgx.seal_key.flags_mask",
    "sgx.seal_key.misc_mask",
    "sgx.seal_key.xfrm_mask",
    "sys.brk.max_size",
    "sys.stack.size",
)
_LISTS: Final = (
    "fs.mounts",
    "loader.argv",
    "sgx.allowed_files",
    "sgx.trusted_files",
    "sys.allowed_ioctls",
    "sys.debug__mock_syscalls",
)
_ANYTHING: Final = ("fs.root.enable_recovery", "loader.env.**", "sys.ioctl_structs.**")

# Known to earlier releases: what it is now.
_LEGACY: Final = {
    "fs.experimental__enable_sysfs_topology": "always on",
    "fs.insecure__protected_files_key": "fs.insecure__keys",
    "fs.mount.**": "fs.mounts, an array",
    "fs.root.path": "always /",
    "loader.argv0_override": "loader.argv",
    "loader.debug_type": "loader.log_level",
    "loader.entrypoint": "loader.entrypoint.uri, and needed no more",
    "loader.exec": "libos.entrypoint",
    "loader.execname": "libos.entrypoint",
    "loader.pal_internal_mem_size": "gone: memory is found as needed",
    "loader.preload": "loader.entrypoint.uri, and needed no more",
    "loader.syscall_symbol": "gone",
    "net.**": "gone",
    "sgx.allow_file_creation": "sgx.file_check_policy",
    "sgx.allowed_files.*": "an array",
    "sgx.edmm_enable_heap": "sgx.edmm_enable",
    "sgx.insecure__protected_files_key": "fs.insecure__keys",
    "sgx.nonpie_binary": "gone: found by Gramine itself",
    "sgx.print_stats": "sgx.enable_stats",
    "sgx.protected_files": 'fs.mounts with type = "encrypted"',
    "sgx.protected_files.*": 'fs.mounts with type = "encrypted"',
    "sgx.protected_files_key": "fs.insecure__keys",
    "sgx.protected_mrenclave_files": 'fs.mounts with type = "encrypted", key_name = "_sgx_mrenclave"',
    "sgx.protected_mrenclave_files.*": 'fs.mounts with type = "encrypted", key_name = "_sgx_mrenclave"',
    "sgx.protected_mrsigner_files": 'fs.mounts with type = "encrypted", key_name = "_sgx_mrsigner"',
    "sgx.protected_mrsigner_files.*": 'fs.mounts with type = "encrypted", key_name = "_sgx_mrsigner"',
    "sgx.ra_client_key": "gone with EPID",
    "sgx.ra_client_linkable": "gone with EPID",
    "sgx.ra_client_spid": "gone with EPID",
    "sgx.require_amx": "sgx.cpu_features.amx",
    "sgx.require_avx": "sgx.cpu_features.avx",
    "sgx.require_avx512": "sgx.cpu_features.avx512",
    "sgx.require_exinfo": "sgx.use_exinfo",
    "sgx.require_mpx": "sgx.cpu_features.mpx",
    "sgx.require_pkru": "sgx.cpu_features.pkru",
    "sgx.rpc_thread_num": "sgx.insecure__rpc_thread_num",
    "sgx.sign_file": "gone",
    "sgx.sigfile": "gone",
    "sgx.static_address": "gone",
    "sgx.support_exinfo": "sgx.use_exinfo",
    "sgx.thread_num": "sgx.max_threads",
    "sgx.trusted_children.**": "gone: children are of the same enclave",
    "sgx.trusted_files.*": "an array",
    "sgx.zero_heap_on_demand": "gone",
    "sys.ask_for_checkpoint": "gone",
    "sys.brk.size": "sys.brk.max_size",
    "sys.insecure_allow_eventfd": "sys.insecure__allow_eventfd",
}
_MOUNT_KEYS: Final = frozenset({"type", "path", "uri", "key_name", "enable_recovery"})


def _compiled(names: tuple[str, ...]) -> re.Pattern[str]:
    parts = (re.escape(name).replace(r"\*\*", ".+").replace(r"\*", "[^.]+") for name in names)
    return re.compile("|".join(f"(?:{part})" for part in parts))


_KINDS: Final = (
    (_compiled(_BOOLEANS), bool, "true or false"),
    (_compiled(_NUMBERS), int, "a number"),
    (_compiled(_TEXTS), str, "a string"),
    (_compiled(_LISTS), list, "an array"),
)
_FREE: Final = _compiled(_ANYTHING)
_OLD: Final = tuple((_compiled((name,)), now) for name, now in _LEGACY.items())


def value_is_on(value: object) -> bool:
    """An option is switched on: ``true``; 1 and "1", as Graphene wrote it; for numbers, anything but 0."""
    if isinstance(value, str):
        return value.strip().lower() in ("1", "true", "yes", "on")
    return bool(value)


def options(reading: Reading) -> Iterator[Hit]:
    """Names and types that Gramine 1.9 does not accept, and templates that draw in others."""
    for line in reading.imports:
        yield Hit("template.import", "", "the template draws in another one", line=line)
    for key, value in reading.leaves():
        yield from _option(key, value)
    for key, mount in _mounts(reading):
        for name in mount.keys() - _MOUNT_KEYS:
            yield Hit("key.unknown", f"{key}.{name}", f"a mount has no option {name}")


def residue(reading: Reading) -> Iterator[Hit]:
    """Marks of templates in a signed form: what looks computed, and is passed over for that, is not."""
    for key, value in reading.leaves():
        if key != "loader.argv" and any(is_template(text) for text in _texts(value)):
            yield Hit("template.residue", key, f"{key} has a template's mark in it")


def _texts(value: object) -> Iterator[object]:
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, list):
            pending += each
        elif isinstance(each, Mapping):
            pending += each.values()
        else:
            yield each


def _option(key: str, value: object) -> Iterator[Hit]:
    if _FREE.fullmatch(key):
        return
    for known, kind, wanted in _KINDS:
        if known.fullmatch(key):
            fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
            # What is computed is judged where it counts, and so is the type of this one.
            if not fits and not is_template(value) and key != "sgx.remote_attestation":
                yield Hit("key.value", key, f"{key} is not {wanted}")
            return
    for old, now in _OLD:
        if old.fullmatch(key):
            yield Hit("key.legacy", key, f"{key} is of an earlier release; now: {now}")
            return
    yield Hit("key.unknown", key, f"{key} is no option of Gramine 1.9")


def _mounts(reading: Reading) -> Iterator[tuple[str, Mapping[str, Any]]]:
    mounts = reading.get("fs.mounts")
    for index, mount in enumerate(mounts if isinstance(mounts, list) else ()):
        if isinstance(mount, Mapping):
            yield f"fs.mounts[{index}]", mount
