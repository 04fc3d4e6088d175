"""Which signals end a server."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from ensconce.serving.signals import told_to_end


@pytest.mark.parametrize(("number", "is_interrupt"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_either_signal_ends_it(number: signal.Signals, is_interrupt: bool) -> None:
    async def run() -> bool:
        ended = told_to_end()
        assert not ended.done()
        os.kill(os.getpid(), number)
        async with asyncio.timeout(10):
            return await ended

    assert asyncio.run(run()) is is_interrupt
