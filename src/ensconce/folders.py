"""Where this user's folders are, as the XDG Base Directory Specification has it."""

from __future__ import annotations

import os
from pathlib import Path

from ensconce.errors import InputError

__all__ = ["cache_folder", "make_below", "state_folder"]


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/ensconce``, else ``~/.cache/ensconce``: what can be made again. It may not exist yet.

    A relative value is ignored, as the specification asks: it would mean another folder in each working directory.

    Raises:
        InputError: ``folder.cache``: the variable names no folder, and there is no home folder either.
    """
    return _folder("cache", ".cache")


def state_folder() -> Path:
    """``$XDG_STATE_HOME/ensconce``, else ``~/.local/state/ensconce``: what is to be remembered. It may not exist yet.

    Raises:
        InputError: ``folder.state``, likewise.
    """
    return _folder("state", ".local/state")


def make_below(folder: Path, kind: str) -> Path:
    """Make a folder of this user's, and those above it, where they are missing.

    Args:
        folder: below :func:`cache_folder` or :func:`state_folder`, or that itself.
        kind: ``cache`` or ``state``.

    Raises:
        InputError: ``folder.<kind>``: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"folder.{kind}",
            f"cannot make {folder}: {error.strerror}",
            remedy=f"set XDG_{kind.upper()}_HOME to a folder that can be written",
        ) from error
    return folder


def _folder(kind: str, below_home: str) -> Path:
    variable = f"XDG_{kind.upper()}_HOME"
    folder = Path(os.environ.get(variable, ""))
    if not folder.is_absolute():
        try:
            folder = Path.home() / below_home
        except RuntimeError:
            raise InputError(
                f"folder.{kind}", f"there is no home folder for a {kind} folder", remedy=f"set {variable} to a folder"
            ) from None
    return folder / "ensconce"
