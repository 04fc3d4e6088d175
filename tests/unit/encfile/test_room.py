import pytest

from ensconce.encfile.room import room


@pytest.mark.parametrize("size", [0, 1, 4096, (1 << 20) - 1, 1 << 20, (5 << 20) + 4097])
def test_it_is_as_large_as_asked_empty_and_may_be_written_to(size: int) -> None:
    view = room(size)
    assert len(view) == size
    assert view == bytes(size)
    view[size // 2 :] = bytes([7]) * (size - size // 2)
    assert sum(view) == 7 * (size - size // 2)


def test_no_two_share_memory() -> None:
    one, other = room(2 << 20), room(2 << 20)
    one[:] = b"x" * len(one)
    assert not any(other)


@pytest.mark.parametrize("size", [1 << 50, 1 << 62, 1 << 70])
def test_what_there_can_never_be_is_an_error(size: int) -> None:
    with pytest.raises((MemoryError, OSError, OverflowError)):
        room(size)
