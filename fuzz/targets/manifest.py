"""Gramine manifests: read strictly, and each option that hands a choice to the host is seen.

Oracle: Python's own TOML, searched for such options here once more.
"""

from __future__ import annotations

import tomllib
from typing import Any

import tomli_w

from ensconce.enclave.show import is_gramines
from ensconce.errors import InputError
from ensconce.platform.manifest import parse_manifest
from fuzz.mutation import by_tree
from fuzz.target import Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]


def check(data: bytes) -> bool:
    """Read a manifest."""
    manifest = attempt(lambda: parse_manifest(data), InputError)
    if isinstance(manifest, Refused):
        return False
    document = tomllib.loads(data.decode())
    holds(manifest.raw == data, "other bytes than those that are measured")
    holds(manifest.entrypoint == document["libos"]["entrypoint"] != "", "another entrypoint")
    holds(manifest.debug == document.get("sgx", {}).get("debug", False), "another debug")
    holds(set(manifest.insecure) >= set(_insecure(document, "")), "an insecure option is not seen")
    paths = [file.path for file in manifest.trusted_files]
    holds(len(set(paths)) == len(paths) and all(len(file.sha256) == 32 for file in manifest.trusted_files), "not files")
    holds(
        is_gramines(manifest) == bool({"entrypoint", "preload"} & {*document.get("loader", {})}), "for another loader"
    )
    holds(all("\0" not in text for text in (*manifest.argv, *manifest.env, *manifest.env.values())), "a NUL")
    return True


def _insecure(table: dict[str, Any], prefix: str) -> list[str]:
    found = []
    for name, value in table.items():
        where = prefix + name
        if where in ("loader.env", "fs.mounts"):
            continue
        if name.startswith("insecure__"):
            if value is True or (isinstance(value, dict) and value):  # a table is one option, whatever is in it
                found.append(where)
        elif isinstance(value, dict):
            found += _insecure(value, where + ".")
    return found


def seeds() -> dict[str, bytes]:
    """A manifest with everything that is read, and the least one."""
    digest = "ab" * 32
    full = {
        "libos": {"entrypoint": "/usr/bin/python3.11"},
        "loader": {
            "log_level": "error",
            "argv": ["python3", "-m", "x"],
            "env": {"A": "1", "B": {"value": "2"}, "C": {"passthrough": True}},
            "insecure__use_cmdline_argv": True,
        },
        "sgx": {
            "debug": False,
            "max_threads": 64,
            "enclave_size": "2G",
            "isvprodid": 5,
            "isvsvn": 6,
            "trusted_files": [{"uri": "file:/usr/bin/python3.11", "sha256": digest}],
            "allowed_files": ["file:models"],
        },
        "fs": {"mounts": [{"path": "/lib", "uri": "file:/lib"}, {"path": "/scratch", "type": "tmpfs"}]},
    }
    return {
        "good": tomli_w.dumps(full).encode(),
        "good-least": b'libos.entrypoint = "a"\n',
        "good-deep": b'libos.entrypoint = "a"\n[sgx.a.b.c]\ninsecure__d = true\n',
        "unsigned": b'libos.entrypoint = "a"\nsgx.trusted_files = ["file:a"]\n',
        "good-literal": b"libos.entrypoint = 'a'\nsgx.max_threads = 0x40\nloader.argv = [\"\\u00e9\", 'x', ]\n",
    }


TARGET = Target(
    "manifest",
    check,
    seeds,
    by_tree(lambda data: tomllib.loads(data.decode()), lambda tree: tomli_w.dumps(tree).encode()),
    words=(
        b"insecure__",
        b"= true\n",
        b"[[sgx.trusted_files]]\n",
        b"[sgx]\n",
        b"= 0x",
        b'= """',
        b"1979-05-27T07:32:00Z",
    ),
)
