"""Downloading a model that somebody publishes: bounded, aside, and kept only if its SHA-256 is the expected one."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from ensconce.errors import InputError, IntegrityError, UnreachableError
from ensconce.files import writing_aside

__all__ = ["MAX_BYTES", "Published", "fetch", "published"]

MAX_BYTES: Final = 4 * 2**30
"""Most bytes of a file."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_TIMEOUT_S: Final = 30.0
_CHUNK: Final = 1 << 18


@dataclass(frozen=True)
class Published:
    """A model that others published.

    Attributes:
        url: where.
        file_name: what to call it.
        sha256: as its publisher names it; None when it names none.
        inputs: what to feed the graph.
        outputs: what it computes.
    """

    url: str
    file_name: str
    sha256: str | None
    inputs: str
    outputs: str


_PUBLISHED: Final = {
    # download_model.sh and the tutorial of github.com/oscarlab/graphene-contrib, tensorflow-serving-cluster. Intel
    # publishes the file without a hash, and no public source with one was found.
    "resnet50": Published(
        "https://storage.googleapis.com/intel-optimized-tensorflow/models/v1_8/resnet50_fp32_pretrained_model.pb",
        "resnet50-v15-fp32.pb",
        None,
        "input",
        "predict",
    )
}


def published(name: str) -> Published:
    """The model of this name.

    Raises:
        InputError: ``fetch.model``.
    """
    if name not in _PUBLISHED:
        raise InputError(
            "fetch.model", "no such model is known", found=ascii(name)[:40], rule=f"one of {', '.join(_PUBLISHED)}"
        )
    return _PUBLISHED[name]


def fetch(
    url: str,
    target: Path,
    sha256: str | None,
    *,
    progress: Callable[[int, int | None], None] | None = None,
    limit: int = MAX_BYTES,
) -> int:
    """Download a file.

    Redirects are not followed, and no proxy that the environment names is asked.

    Args:
        url: https; or http to this machine itself.
        target: the file to make, which must not exist.
        sha256: what it must be, hexadecimal.
        progress: is told how many bytes have come, and how many there are, if that is known.
        limit: most bytes.

    Returns:
        The file's length in bytes.

    Raises:
        InputError: ``fetch.sha256``: no hash was given; ``fetch.url``; ``fetch.exists``; ``file.*``.
        UnreachableError: ``fetch.connect``, ``fetch.status``, ``fetch.size``.
        IntegrityError: ``fetch.changed``: it is another file.
    """
    if sha256 is None:
        raise InputError(
            "fetch.sha256",
            "the model's publisher names no SHA-256, and nothing is fetched without one",
            found=url,
            remedy="--sha256 HEX, from somebody whom you trust, or of a copy that you have examined",
        )
    sha256 = sha256.lower()
    if not _SHA256.fullmatch(sha256):
        raise InputError("fetch.sha256", "this is no SHA-256", found=ascii(sha256)[:80], rule="64 hexadecimal digits")
    _check_url(url)
    if target.exists():
        raise InputError("fetch.exists", f"{target} exists", remedy="remove it, or name another file with --output")
    with writing_aside(target) as file:
        digest, size = hashlib.sha256(), 0
        try:
            with httpx.stream(
                "GET",
                url,
                timeout=_TIMEOUT_S,
                trust_env=False,
                follow_redirects=False,
                headers={"Accept-Encoding": "identity", "User-Agent": "ensconce"},
            ) as response:
                if response.status_code != 200:
                    raise _unreachable("fetch.status", url, f"HTTP status {response.status_code}")
                told = response.headers.get("Content-Length", "")
                total = int(told) if told.isascii() and told.isdecimal() and len(told) < 16 else None
                if total is not None and total > limit:
                    raise _unreachable("fetch.size", url, f"{total} bytes, and at most {limit} are taken")
                for chunk in response.iter_raw(_CHUNK):
                    size += len(chunk)
                    if size > limit:
                        raise _unreachable("fetch.size", url, f"more than {limit} bytes")
                    file.write(chunk)
                    digest.update(chunk)
                    if progress is not None:
                        progress(size, total)
        except httpx.HTTPError as error:
            raise _unreachable("fetch.connect", url, str(error)[:200] or type(error).__name__) from error
        if not hmac.compare_digest(digest.hexdigest(), sha256):
            raise IntegrityError(
                "fetch.changed",
                f"{url} gave another file than the one that was expected",
                found=f"{size} bytes of SHA-256 {digest.hexdigest()}",
                rule=f"SHA-256 {sha256}",
                remedy="find out who changed it before you use it; nothing was kept",
            )
    return size


def _check_url(url: str) -> None:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if not parsed.host or (parsed.scheme != "https" and not (parsed.scheme == "http" and _is_here(parsed.host))):
        raise InputError(
            "fetch.url", "nothing is fetched from this URL", found=ascii(url)[:200], rule="https, and a host"
        )
    if parsed.userinfo:
        # It would be told in errors, of this program's and of others that see its arguments.
        raise InputError("fetch.url", "the URL holds a user or a password", remedy="leave them out")


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unreachable(check: str, url: str, found: str) -> UnreachableError:
    return UnreachableError(
        check, f"cannot fetch {url}", found=found, remedy="check the URL and the network; nothing was kept"
    )
