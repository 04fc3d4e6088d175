"""What the tests of several commands use."""

from __future__ import annotations

import os
import pty
import select
import sys
import time

import pytest


class Terminal:
    """A person at a terminal: ``ensconce`` in a process of its own, with a pty as its controlling terminal."""

    def __init__(self, *arguments: str) -> None:
        self.said = ""
        self.pid, self._handle = pty.fork()
        if self.pid == 0:
            os.execv(sys.executable, [sys.executable, "-P", "-m", "ensconce", *arguments])

    def wait_for(self, text: str, again: bytes = b"") -> str:
        """What is shown before ``text``; ``again`` is pressed in each second that shows nothing."""
        deadline = time.monotonic() + 30
        while text not in self.said:
            assert time.monotonic() < deadline, self.said
            readable, _, _ = select.select([self._handle], [], [], 1)
            if readable:
                self.said += os.read(self._handle, 4096).decode()
            elif again:
                self.press(again)
        before, _, self.said = self.said.partition(text)
        return before

    def type(self, text: str) -> None:
        self.press(f"{text}\n".encode())

    def press(self, keys: bytes) -> None:
        os.write(self._handle, keys)

    def end(self) -> int:
        rest = b""
        try:
            while part := os.read(self._handle, 4096):
                rest += part
        except OSError:
            pass  # EIO: the other side has gone
        self.said += rest.decode()
        os.close(self._handle)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def terminal() -> type[Terminal]:
    """Starts ``ensconce`` with the given arguments, at a terminal of its own."""
    return Terminal
