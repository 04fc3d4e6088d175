"""Where this user's folders are, as the XDG Base Directory Specification has it."""

from __future__ import annotations

import os
from pathlib import Path

from ensconce.errors import InputError

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/ensconce``, else ``~/.cache/ensconce``: what can be made again. It may not exist yet.

    A relative value is ignored, as the specification asks: it would mean another folder in each working directory.

    Raises:
        InputError: the variable names no folder, and there is no home folder either.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not folder.is_absolute():
        try:
            folder = Path.home() / ".cache"
        except RuntimeError:
            raise InputError(
                "folder.cache", "there is no home folder to keep caches in", remedy="set XDG_CACHE_HOME to a folder"
            ) from None
    return folder / "ensconce"
