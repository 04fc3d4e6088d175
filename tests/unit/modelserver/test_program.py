from __future__ import annotations

from ensconce.modelserver.program import message_bytes

GIB = 2**30


def test_messages_are_held_to_the_memory_that_there_is() -> None:
    assert message_bytes(None, 256 * GIB) == 2 * GIB - 1
    assert message_bytes(None, 8 * GIB) == GIB // 2
    assert message_bytes(1000, 8 * GIB) == 1000
    assert message_bytes(2 * GIB, 8 * GIB) == 2 * GIB
