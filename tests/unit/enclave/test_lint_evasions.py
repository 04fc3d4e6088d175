"""Signed forms by which somebody who packages an enclave would leave a choice to the host, past the lint.

Each is what Gramine 1.9 would run: it looks into allowed files before trusted ones, takes everything below an allowed
name for allowed, lets later mounts hide earlier ones, and reads ``argv_src_file`` without a check.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import tomli_w

from ensconce.enclave.contents import ENTRY_MODULE, GRAMINE_ENTRY_MODULE
from ensconce.enclave.lint import lint, lint_text
from ensconce.enclave.manifest import CONFIG, HARMLESS_FILES
from ensconce.enclave.trace import FLAGS
from ensconce.errors import InputError
from ensconce.platform.manifest import parse_manifest

HASH = "ab" * 32
PYTHON = "/enclave/image/system/python3.11"


def trusted(*paths: str) -> list[dict[str, str]]:
    return [{"uri": f"file:{path}", "sha256": HASH} for path in paths]


def document(program: str, argv: list[str], **sgx: Any) -> dict[str, Any]:
    return {
        "libos": {"entrypoint": program},
        "loader": {"argv": argv, "env": {}},
        "fs": {"mounts": []},
        "sgx": {"remote_attestation": "dcap", "debug": False, "isvprodid": 1, "isvsvn": 1, **sgx},
    }


@pytest.fixture
def others() -> dict[str, Any]:
    """A sound manifest for a program of somebody else's, on which the host has one input file."""
    return document(
        "/app/program", ["program", "in"], trusted_files=trusted("app/program"), allowed_files=["file:input"]
    )


@pytest.fixture
def ours() -> dict[str, Any]:
    """A sound manifest for our replica under Gramine."""
    return document(
        PYTHON,
        [PYTHON, *FLAGS, "-m", GRAMINE_ENTRY_MODULE, CONFIG],
        trusted_files=trusted(PYTHON[1:], "enclave/image/bulk.json", "enclave/server.json"),
        allowed_files=list(HARMLESS_FILES),
    )


def refused(document: dict[str, Any]) -> set[str]:
    manifest = parse_manifest(tomli_w.dumps(document).encode())
    return {each.check.removeprefix("lint.") for each in lint(manifest) if each.severity == "refuse"}


