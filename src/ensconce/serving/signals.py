"""How the operator's wish that a server ends reaches its event loop."""

from __future__ import annotations

import asyncio
import signal

__all__ = ["told_to_end"]


def told_to_end() -> asyncio.Future[bool]:
    """Done when SIGTERM or SIGINT comes, from now on; whether it was SIGINT. Called in the event loop's main thread."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[bool] = loop.create_future()

    def end(is_interrupt: bool) -> None:
        if not ended.done():
            ended.set_result(is_interrupt)

    loop.add_signal_handler(signal.SIGTERM, end, False)
    loop.add_signal_handler(signal.SIGINT, end, True)
    return ended
