"""Where sealed models lie for whoever runs them: a web server, a bucket, a folder. Nothing there is believed.

``https://``, ``http://`` and ``file://`` are read here; every other scheme (``s3://``, ``gs://``, ``abfs://`` ...) by
fsspec with the package that it has for that scheme, both optional.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, unquote, urlsplit

import httpx

from ensconce.errors import EnsconceError, InputError, UnreachableError

__all__ = ["Remote", "open_remote"]

_TIMEOUT_S: Final = 30.0
_CHUNK: Final = 1 << 20


class Remote(Protocol):
    """A place with files by relative path."""

    def chunks(self, path: str) -> Iterator[bytes]:
        """A file's bytes, in order.

        Raises:
            UnreachableError: ``pull.connect``, ``pull.missing``.
        """
        ...


def open_remote(url: str) -> Remote:
    """The place at a URL, which may end with a slash or not; nothing is asked of it yet.

    Raises:
        InputError: ``pull.url``: this is no such URL; ``pull.scheme``: nothing is installed that reads it.
    """
    parts = urlsplit(url)
    if parts.query or parts.fragment or parts.username is not None:
        # What is secret in a URL is in argv, in the pod's object and in logs.
        raise _not_a_url(url, "without a user, a query and a fragment: what is secret does not belong into a URL")
    match parts.scheme:
        case "http" | "https":
            if not parts.hostname:
                raise _not_a_url(url, "https://HOST/PATH")
            return _Web(url.rstrip("/"))
        case "file":
            if parts.netloc not in ("", "localhost") or not parts.path:
                raise _not_a_url(url, "file:///PATH")
            return _Folder(Path(unquote(parts.path)))
        case "":
            raise _not_a_url(url, "https://HOST/PATH, s3://BUCKET/PATH, gs://BUCKET/PATH, file:///PATH")
    return _Fsspec(url)


class _Web:
    def __init__(self, base: str) -> None:
        self._base = base
        # As for every download: no redirect is followed, and no proxy that the environment names is asked.
        self._client = httpx.Client(
            timeout=_TIMEOUT_S,
            trust_env=False,
            follow_redirects=False,
            headers={"Accept-Encoding": "identity", "User-Agent": "ensconce"},
        )

    def chunks(self, path: str) -> Iterator[bytes]:
        url = f"{self._base}/{quote(path)}"
        try:
            with self._client.stream("GET", url) as response:
                if response.status_code != 200:
                    raise _unreachable("pull.missing", url, f"HTTP status {response.status_code}")
                yield from response.iter_raw(_CHUNK)
        except httpx.HTTPError as error:
            raise _unreachable("pull.connect", url, str(error)[:200] or type(error).__name__) from error


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def chunks(self, path: str) -> Iterator[bytes]:
        try:
            with (self._folder / path).open("rb") as file:
                while data := file.read(_CHUNK):
                    yield data
        except OSError as error:
            raise _unreachable("pull.missing", str(self._folder / path), error.strerror or "cannot be read") from error


class _Fsspec:
    def __init__(self, url: str) -> None:
        try:
            fsspec: Any = importlib.import_module("fsspec")
            self._filesystem, self._root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise InputError(
                "pull.scheme",
                f"nothing is installed that reads {urlsplit(url).scheme}:// URLs",
                found=str(error)[:200],
                remedy="pip install 'ensconce[storage]', or fsspec and the package that it names for this scheme",
            ) from error
        except Exception as error:  # whatever the package for the scheme makes of a URL
            raise _not_a_url(url, f"a URL that fsspec reads ({type(error).__name__}: {str(error)[:100]})") from error

    def chunks(self, path: str) -> Iterator[bytes]:
        name = f"{self._root.rstrip('/')}/{path}"
        try:
            with self._filesystem.open(name, "rb") as file:
                while data := file.read(_CHUNK):
                    yield data
        except FileNotFoundError as error:
            raise _unreachable("pull.missing", name, "there is no such file") from error
        except EnsconceError:
            raise
        except Exception as error:  # each package has its own
            raise _unreachable("pull.connect", name, f"{type(error).__name__}: {str(error)[:200]}") from error


def _not_a_url(url: str, rule: str) -> InputError:
    return InputError("pull.url", "no models are fetched from this URL", found=ascii(url)[:200], rule=rule)


def _unreachable(check: str, url: str, found: str) -> UnreachableError:
    return UnreachableError(
        check, f"cannot fetch {url}", found=found, remedy="check the URL and the network; nothing was kept"
    )
