from __future__ import annotations

from pathlib import Path

import pytest

from ensconce.errors import InputError
from ensconce.modelserver.program import _unix, message_bytes

GIB = 2**30


def test_messages_are_held_to_the_memory_that_there_is() -> None:
    assert message_bytes(None, 256 * GIB) == 2 * GIB - 1
    assert message_bytes(None, 8 * GIB) == GIB // 2
    assert message_bytes(1000, 8 * GIB) == 1000
    assert message_bytes(2 * GIB, 8 * GIB) == 2 * GIB


@pytest.mark.parametrize("name", ["missing/socket", "x" * 200, "a file"])
def test_sockets_that_cannot_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "a file").write_text("which stays")
    with pytest.raises(InputError) as caught:
        _unix(tmp_path / name)
    assert caught.value.check == "serving.socket"
    assert (tmp_path / "a file").read_text() == "which stays"


def test_a_socket_that_was_left_is_replaced(tmp_path: Path) -> None:
    _unix(tmp_path / "socket").close()
    _unix(tmp_path / "socket").close()
