"""A tunnel: every local connection is an attested connection of its own, or is closed."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from ensconce.addresses import Address
from ensconce.client import pump
from ensconce.client.attested import connect_tls
from ensconce.client.tunnel import Tunnel
from ensconce.errors import InputError, RefusedError, UnreachableError
from ensconce.ratls.authority import DEFAULT_LIFETIME
from ensconce.times import since_boot

DOMAIN = "digits.example.test"


@pytest.fixture
def tunnel_to(world):
    made: list[Tunnel] = []

    def make(target, appraiser=None) -> Tunnel:
        connect = functools.partial(
            connect_tls,
            target,
            DOMAIN,
            appraiser or world.appraiser(),
            authority=world.authority.certificate,
            alpn="h2",
            timeout=30.0,
        )
        made.append(Tunnel(connect))
        return made[-1]

    yield make
    for each in made:
        each.close()


def local(tunnel: Tunnel) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(30)
    connection.connect(tunnel.path)
    return connection


def say(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    return connection.recv(65536)


def test_every_local_connection_has_its_own(world, recorder, tunnel_to, wait_for) -> None:
    server = recorder(world.replica())
    with tunnel_to(server.target) as tunnel:
        assert tunnel.accepted is not None
        assert tunnel.connections == {tunnel.accepted.replica_id: 1}
        with local(tunnel) as one, local(tunnel) as two:
            assert say(one, b"one") == b"ONE"
            assert say(two, b"two") == b"TWO"
        assert server.accepted == 2
        assert tunnel.connections == {tunnel.accepted.replica_id: 2}
        wait_for(lambda: server.ended == 2, "both connections to end with the local ones")
    assert sorted(server.names) == [DOMAIN, DOMAIN]


SETTINGS = bytes.fromhex("000006 04 00 00000000 0003 00000064")
GOAWAY = bytes.fromhex("000008 07 00 00000000 7fffffff 00000000")


@pytest.mark.parametrize(
    ("said", "ends", "connections"),
    [
        ([SETTINGS + GOAWAY], False, 2),
        ([SETTINGS, GOAWAY[:8], GOAWAY[8:]], False, 2),
        ([], True, 2),
        ([SETTINGS], True, 2),
        ([SETTINGS], False, 1),
        ([SETTINGS + GOAWAY[:3]], False, 1),
        ([SETTINGS[:-1] + b"\x07", SETTINGS], False, 1),
        ([], False, 1),
    ],
)
def test_a_connection_that_is_going_before_its_use_is_not_used(
    world, recorder, tunnel_to, wait_for, said, ends, connections
) -> None:
    """A replica that drains says so to the connection that waits for its first use."""
    done = threading.Event()

    def talk(tls) -> None:
        if not done.is_set():
            tls.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for each in said:
                tls.sendall(each)
            if ends:
                tls.shutdown(socket.SHUT_RDWR)
            done.set()

    server = recorder(world.replica(), alpn=["h2"], talk=talk)
    with tunnel_to(server.target) as tunnel:
        assert done.wait(10)
        expected = (b"".join(said) if connections == 1 else b"") + b"ONE"
        heard = b""
        with local(tunnel) as used:
            used.sendall(b"one")
            while len(heard) < len(expected) and (data := used.recv(65536)):
                heard += data
        assert heard == expected
        assert server.accepted == connections
        assert not tunnel.is_lost


def test_a_refused_replica_is_known_at_once(world, recorder, tunnel_to) -> None:
    server = recorder(world.replica(mr_enclave=bytes(32)))
    tunnel = tunnel_to(server.target)
    with pytest.raises(RefusedError) as refused:
        tunnel.start()
    assert refused.value.check == "policy.mr_enclave"
    assert tunnel.failure is refused.value
    assert server.received == b""


def test_a_later_connection_that_is_refused_is_closed_and_says_why(world, recorder, tunnel_to) -> None:
    """The gateway's target changes under the tunnel, as when a host swaps the replica behind it."""
    good = recorder(world.replica())
    bad = recorder(world.replica(mr_enclave=bytes(32)))
    targets = iter([good.target, bad.target, good.target])

    def connect():
        return connect_tls(
            next(targets), DOMAIN, world.appraiser(), authority=world.authority.certificate, alpn="h2", timeout=30.0
        )

    with Tunnel(connect) as tunnel:
        with local(tunnel) as first:
            assert say(first, b"a") == b"A"
            with local(tunnel) as second, contextlib.suppress(ConnectionError):
                second.sendall(b"pixels that nobody may see")
                assert second.recv(100) == b""
            assert tunnel.failure is not None
            assert tunnel.failure.check == "policy.mr_enclave"
            assert say(first, b"b") == b"B"
        with local(tunnel) as third:
            assert say(third, b"c") == b"C"
        assert tunnel.failure is None
    assert bad.received == b""


def test_large_transfers_in_both_directions_at_once(world, recorder, tunnel_to) -> None:
    size = 12 << 20
    sent = os.urandom(1 << 16) * (size >> 16)
    got = bytearray()
    server = recorder(world.replica())
    with tunnel_to(server.target) as tunnel, local(tunnel) as connection:

        def read() -> None:
            while len(got) < size:
                got.extend(connection.recv(1 << 20))

        reader = threading.Thread(target=read)
        reader.start()
        connection.sendall(sent)
        reader.join(30)
    assert got == sent.upper()


