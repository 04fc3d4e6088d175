"""Finding an nginx that can do the job: built with the stream module and ssl_preread, and able to load them."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ensconce.gateway.nginx_conf import quoted

__all__ = ["Nginx", "NoNginx", "check_configuration", "find_nginx"]

_TIMEOUT_S = 10.0
_PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/local/nginx/sbin")
_PROBE = """daemon off;
{load}events {{}}
stream {{
  map $ssl_preread_server_name $pool {{ default ""; }}
  server {{ listen unix:probe.sock; ssl_preread on; proxy_pass $pool; }}
}}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    """An nginx that can route TLS on the server name.

    Args:
        program: the executable.
        version: such as ``1.22.1``.
        stream_module: the stream module's file, to be named by ``load_module``; ``None`` when it is built in.
    """

    program: Path
    version: str
    stream_module: Path | None


@dataclass(frozen=True, slots=True)
class NoNginx:
    """Why there is none; a sentence without a full stop, and what would help."""

    reason: str
    remedy: str


def find_nginx(places: Sequence[str] = _PLACES) -> Nginx | NoNginx:
    """Look in PATH, then in ``places`` (where distributions put programs of the administrator).

    The answer is proven: a configuration that uses ``ssl_preread`` went through ``nginx -t``.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path=":".join(places))
    if program is None:
        return NoNginx("no nginx in PATH or " + ", ".join(places), "apt install nginx libnginx-mod-stream")
    try:
        told = subprocess.run([program, "-V"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True).stderr
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as error:
        return NoNginx(f"{program} does not run: {error}", "reinstall nginx")
    version = re.search(r"^nginx version: \S+?/(\S+)", told, re.MULTILINE)
    if version is None:
        return NoNginx(f"{program} -V does not name an nginx version", "install nginx from your distribution")
    options = set(told.split())
    if not options & {"--with-stream", "--with-stream=dynamic"}:
        return NoNginx(f"{program} was built without the stream module", "install a build that has --with-stream")
    if "--with-stream_ssl_preread_module" not in options:
        return NoNginx(
            f"{program} was built without ssl_preread", "install a build that has --with-stream_ssl_preread_module"
        )
    module: Path | None = None
    if "--with-stream" not in options:
        folder = re.search(r"--modules-path=(\S+)", told)
        module = Path(folder[1] if folder else "/usr/lib/nginx/modules") / "ngx_stream_module.so"
        if not module.is_file():
            return NoNginx(f"{program} needs {module}, which is not there", "apt install libnginx-mod-stream")
    nginx = Nginx(Path(program), version[1], module)
    problem = _probe(nginx)
    if problem is not None:
        return NoNginx(
            f"{program} refuses a configuration with ssl_preread: {problem}",
            "apt install --reinstall nginx libnginx-mod-stream",
        )
    return nginx


def _probe(nginx: Nginx) -> str | None:
    load = f"load_module {quoted(str(nginx.stream_module))};\n" if nginx.stream_module else ""
    with tempfile.TemporaryDirectory(prefix="ensconce-nginx-") as folder:
        (Path(folder) / "nginx.conf").write_text(_PROBE.format(load=load), encoding="utf-8")
        return check_configuration(nginx, Path(folder), "nginx.conf")


def check_configuration(nginx: Nginx, folder: Path, name: str) -> str | None:
    """``nginx -t`` on the file ``name`` in ``folder``; returns what is wrong, or ``None``."""
    try:
        tried = subprocess.run(
            # A test, too, would make the file of the process id.
            [nginx.program, "-t", "-q", "-e", "stderr", "-g", "pid /dev/null;", "-p", f"{folder}/", "-c", name],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
            cwd=folder,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    if tried.returncode == 0:
        return None
    complaints = [line for line in tried.stderr.splitlines() if "[emerg]" in line or "invalid option" in line]
    return " ".join(complaints[:1] or tried.stderr.split("\n")[:1])[:400]
