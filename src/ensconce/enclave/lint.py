"""What must not be in a manifest, and which attack it would open. Thin: each rule looks at one thing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ensconce.enclave.contents import NEVER_INSIDE
from ensconce.enclave.manifest import ALLOWED_FILES
from ensconce.platform.manifest import Manifest

__all__ = ["Finding", "lint"]

# How each way of leaving a choice to the host is used against the enclave; by the option's last word.
_INSECURE = {
    "insecure__use_cmdline_argv": "the host drops or adds arguments and the measurement stays the same",
    "argv_src_file": "the host replaces the arguments if it can replace that file",
    "insecure__use_host_env": "the host sets PYTHONPATH or LD_PRELOAD and runs its own code inside",
    "env_src_file": "the host replaces the environment if it can replace that file",
    "passthrough": "the host chooses this variable and the measurement stays the same",
    "insecure__keys": "whoever has the manifest has the key",
    "insecure__rpc_thread_num": "enclave threads read memory that the host changes under them (INTEL-SA-00657)",
    "insecure__allow_memfaults_without_exinfo": "the host injects memory faults and learns from the reaction",
    "insecure__disable_aslr": "the host knows all addresses, and a single overflow is enough",
    "insecure__allow_eventfd": "the host forges the events that threads wait for",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a manifest.

    Attributes:
        check: dotted name, stable across releases.
        severity: an ``error`` keeps the manifest from being signed.
        problem: what is there, or missing.
        attack: what somebody can do because of it.
        remedy: what to do about it.
    """

    check: str
    severity: Literal["error", "warning"]
    problem: str
    attack: str
    remedy: str


def lint(manifest: Manifest) -> tuple[Finding, ...]:
    """Everything that is wrong with ``manifest``, errors first; nothing when it may be signed."""
    findings = [*_host_choices(manifest), *_openings(manifest), *_start(manifest), *_contents(manifest)]
    return tuple(sorted(findings, key=lambda finding: finding.severity))


def _host_choices(manifest: Manifest) -> Iterator[Finding]:
    for option in manifest.insecure:
        words = set(option.split("."))
        attack = next((text for name, text in _INSECURE.items() if name in words), "the host decides, unmeasured")
        yield Finding("lint.insecure", "error", f"{option} is switched on", attack, "remove the option")
    if not manifest.argv:
        yield Finding(
            "lint.argv",
            "error",
            "loader.argv is missing",
            "no argument is measured, so none can be relied on",
            "list every argument in loader.argv",
        )


def _openings(manifest: Manifest) -> Iterator[Finding]:
    if manifest.debug:
        yield Finding(
            "lint.debug",
            "error",
            "sgx.debug is true",
            "the host reads keys, model and requests out of the enclave with a debugger",
            "set sgx.debug = false",
        )
    for uri in manifest.allowed_files:
        if uri not in ALLOWED_FILES:
            yield Finding(
                "lint.allowed_files",
                "error",
                f"{uri} is an allowed file",
                "the host replaces it at any time, and reads what the enclave writes there",
                "make it a trusted file, or an encrypted one",
            )
    for mount in manifest.mounts:
        if mount.type == "untrusted_shm":
            yield Finding(
                "lint.mount",
                "error",
                f"{mount.path} is memory shared with the host",
                "the host reads and changes everything in it",
                "remove the mount",
            )
    if manifest.file_check_policy != "strict":
        yield Finding(
            "lint.file_check_policy",
            "error",
            f"sgx.file_check_policy is {manifest.file_check_policy!r}",
            "the host puts files of its own where the enclave opens them",
            "remove the option; strict is the default",
        )
    if manifest.log_level not in ("none", "error"):
        yield Finding(
            "lint.log_level",
            "error",
            f"loader.log_level is {manifest.log_level!r}",
            "system calls and their arguments appear in a log that the host reads",
            'set loader.log_level = "error"',
        )


def _start(manifest: Manifest) -> Iterator[Finding]:
    if not _on_the_host(manifest) & {file.path for file in manifest.trusted_files}:
        yield Finding(
            "lint.entrypoint",
            "error",
            f"{manifest.entrypoint} is not a trusted file",
            "the host starts another program under this measurement",
            "list the program in sgx.trusted_files",
        )
    if manifest.isv_prod_id == 0:
        yield Finding(
            "lint.isv_prod_id",
            "warning",
            "sgx.isvprodid is 0",
            "a policy by MRSIGNER cannot tell this enclave from any other of the same signer",
            "give each product its own number",
        )


def _contents(manifest: Manifest) -> Iterator[Finding]:
    for name, reason in NEVER_INSIDE.items():
        module = name.replace("-", "_")
        if any(module in file.path.split("/") for file in manifest.trusted_files):
            yield Finding(
                "lint.contents",
                "error",
                f"{name} is in the image",
                f"it runs beside the model, and {reason}",
                "build the image with `ensconce enclave build`, which leaves it out",
            )


def _on_the_host(manifest: Manifest) -> set[str]:
    """The names that the program may have outside: its own, and those that mounts give it."""
    names = {manifest.entrypoint, manifest.entrypoint.removeprefix("/")}
    for mount in manifest.mounts:
        if f"{manifest.entrypoint}/".startswith(f"{mount.path.rstrip('/')}/"):
            rest = manifest.entrypoint[len(mount.path.rstrip("/")) :]
            names.add(mount.uri.removeprefix("file:").rstrip("/") + rest)
    return names
