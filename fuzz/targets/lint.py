"""Other people's manifests and templates, as the lint reads them: nothing that Gramine would see stays unseen.

Oracle: Python's own TOML. What it finds switched on in a text must be found by the lint whatever marks of templates
stand around it; the signed form is read as it stands; every line that is told is one of the text.
"""

from __future__ import annotations

import tomllib
from typing import Any

import tomli_w

from ensconce.enclave.lint import Finding, lint_text
from ensconce.errors import InputError
from ensconce.platform.manifest import load_toml
from fuzz.mutation import by_tree
from fuzz.target import Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]

_HOST = {
    ("loader", "insecure__use_cmdline_argv"): "lint.argv.host",
    ("loader", "insecure__use_host_env"): "lint.env.host",
    ("sgx", "debug"): "lint.debug.on",
}


def check(data: bytes) -> bool:
    """Lint a text as a template and as a signed form."""
    template = attempt(lambda: lint_text(data), InputError)
    signed = attempt(lambda: lint_text(data, signed=True), InputError)
    lines = data.count(b"\n") + 1
    for found in (template, signed):
        if isinstance(found, Refused):
            continue
        holds(all(each.line is None or 1 <= each.line <= lines for each in found), "a line that is not there")
        codes = {each.check for each in found}
        for place in _switched_on(data):
            holds(_HOST[place] in codes, f"{'.'.join(place)} is on, and nothing says so")
    if not isinstance(signed, Refused):
        holds(not isinstance(template, Refused) or b"{" in data, "what is TOML cannot be read")
        _residue(data, signed)
    return not isinstance(template, Refused)


def _switched_on(data: bytes) -> list[tuple[str, str]]:
    try:
        document: dict[str, Any] = load_toml(data.decode().replace("\r\n", "\n"))
    except (ValueError, RecursionError):
        return []
    return [
        (table, name)
        for table, name in _HOST
        if isinstance(document.get(table), dict) and document[table].get(name) is True
    ]


def _residue(data: bytes, found: tuple[Finding, ...]) -> None:
    policy = tomllib.loads(data.decode()).get("sgx")
    value = policy.get("file_check_policy") if isinstance(policy, dict) else None
    if isinstance(value, str) and "{{" in value:
        codes = {each.check for each in found}
        holds("lint.template.residue" in codes, "a mark of a template is passed over in the signed form")


def seeds() -> dict[str, bytes]:
    """Each kind of manifest that is read."""
    full = {
        "libos": {"entrypoint": "/bin/sh"},
        "loader": {
            "log_level": "error",
            "argv": ["sh", "/script"],
            "argv_src_file": "file:args",
            "env": {"LD_PRELOAD": "/lib/a.so b.so", "PATH": {"passthrough": True}, "TOKEN": "abcdefgh"},
            "insecure__use_cmdline_argv": True,
        },
        "sgx": {
            "debug": True,
            "remote_attestation": "dcap",
            "file_check_policy": "strict",
            "isvprodid": 1,
            "seal_key": {"flags_mask": "0x0"},
            "trusted_files": [{"uri": "file:bin/sh", "sha256": "ab" * 32}, "file:lib/"],
            "allowed_files": ["file:script", "dev:/dev/gpu", "file:lib"],
        },
        "fs": {
            "root": {"uri": "file:root"},
            "start_dir": "/app",
            "mounts": [
                {"path": "/lib", "uri": "file:lib"},
                {"path": "/m", "type": "encrypted", "uri": "file:m", "key_name": "k"},
                {"path": "/dev/urandom", "uri": "file:script"},
            ],
        },
    }
    return {
        "good": tomli_w.dumps(full).encode(),
        "good-template": b'{% set e = "/a" %}\nlibos.entrypoint = "{{ e }}"\nloader.log_level = "{{ log }}"\n'
        b"{% if debug %}\nsgx.debug = true\n{% elif x %}\nsgx.debug = {{ x }}\n{% else %}\nsgx.debug = false\n"
        b'{% endif %}\nsgx.allowed_files = [\n{% for f in files %}\n "{{ f }}",\n{% endfor %}\n]\n',
        "good-hidden": b"# {#\nloader.insecure__use_host_env = true\n# #}\nsgx.debug = true # {% if a %}\n",
        "good-graphene": b"loader.exec = file:server\nloader.env.A =\nfs.mount.lib.type = chroot\n"
        b"fs.mount.lib.path = /lib\nsgx.allowed_files.tmp = file:/tmp\nsgx.thread_num = 4\n$(TRUSTED)\n",
        "good-residue": b'libos.entrypoint = "a"\nsgx.file_check_policy = "{{ strict }}"\n',
        "bomb": b"a." * 2000 + b"a = 1\n",
    }


WORDS = (
    b"{% if a %}",
    b"{% endif %}",
    b"{% else %}",
    b"{#",
    b"#}",
    b"{{ a }}",
    b"$(A)",
    b"insecure__",
    b"file:",
    b'"""',
)

TARGET = Target(
    "lint",
    check,
    seeds,
    by_tree(lambda data: tomllib.loads(data.decode()), lambda tree: tomli_w.dumps(tree).encode()),
    max_size=8192,
    words=WORDS,
)
