"""TensorFlow Serving under Gramine: what its own options give away.

Source: TensorFlow Serving 2.6 to 2.21, ``model_servers/main.cc`` and ``server.cc``: ``--ssl_config_file`` is for gRPC;
REST has no TLS; the profiler's service is on unless ``--enable_profiler=false``; ``ModelService`` has no authorization.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from ensconce.enclave.lint_files import Files
from ensconce.enclave.lint_finding import Hit
from ensconce.enclave.lint_source import Reading

__all__ = ["tfserving_findings"]

_PROGRAM = "tensorflow_model_server"
_PATHS = (
    "ssl_config_file",
    "model_config_file",
    "model_base_path",
    "batching_parameters_file",
    "monitoring_config_file",
    "platform_config_file",
    "tensorflow_session_config_file",
)


def tfserving_findings(reading: Reading, files: Files) -> Iterator[Hit]:
    """What is wrong with its arguments, where the manifest has them; who leaves them to the host is told elsewhere."""
    argv = reading.get("loader.argv")
    if not isinstance(argv, list) or not argv or not all(isinstance(item, str) for item in argv):
        return
    program = reading.get("libos.entrypoint")
    if _PROGRAM not in {posixpath.basename(argv[0]), posixpath.basename(str(program))}:
        return
    given = _options(argv[1:])
    if "ssl_config_file" not in given:
        yield Hit("tfserving.no_tls", "loader.argv", "there is no --ssl_config_file")
    index, port = given.get("rest_api_port", (0, "0"))
    if port != "0":
        yield Hit("tfserving.rest", f"loader.argv[{index}]", f"REST is served on port {port}")
    for name in _PATHS:
        if name in given:
            yield from _path(name, *given[name], files)
    index, wanted = given.get("enable_profiler", (0, "true"))
    if wanted.lower() not in ("false", "0"):
        yield Hit("tfserving.profiler", f"loader.argv[{index}]" if index else "loader.argv", "the profiler is on")
    yield Hit("tfserving.reload", "loader.argv", "any client may change what is served")


def _options(argv: list[str]) -> dict[str, tuple[int, str]]:
    """Each option's place in ``loader.argv`` and its value; as TensorFlow reads them, the last one counts."""
    found = {}
    for index, item in enumerate(argv, start=1):
        if item.startswith("--"):
            name, equals, value = item[2:].partition("=")
            found[name] = (index, value if equals else "true")
    return found


def _path(name: str, index: int, path: str, files: Files) -> Iterator[Hit]:
    outside, kind = files.outside(path)
    if kind == "encrypted" or any(mount.type == "encrypted" and _inside(mount.path, path) for mount in files.mounts):
        return
    key = f"loader.argv[{index}]"
    if files.trusts(f"file:{outside}"):
        if name == "ssl_config_file":
            yield Hit("trusted_files.secret", key, f"{path}, with the TLS key, is a trusted file")
        elif name == "model_base_path":
            yield Hit("tfserving.model_plain", key, f"the model in {path} is not encrypted")
    else:
        yield Hit("tfserving.files", key, f"--{name}={path} is neither encrypted nor trusted")


def _inside(mount: str, folder: str) -> bool:
    return mount.startswith(f"{folder.rstrip('/')}/")
