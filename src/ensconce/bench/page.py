"""A report as one page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["page"]


def page(found: Mapping[str, Any]) -> str:
    """The page, HTML."""
    return str(found)
