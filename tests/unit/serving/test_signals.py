"""Which signals end a server."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

_PROGRAM = """
import asyncio
from ensconce.serving.signals import told_to_end

async def run():
    ended = told_to_end()
    print("waits", flush=True)
    return await ended

print(asyncio.run(run()))
"""


@pytest.mark.parametrize(("number", "is_interrupt"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_either_signal_ends_it(number: signal.Signals, is_interrupt: bool) -> None:
    # In a process of its own: one that runs other tests, too, has threads and handlers that others left.
    with subprocess.Popen([sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "waits\n"
        program.send_signal(number)
        assert program.communicate(timeout=30)[0] == f"{is_interrupt}\n"
    assert program.returncode == 0
