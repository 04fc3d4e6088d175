"""What threads want of an event loop that may have ended, and everything with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

__all__ = ["call_in", "run_in"]


def call_in(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Have something called in a loop, if that still runs."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)


def run_in(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, object]) -> None:
    """Have a coroutine run in a loop, if that still runs; nobody waits for its end."""
    try:
        asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError:
        coroutine.close()