def put(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        for parent in parents:
            document = document.setdefault(parent, {})
        document[last] = value

    return change


def mount(**fields: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["fs"]["mounts"].append(fields)


def both(*changes: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for each in changes:
            each(document)

    return change


def test_what_is_changed_below_is_sound_before(others: dict[str, Any], ours: dict[str, Any]) -> None:
    assert refused(others) == refused(ours) == set()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        # The program is listed, and allowed; or another one stands where it is looked for.
        (put("sgx/allowed_files", ["file:app/program"]), "allowed_files.trusted"),
        (put("sgx/allowed_files", ["file:app"]), "entrypoint.host"),
        (put("sgx/allowed_files", ["file:./app/../app"]), "entrypoint.host"),
        (mount(path="/app", uri="file:input"), "entrypoint.host"),
        (put("fs/root", {"uri": "file:input"}), "entrypoint.host"),
        (put("sgx/trusted_files", trusted(".")), "entrypoint.host"),
        (put("sgx/trusted_files", trusted("app")), "entrypoint.host"),
        (put("libos/entrypoint", "/input"), "entrypoint.host"),
        # POSIX keeps two slashes at the beginning: no folder is above them.
        (put("libos/entrypoint", "//input"), "entrypoint.host"),
        # Arguments and variables.
        (put("loader/argv_src_file", "file:app/program"), "argv.file"),
        (put("loader/env_src_file", "file:app/program"), "env.file"),
        (put("loader/argv_src_file", "file:{{ app }}"), "argv.file"),
        (put("loader/env/A", {"passthrough": True, "value": "1"}), "env.passthrough"),
        (put("loader/env/A.B", {"passthrough": True}), "env.passthrough"),
        (put("loader/insecure__use_cmdline_argv", True), "argv.host"),
        (put("loader/insecure__use_cmdline_argv", 1), "argv.host"),
        (put("loader/insecure__use_host_env", "true"), "env.host"),
        (put("loader/insecure__use_host_env", "{{ x }}"), "template.residue"),
        # Code that is looked for where the host writes.
        (put("loader/env/LD_PRELOAD", "/lib/a.so /input"), "env.search_path"),
        (put("loader/env/LD_AUDIT", "/input"), "env.search_path"),
        (put("loader/env/PYTHONPATH", "input"), "env.search_path"),
        (put("loader/env/LD_LIBRARY_PATH", "/lib:{{ x }}:/input"), "env.search_path"),
        (put("loader/env/OPENSSL_CONF", {"value": "/input"}), "env.search_path"),
        (both(put("loader/env/PATH", "/bin"), put("sgx/allowed_files", ["file:bin/tool"])), "env.search_path"),
        (both(put("fs/start_dir", "/input"), put("loader/env/LD_LIBRARY_PATH", "lib")), "env.search_path"),
        (
            both(
                put("libos/entrypoint", "/app/bash"),
                put("loader/argv", ["bash", "-x", "/input"]),
                put("sgx/trusted_files", trusted("app/bash")),
            ),
            "argv.script",
        ),
        # What Gramine makes, and what it checks.
        (mount(path="/dev/urandom", uri="file:input"), "mount.gramines"),
        (mount(path="/dev/attestation/", uri="file:input"), "mount.gramines"),
        (mount(path="//proc", type="chroot", uri="file:/proc"), "mount.gramines"),
        (put("sgx/file_check_policy", "{{ strict }}"), "template.residue"),
        (put("loader/log_level", "$(LEVEL)"), "template.residue"),
        (put("sgx/seal_key", {"flags_mask": "0xfffffffffffffffd"}), "key.seal_mask"),
        (put("sgx/seal_key", {"flags_mask": "anything"}), "key.seal_mask"),
        (put("sgx/debug", True), "debug.on"),
        (put("fs/insecure__keys", {"default": HASH[:32]}), "key.in_manifest"),
        (put("sgx/deeper", {"insecure__anything": {"x": 1}}), "insecure.unknown"),
        (mount(path="/shared", type="untrusted_shm", uri="dev:/dev/shm/x"), "mount.shared_memory"),
    ],
)
def test_a_choice_that_is_left_to_the_host_is_refused(
    others: dict[str, Any], change: Callable[[dict[str, Any]], None], code: str
) -> None:
    change(others)
    assert code in refused(others)


def test_a_later_mount_hides_what_was_encrypted_below_it(others: dict[str, Any]) -> None:
    others["libos"]["entrypoint"] = "/app/tensorflow_model_server"
    others["loader"]["argv"] = ["x", "--ssl_config_file=/config/tls/ssl", "--enable_profiler=false"]
    others["sgx"]["trusted_files"] = trusted("app/tensorflow_model_server")
    mounts = [
        {"path": "/config/tls", "uri": "file:tls", "type": "encrypted"},
        {"path": "/config", "uri": "file:input"},
    ]
    others["fs"]["mounts"] = mounts[::-1]
    assert "tfserving.files" not in refused(others)
    others["fs"]["mounts"] = mounts
    assert "tfserving.files" in refused(others)


@pytest.mark.parametrize(
    "change",
    [
        # Our replica's name in the arguments of another program, or of our interpreter with other flags.
        put("loader/argv", [PYTHON, "/models/run", "-m", GRAMINE_ENTRY_MODULE, CONFIG]),
        put("loader/argv", [PYTHON, "-m", GRAMINE_ENTRY_MODULE, CONFIG]),
        put("loader/argv", [PYTHON, *FLAGS, "-m", GRAMINE_ENTRY_MODULE, "models/server.json"]),
        put("libos/entrypoint", "/enclave/image/bulk/python"),
        # Libraries that nobody checks: the other entry, or no list.
        put("loader/argv", [PYTHON, *FLAGS, "-m", ENTRY_MODULE, CONFIG]),
        put("sgx/trusted_files", trusted(PYTHON[1:], "enclave/server.json")),
        # Code out of what the host may write.
        put("loader/env/LD_LIBRARY_PATH", "/enclave/image/bulk"),
        put("loader/env/PYTHONPATH", "models"),
        put("loader/env/PYTHONPATH", "enclave/image/site:models/x"),
        mount(path="/enclave/image/site", uri="file:models"),
        mount(path="/enclave/image/site", uri="file:models/site"),
        put("fs/root", {"type": "chroot", "uri": "file:models"}),
        put("fs/start_dir", "/models"),
        put("sgx/allowed_files", [*HARMLESS_FILES, "file:enclave/server.json"]),
        put("sgx/allowed_files", ["file:models/", "file:enclave/image"]),
    ],
)
def test_what_our_replica_may_be_given_is_given_to_nothing_else(
    ours: dict[str, Any], change: Callable[[dict[str, Any]], None]
) -> None:
    change(ours)
    assert refused(ours)


@pytest.mark.parametrize(
    "hidden",
    [
        "# {#\n{}\n# #}\n",
        "# {% if false %}\n{}\n# {% endif %}\n",
        "# {{\n{}\n# }}\n",
        'a = "{#"\n{}\nb = "#}"\n',
        "# {% raw %}\n{}\n# {% endraw %}\n",
    ],
)
def test_marks_of_templates_hide_nothing(hidden: str, others: dict[str, Any]) -> None:
    text = hidden.replace("{}", "loader.insecure__use_cmdline_argv = true")
    others["loader"].pop("argv")
    rest = tomli_w.dumps({name: value for name, value in others.items() if name != "loader"})
    data = (text + rest).encode()
    assert "lint.argv.host" in {each.check for each in lint(parse_manifest(data))}
    try:
        findings = lint_text(data)
    except InputError:  # It is no template.
        return
    assert "lint.argv.host" in {each.check for each in findings}


@pytest.mark.parametrize(
    "bomb",
    [
        "a." * 200_000 + "a = 1",
        '"a".' * 200_000 + "a = 1",
        "a = {" + "b . " * 200_000 + "b = 1}",
        "[" + "a." * 200_000 + "a]",
        "[[" + "'a'. " * 200_000 + "a]]",
        "a = " + "[" * 200_000,
        "a = " + "{a=" * 50_000,
    ],
)
def test_what_would_be_read_for_hours_is_refused_at_once(bomb: str) -> None:
    begin = time.process_time()
    for read in (lint_text, parse_manifest):
        with pytest.raises(InputError) as caught:
            read(bomb.encode())  # type: ignore[operator]
        assert caught.value.check in ("manifest.toml", "manifest.depth", "manifest.template")
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("key", ["libos.entrypoint", "fs.start_dir", "loader.env.PATH"])
def test_a_path_that_would_be_walked_up_for_hours_is_refused_at_once(key: str) -> None:
    begin = time.process_time()
    with pytest.raises(InputError) as caught:
        lint_text(f'{key} = "{"a/" * 200_000}"\n'.encode() + (b"" if "point" in key else b'libos.entrypoint = "a"\n'))
    assert caught.value.check == "manifest.path"
    assert time.process_time() - begin < 5


def test_many_paths_beside_many_allowed_files_take_no_square() -> None:
    begin = time.process_time()
    allowed = "".join(f'"file:b{number}",' for number in range(5000))
    text = f'loader.env.PATH = "{"/a:" * 50_000}"\nsgx.allowed_files = [{allowed}]\n'
    assert lint_text(text.encode(), signed=True)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    "hidden",
    [
        # tomlc99, Gramine's reader, takes the first string's end for an escaped one: what is the second's text to
        # others is options to it.
        'loader.env.A = """x\\\\"""\nloader.env.B = """\n{}\n# """\n',
        "loader.env.A = '''x\\'''\nloader.env.B = '''\n{}\n# '''\n",
        # It ends names at a NUL.
        '"sgx"."debug\\u0000x" = true\n{}\n',
        'sgx."file_check_policy\\U00000000" = "allow_all_but_log"\n{}\n',
        'loader.env.A = "\\u0000"\n{}\n',
    ],
)
def test_what_gramine_reads_otherwise_is_not_signed(hidden: str) -> None:
    text = 'libos.entrypoint = "/a"\n' + hidden.replace("{}", "loader.insecure__use_cmdline_argv = true")
    for read in (parse_manifest, lambda data: lint_text(data, signed=True)):
        with pytest.raises(InputError) as caught:
            read(text.encode())
        assert caught.value.check == "manifest.toml"
        assert "Gramine reads otherwise" in (caught.value.found or "")
