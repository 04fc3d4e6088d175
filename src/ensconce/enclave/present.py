"""Which versions the host has laid into ``models/``, and which of them a policy wants; nothing is opened."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from ensconce.enclave.config import ModelConfig
from ensconce.errors import InputError
from ensconce.servables import MAX_VERSION

__all__ = ["choose", "folders"]

_VERSION: Final = re.compile("[1-9][0-9]{0,9}")


def folders(model: Path) -> dict[int, Path]:
    """The folders in a model's folder that are named like versions, by version.

    Raises:
        InputError: ``replica.models``, the folder cannot be read.
    """
    try:
        entries = [path for path in model.iterdir() if _VERSION.fullmatch(path.name) and path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InputError(
            "replica.models",
            f"cannot look into {model}: {error.strerror}",
            remedy="let the replica's user read models/",
        ) from error
    return {int(path.name): path for path in entries if int(path.name) <= MAX_VERSION}


def choose(model: ModelConfig, numbers: Iterable[int], failed: Collection[int]) -> Iterator[int]:
    """The versions that a model's policy wants of these, latest first; those that failed do not count as served."""
    policy = model.versions
    left = policy.latest if policy is not None else None
    for number in sorted(numbers, reverse=True):
        if policy is not None and policy.specific is not None and number not in policy.specific:
            continue
        if left == 0:
            return
        yield number
        if left is not None and number not in failed:
            left -= 1
