"""The sealed list of a version's files: bytes to paths and back.

Each sealed file proves by itself that it is genuine and at its place; only this list proves that none was left out.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from ensconce.errors import IntegrityError
from ensconce.models.layout import CONTENTS, MAX_ENTRIES
from ensconce.strict import StrictModel

__all__ = ["contents_bytes", "parse_contents"]


class _Contents(StrictModel):
    format: Literal["ensconce-contents-1"]
    files: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_ENTRIES)]


def contents_bytes(paths: tuple[str, ...]) -> bytes:
    """What is sealed as ``ensconce-contents.json``: the paths of all other files."""
    return json.dumps({"format": "ensconce-contents-1", "files": sorted(paths)}, separators=(",", ":")).encode()


def parse_contents(data: bytes) -> frozenset[str]:
    """The paths that a decrypted list names.

    Raises:
        IntegrityError: ``model.contents``.
    """
    try:
        return frozenset(_Contents.model_validate_json(data).files)
    except ValidationError:
        pass
    raise IntegrityError(
        "model.contents", f"{CONTENTS} is genuine, but not a list of files", remedy="seal the version again"
    )
