"""What a servable is called: a model's name, a version's number, and the id of the key that opens the version."""

from __future__ import annotations

import re

__all__ = ["MAX_VERSION", "MODEL_NAME", "MODEL_NAME_RULE", "is_model_name", "key_id", "receivable"]

MODEL_NAME = "[a-z0-9][a-z0-9_-]{0,62}"
"""Regular expression for a whole name: it stands in paths, key ids and policies, and in each means itself."""

MODEL_NAME_RULE = "1 to 63 of a-z 0-9 _ -, beginning with a letter or digit"

MAX_VERSION = 2**31 - 1
"""Versions begin with 1. TensorFlow Serving counts them in int64; a signed 32-bit number fits everywhere."""


def is_model_name(name: str) -> bool:
    """Whether ``name`` is a model's name."""
    return re.fullmatch(MODEL_NAME, name) is not None


def receivable(name: str) -> str:
    """What a policy calls all versions of a model."""
    return f"model/{name}"


def key_id(name: str, version: int) -> str:
    """Under which id a keystore holds the key of one version."""
    return f"{receivable(name)}/{version}"
