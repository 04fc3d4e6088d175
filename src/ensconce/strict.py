"""The model that every file and message of ours derives from: what is not checked is not accepted."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["StrictModel"]


class StrictModel(BaseModel):
    """A pydantic model that takes no unknown field, converts no type and never changes.

    Its errors do not repeat the input, which may be a secret.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)