def test_the_replica_ends_the_connection(world, recorder, tunnel_to) -> None:
    server = recorder(world.replica())
    with tunnel_to(server.target) as tunnel, local(tunnel) as connection:
        assert say(connection, b"x") == b"X"
        server.cut()
        assert connection.recv(100) == b""


def test_no_connection_outlives_what_it_was_accepted_for(world, recorder, tunnel_to) -> None:
    """The replica's clock is the host's; this one is the client's."""
    server = recorder(world.replica())
    almost = world.appraiser(after=DEFAULT_LIFETIME - 2)
    with tunnel_to(server.target, almost) as tunnel, local(tunnel) as connection:
        assert say(connection, b"x") == b"X"
        assert connection.recv(100) == b""
    assert tunnel.failure is None


def test_nothing_is_said_after_a_sleep_in_which_that_ended(world, recorder, tunnel_to, monkeypatch) -> None:
    server, wait, asleep = recorder(world.replica()), pump._wait, threading.Event()

    def sleep(*arguments) -> None:
        if not asleep.is_set():
            wait(*arguments)
            return
        # CLOCK_MONOTONIC would have stood still meanwhile.
        connection.sendall(b"pixels that nobody may see")
        monkeypatch.setattr(pump, "since_boot", lambda: since_boot() + DEFAULT_LIFETIME)

    monkeypatch.setattr(pump, "_wait", sleep)
    with tunnel_to(server.target) as tunnel, local(tunnel) as connection:
        assert say(connection, b"x") == b"X"
        asleep.set()
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"y")
            while connection.recv(100):
                pass
    assert b"pixels" not in server.received


def test_the_folder_is_private_and_vanishes(world, recorder, tunnel_to) -> None:
    tunnel = tunnel_to(recorder(world.replica()).target)
    tunnel.start()
    folder = Path(os.path.realpath(tunnel.path)).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    tunnel.close()
    tunnel.close()
    assert not folder.exists()


def test_close_cuts_what_is_open_and_leaves_no_thread(world, recorder, tunnel_to, wait_for) -> None:
    before = threading.active_count()
    server = recorder(world.replica())
    tunnel = tunnel_to(server.target)
    tunnel.start()
    with local(tunnel) as connection:
        assert say(connection, b"x") == b"X"
        tunnel.close()
        assert connection.recv(100) == b""
    wait_for(lambda: server.ended == 1, "the replica to see the end")
    server.stop()
    wait_for(lambda: threading.active_count() <= before, "threads to end")


def test_another_process_cannot_use_it(world, recorder, tunnel_to) -> None:
    server = recorder(world.replica())
    with tunnel_to(server.target) as tunnel:
        program = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(100))"
        stranger = subprocess.run(
            [sys.executable, "-c", program, os.path.realpath(tunnel.path)], capture_output=True, timeout=30
        )
        assert stranger.stdout in {b"b''\n", b""}
        with local(tunnel) as connection:
            assert say(connection, b"x") == b"X"
    assert server.received == b"x"


def test_whoever_makes_its_folder_again_is_told_nothing(world, recorder, tunnel_to) -> None:
    """Where /tmp is tidied up, or a parent closed what its child inherited, the name is free for others."""
    with tunnel_to(recorder(world.replica()).target) as tunnel:
        path = Path(os.path.realpath(tunnel.path))
        shutil.rmtree(path.parent)
        path.parent.mkdir()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            other.listen()
            with pytest.raises(FileNotFoundError):
                local(tunnel)


def test_unreachable(tunnel_to, find_port) -> None:
    with pytest.raises(UnreachableError):
        tunnel_to(Address("127.0.0.1", find_port())).start()


def test_a_folder_for_temporary_files_with_a_long_name(world, recorder, tunnel_to, tmp_path, monkeypatch) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with tunnel_to(recorder(world.replica()).target) as tunnel, local(tunnel) as connection:
        assert say(connection, b"x") == b"X"
    assert list(long.iterdir()) == []


def test_no_folder_for_temporary_files(world, recorder, tunnel_to, tmp_path, monkeypatch, wait_for) -> None:
    server = recorder(world.replica())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(InputError) as failed:
        tunnel_to(server.target).start()
    assert failed.value.check == "tunnel.socket"
    wait_for(lambda: server.ended == 1, "the first connection to be closed again")


class Panic(BaseException):
    """As native code raises it through its Python bindings."""


@pytest.mark.parametrize("kind", [ValueError, Panic, SystemExit])
def test_a_judge_that_fails_in_ways_of_its_own_refuses(world, recorder, tunnel_to, kind) -> None:
    def judge(_quote: bytes):
        raise kind("the innermost secret")

    good, appraiser = recorder(world.replica()), world.appraiser()
    with tunnel_to(good.target, appraiser) as tunnel, local(tunnel) as first:
        assert say(first, b"x") == b"X"
        object.__setattr__(appraiser, "collateral", SimpleNamespace(get_for=judge))
        with local(tunnel) as second:
            assert second.recv(100) == b""
        assert tunnel.failure is not None
        assert tunnel.failure.check == "client.connect"
        assert kind.__name__ in str(tunnel.failure)
        assert "secret" not in str(tunnel.failure)
        assert say(first, b"y") == b"Y"
    assert good.received == b"xy"
