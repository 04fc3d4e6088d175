"""Several processes on one file do exactly what one does."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ensconce import encfile
from ensconce.encfile import crew as crew_module
from ensconce.encfile.board import Board
from ensconce.encfile.layout import Layout
from ensconce.errors import IntegrityError

KEY = bytes(range(16))
GROUP = 96 * 4096
Reader = Callable[[bytes, bytes], tuple[int, bytes, bytes, list[bytes]]]


@pytest.fixture(scope="module")
def data() -> bytes:
    return random.Random(7).randbytes(3072 + 70 * GROUP + 4097)


def test_helpers_write_the_same_format(tmp_path: Path, data: bytes, reference: Reader) -> None:
    (tmp_path / "in").write_bytes(data)
    told: list[int] = []
    encfile.encrypt_file(tmp_path / "in", tmp_path / "enc", KEY, embedded_path="x", workers=3, progress=told.append)
    assert sum(told) == len(data)
    _, _, found, keys = reference((tmp_path / "enc").read_bytes(), KEY)
    assert found == data
    assert len(set(keys)) == len(keys)
    told.clear()
    encfile.decrypt_file(tmp_path / "enc", tmp_path / "out", KEY, verify_path="x", workers=3, progress=told.append)
    assert sum(told) == len(data)
    assert (tmp_path / "out").read_bytes() == data


@pytest.mark.parametrize("node", [1, 98, 98 + 97 * 40, 98 + 97 * 40 + 5, 97 * 70 + 3])
def test_a_changed_node_is_named_whoever_meets_it(tmp_path: Path, data: bytes, node: int) -> None:
    (tmp_path / "in").write_bytes(data)
    encfile.encrypt_file(tmp_path / "in", tmp_path / "enc", KEY, embedded_path="x")
    with (tmp_path / "enc").open("r+b") as file:
        file.seek(node * 4096 + 17)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(IntegrityError, match=f"node {node} of"):
        encfile.decrypt_file(tmp_path / "enc", tmp_path / "out", KEY, verify_path="x", workers=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["enc", "in"]


@pytest.mark.parametrize("interpreter", ["/bin/false", "/no/such/interpreter"])
def test_without_helpers_the_work_is_done_all_the_same(
    tmp_path: Path, data: bytes, interpreter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").write_bytes(data)
    monkeypatch.setattr(crew_module.sys, "executable", interpreter)
    encfile.encrypt_file(tmp_path / "in", tmp_path / "enc", KEY, embedded_path="x", workers=2)
    assert encfile.decrypt_bytes(tmp_path / "enc", KEY, verify_path="x") == data


def test_tickets_that_a_killed_helper_took_are_done_again(
    tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Board.claim
    lost: list[int | None] = []

    def claim(board: Board) -> int | None:
        if len(lost) < 3:
            lost.append(real(board))  # as if somebody else had taken it, and died
        return real(board)

    monkeypatch.setattr(Board, "claim", claim)
    (tmp_path / "in").write_bytes(data)
    encfile.encrypt_file(tmp_path / "in", tmp_path / "enc", KEY, embedded_path="x", workers=2)
    assert None not in lost
    assert encfile.decrypt_bytes(tmp_path / "enc", KEY, verify_path="x") == data


def test_no_secret_reaches_a_helpers_command_line(tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    real = subprocess.Popen

    def popen(arguments: list[str], **options: object) -> object:
        seen.append(arguments)
        return real(arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(crew_module.subprocess, "Popen", popen)
    (tmp_path / "in").write_bytes(data)
    encfile.encrypt_file(tmp_path / "in", tmp_path / "enc", KEY, embedded_path="secret-name", workers=2)
    (arguments,) = seen
    assert arguments[:5] == [sys.executable, "-P", "-m", "ensconce.encfile.helper", "seal"]
    assert all(argument.isdigit() for argument in arguments[5:])


def test_a_board_hands_out_each_leaf_once() -> None:
    layout = Layout(3072 + 100 * GROUP)
    board = Board.create(layout)
    other = Board(layout, board.handle)
    taken: list[int] = []
    while (ticket := (board if len(taken) % 2 else other).claim()) is not None:
        taken.append(ticket)
        board.finish(ticket)
    assert taken == list(range(board.tickets))
    assert [group for ticket in taken for group in board.groups(ticket)] == list(range(layout.first_leaf, 100))
    assert other.unfinished() == []
    assert other.finished_bytes() == layout.size - layout.plain_span(layout.first_leaf)[0]
    board.entries[layout.slot(99)] = b"k" * 32
    assert other.entries[layout.slot(99)] == b"k" * 32
    board.close()
    assert other.entries[layout.slot(99)] == bytes(32)
