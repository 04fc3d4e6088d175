"""Memory for secrets."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.keys import SecretBuffer, protect_process
from ensconce.keys import memory as module


@given(st.binary(max_size=9000))
def test_it_holds_what_was_put_and_nothing_after_wiping(data: bytes) -> None:
    buffer = SecretBuffer.of(data)
    view = buffer.view
    assert (len(buffer), bytes(view)) == (len(data), data)
    buffer.wipe()
    assert bytes(view) == bytes(len(data))
    buffer.wipe()
    with pytest.raises(ValueError, match="wiped"):
        _ = buffer.view


def test_a_bytearray_is_taken_over_and_bytes_are_not() -> None:
    source = bytearray(b"secret")
    with SecretBuffer.of(source) as buffer:
        assert bytes(buffer.view) == b"secret"
        assert source == bytes(6)
        address = buffer._address
    assert ctypes.string_at(address, 6) == bytes(6)


def test_it_is_wiped_when_nobody_has_it_any_more() -> None:
    buffer = SecretBuffer.of(b"secret")
    view = buffer.view
    del buffer
    assert bytes(view) == bytes(6)


def test_its_pages_are_its_own_locked_and_left_out_of_dumps() -> None:
    with SecretBuffer(3) as one, SecretBuffer(3) as other:
        assert one._address % mmap.PAGESIZE == other._address % mmap.PAGESIZE == 0
        assert abs(one._address - other._address) >= mmap.PAGESIZE
        flags = ""
        blocks = Path("/proc/self/smaps").read_text().split("VmFlags:")
        for before, after in itertools.pairwise(blocks):
            line = before.strip().splitlines()
            head = next(each for each in reversed(line) if "-" in each.split()[0])
            start, end = (int(part, 16) for part in head.split()[0].split("-"))
            if start <= one._address < end:
                flags = after.splitlines()[0]
        assert "dd" in flags.split()  # proc(5): do not include in a core dump
        if one.locked:
            assert "lo" in flags.split()


def test_where_locking_is_forbidden_it_works_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forbidden:
        @staticmethod
        def mlock(*_: object) -> int:
            return -1

    monkeypatch.setattr(module, "_libc", Forbidden)
    with SecretBuffer.of(b"secret") as buffer:
        assert not buffer.locked
        assert bytes(buffer.view) == b"secret"


def test_nothing_in_its_repr() -> None:
    assert repr(SecretBuffer.of(b"secret")) == "SecretBuffer(6 bytes)"


PROTECT = """
import resource, sys
from pathlib import Path
{before}
from ensconce.keys import protect_process
found = protect_process()
status = Path("/proc/self/status").read_text()
locked = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmLck:"))
print(found.core_dumps_off, found.memory_locked, locked > 0, resource.getrlimit(resource.RLIMIT_CORE), sep="|")
print(found.remark or "")
data = bytearray(64 << 20)  # far beyond any limit: it must still be there to be had
data[::4096] = b"x" * len(data[::4096])
"""


def _protected(before: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROTECT.format(before=before)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.splitlines()


def test_a_process_under_a_limit_is_not_locked_and_says_so() -> None:
    # Without CAP_IPC_LOCK, as an ordinary user is.
    before = (
        "resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 16, 1 << 16))\n"
        "from ensconce.keys import memory\nmemory._effective_capabilities = lambda: 0"
    )
    flags, remark = _protected(before)
    assert flags == "True|False|False|(0, 0)"
    assert "RLIMIT_MEMLOCK is 65536 bytes" in remark


def test_a_process_that_may_is_locked() -> None:
    may = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] == resource.RLIM_INFINITY
    if not may and not module._effective_capabilities() >> 14 & 1:
        pytest.skip("this user may not lock memory: RLIMIT_MEMLOCK is limited, and there is no CAP_IPC_LOCK")
    flags, remark = _protected("resource.setrlimit(resource.RLIMIT_MEMLOCK, (-1, -1))" if may else "")
    assert flags == "True|True|True|(0, 0)"
    assert remark == ""


def test_whatever_fails_is_said_and_nothing_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def __getattr__(self, name: str) -> object:
            return lambda *_: -1

    def refuse(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr(module, "_libc", Refusing())
    monkeypatch.setattr(module, "_may_lock_everything", lambda: True)
    monkeypatch.setattr(resource, "setrlimit", refuse)
    found = protect_process()
    assert (found.core_dumps_off, found.memory_locked) == (False, False)
    assert "core dumps" in (found.remark or "")
    assert "could not be locked" in (found.remark or "")


def test_capabilities_that_cannot_be_read_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: "CapEff:\n")
    assert module._effective_capabilities() == 0
    assert os.getpid()
