"""Frames and messages, and an enclave that meets a daemon which means it harm."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.errors import EnsconceError, InputError, RefusedError, UnreachableError
from ensconce.platform.simulated.door import SimulatedPlatform
from ensconce.platform.simulated.wire import HEADER_SIZE, MAX_FRAME, ask, body_size, decode, encode, short_name

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=5))
def test_what_is_encoded_is_decoded(message: dict[str, Any]) -> None:
    frame = encode(message)
    assert body_size(frame[:HEADER_SIZE]) == len(frame) - HEADER_SIZE
    assert decode(frame[HEADER_SIZE:]) == message


@given(st.one_of(st.binary(max_size=200), JSON.map(lambda value: json.dumps(value).encode())))
def test_any_body_is_an_object_or_refused(body: bytes) -> None:
    try:
        message = decode(body)
    except InputError as error:
        check = error.check
    else:
        check = "door.message" if isinstance(message, dict) else "not an object"
    assert check == "door.message"


def test_the_bound_is_exact() -> None:
    body_size(struct.pack(">I", MAX_FRAME))
    with pytest.raises(InputError) as refusal:
        body_size(struct.pack(">I", MAX_FRAME + 1))
    assert refusal.value.check == "door.frame"
    assert len(encode({"x": "a" * (MAX_FRAME - len('{"x":""}'))})) == HEADER_SIZE + MAX_FRAME
    with pytest.raises(InputError) as refusal:
        encode({"x": "a" * (MAX_FRAME - len('{"x":""}') + 1)})
    assert refusal.value.check == "door.frame"


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Callable[[bytes], Path]]:
    """A daemon that answers whatever it is asked with the same bytes, and hangs up."""
    threads: list[threading.Thread] = []
    folder = tmp_path / ("a folder whose name is longer than the address of a socket may be " * 3)
    folder.mkdir()

    def start(data: bytes) -> Path:
        path = folder / f"{len(threads)}.sock"
        server = socket.socket(socket.AF_UNIX)
        with short_name(path) as name:
            server.bind(name)
        server.listen(1)

        def serve() -> None:
            with server, server.accept()[0] as stream:
                stream.recv(MAX_FRAME)
                stream.sendall(data)

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[-1].start()
        return path

    yield start
    for thread in threads:
        thread.join(10)


def quote_from(path: Path) -> bytes:
    """What an enclave gets whose door leads to that daemon."""
    door = os.open(path, os.O_PATH)
    try:
        return SimulatedPlatform(door).quote(bytes(64))
    finally:
        os.close(door)


def test_an_honest_answer(answering: Callable[[bytes], Path]) -> None:
    path = answering(encode({"quote": base64.b64encode(b"a quote").decode()}))
    assert quote_from(path) == b"a quote"


def test_a_refusal_is_the_same_error_on_this_side(answering: Callable[[bytes], Path]) -> None:
    error = RefusedError("door.not_an_enclave", "no", found="f", rule="r", remedy="m")
    path = answering(encode({"error": error.fields(), "exit_status": error.exit_status}))
    with pytest.raises(RefusedError) as refusal:
        quote_from(path)
    assert refusal.value.fields() == error.fields()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0",
        struct.pack(">I", 0xFFFFFFFF),
        struct.pack(">I", 100) + b"{",
        struct.pack(">I", 2) + b"[]",
        struct.pack(">I", 4) + b"\xff\xff\xff\xff",
        encode({}),
        encode({"quote": 5}),
        encode({"quote": None}),
        encode({"quote": "not base64!"}),
        encode({"quote": ["QQ=="]}),
        encode({"error": "no", "exit_status": 4}),
        encode({"error": {"check": 5}, "exit_status": 4}),
        encode({"error": {"check": "x"}}),
        encode({"error": {"check": "x"}, "exit_status": "4"}),
        encode({"error": {}, "exit_status": True}),
    ],
)
def test_an_enclave_survives_any_answer(answering: Callable[[bytes], Path], data: bytes) -> None:
    with pytest.raises(UnreachableError) as refusal:
        quote_from(answering(data))
    assert refusal.value.check == "platform.daemon"


@pytest.mark.parametrize("status", [0, 1, 99, -1])
def test_a_refusal_with_an_unknown_exit_status_is_still_a_refusal(
    answering: Callable[[bytes], Path], status: int
) -> None:
    path = answering(encode({"error": {"check": "x", "problem": "y"}, "exit_status": status}))
    with pytest.raises(EnsconceError) as refusal:
        quote_from(path)
    assert refusal.value.check == "x"


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError):
        ask(str(tmp_path / "none"), {}, 1)


@pytest.mark.parametrize("size", [0, 32, 63, 65, 128])
def test_report_data_of_another_length(size: int) -> None:
    with pytest.raises(InputError) as refusal:
        SimulatedPlatform().quote(bytes(size))
    assert refusal.value.check == "platform.report_data"
