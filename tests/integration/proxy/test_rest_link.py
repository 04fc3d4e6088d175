"""HTTP/1.1 towards a replica, which here says what a test has it say: over a Unix socket, as through a tunnel."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import h11
import pytest

from ensconce.errors import UnreachableError
from ensconce.proxy import rest_back, rest_link
from ensconce.proxy.rest_back import RestBack
from ensconce.proxy.rest_link import DIALS, RestLink
from ensconce.serving.http1.memory import Memory

WELL = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell"


class Far:
    """One connection, at the replica's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def request(self) -> tuple[bytes, bytes]:
        """Its head and its body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        _, found, length = head.lower().partition(b"content-length: ")
        return head, await self.reader.readexactly(int(length.split(b"\r\n")[0])) if found else b""

    async def ended(self) -> None:
        """Until the proxy closes."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


Script = Callable[[Far], Coroutine[Any, Any, None]]


class Linked:
    """A link, and what became of its connections."""

    def __init__(self) -> None:
        self.link: RestLink
        self.opened = 0
        self.memory = Memory(256 << 20)
        self.ended = asyncio.Semaphore(0)
        self.dialling = self.most_dialling = 0
        self.refuses = False
        self.dials = asyncio.Event()
        self.dials.set()

    async def ask(self, body: bytes = b"", method: str = "POST") -> bytes:
        fields = [(b"host", b"d"), *([(b"content-length", b"%d" % len(body))] if body else [])]
        request = h11.Request(method=method, target="/a", headers=fields)
        return (await asyncio.wait_for(self.link.ask(request, body, self.memory), 5)).body


@pytest.fixture
async def linked(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """A link to a server that runs one script after the other, a connection each."""
    tasks: set[asyncio.Task[None]] = set()
    servers = []

    async def make(*scripts: Script, patience: float = 5) -> Linked:
        left = iter(scripts)
        made = Linked()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            made.opened += 1
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            await next(left)(Far(reader, writer))
            writer.close()
            made.ended.release()

        servers.append(await asyncio.start_unix_server(serve, tmp_path / "tunnel"))

        async def connect(make: Callable[[], RestBack]) -> RestBack:
            made.dialling += 1
            made.most_dialling = max(made.most_dialling, made.dialling)
            try:
                await made.dials.wait()
                if made.refuses:
                    raise ConnectionError
                _, back = await asyncio.get_running_loop().create_unix_connection(make, str(tmp_path / "tunnel"))
                return back
            finally:
                made.dialling -= 1

        made.link = RestLink(connect, patience)
        return made

    yield make
    for server in servers:
        server.close()
    for task in tasks:
        task.cancel()


async def answers(far: Far) -> None:
    """Every request."""
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            await far.request()
            far.writer.write(WELL)


def says(said: bytes) -> Script:
    """What answers the first request so, and ends."""

    async def script(far: Far) -> None:
        await far.request()
        far.writer.write(said)
        await far.writer.drain()

    return script


def stays(said: bytes) -> Script:
    """What answers the first request so, and waits for the proxy to end."""

    async def script(far: Far) -> None:
        await far.request()
        far.writer.write(said)
        await far.ended()

    return script


async def test_a_connection_is_used_again(linked) -> None:
    made = await linked(answers)
    assert [await made.ask() for _ in range(3)] == [b"well"] * 3
    assert made.opened == 1


async def test_requests_at_once_have_connections_of_their_own(linked) -> None:
    made = await linked(answers, answers, answers)
    assert await asyncio.gather(*(made.ask() for _ in range(3))) == [b"well"] * 3
    assert made.opened == 3
    assert [await made.ask() for _ in range(3)] == [b"well"] * 3
    assert made.opened == 3


async def test_a_body_arrives_whole_however_slowly_it_is_taken(linked) -> None:
    body = bytes(range(256)) * 40_000
    arrived: list[bytes] = []

    async def script(far: Far) -> None:
        arrived.append((await far.request())[1])
        far.writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nwel\r\n1\r\nl\r\n0\r\n\r\n")
        arrived.append((await far.request())[0])
        far.writer.write(WELL)

    made = await linked(script)
    assert await made.ask(body) == b"well"
    assert arrived == [body]
    assert await made.ask() == b"well"
    assert made.opened == 1


async def test_interim_answers_are_not_the_answer(linked) -> None:
    made = await linked(says(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + WELL))
    assert await made.ask(b"body") == b"well"


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nwell",
        b"HTTP/1.0 200 OK\r\ncontent-length: 4\r\n\r\nwell",
        WELL + b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nill",
    ],
    ids=["close", "HTTP/1.0", "two for one"],
)
async def test_a_connection_is_not_used_again_after(linked, first: bytes) -> None:
    made = await linked(stays(first), answers)
    assert await made.ask() == b"well"
    await asyncio.wait_for(made.ended.acquire(), 5)
    assert await made.ask() == b"well"
    assert made.opened == 2


async def test_what_nobody_asked_for_is_no_answer(linked) -> None:
    go = asyncio.Event()

    async def script(far: Far) -> None:
        await far.request()
        far.writer.write(WELL)
        await go.wait()
        far.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nill")
        await far.ended()

    made = await linked(script, answers)
    assert await made.ask() == b"well"
    go.set()
    await asyncio.wait_for(made.ended.acquire(), 5)
    assert await made.ask() == b"well"


async def test_a_connection_that_the_replica_ended_meanwhile_is_not_used(linked) -> None:
    made = await linked(says(WELL), answers)
    assert await made.ask() == b"well"
    async with asyncio.timeout(5):
        while made.link._kept[0][1].is_open:
            await asyncio.sleep(0)
    assert await made.ask() == b"well"
    assert made.opened == 2


async def test_a_connection_that_was_idle_for_long_is_not_used(linked, monkeypatch) -> None:
    made = await linked(answers, answers)
    assert await made.ask() == b"well"
    monkeypatch.setattr(rest_link, "_KEPT_S", 0.0)
    assert await made.ask() == b"well"
    assert made.opened == 2
    await asyncio.wait_for(made.ended.acquire(), 5)


async def test_an_answer_before_the_request_is_sent_ends_the_connection(linked) -> None:
    async def script(far: Far) -> None:
        await far.reader.readuntil(b"\r\n\r\n")
        far.writer.write(b"HTTP/1.1 413 No\r\ncontent-length: 8\r\n\r\ntoo long")
        await far.ended()

    made = await linked(script, answers)
    assert await made.ask(bytes(64 << 20)) == b"too long"
    assert await made.ask() == b"well"
    assert made.opened == 2


@pytest.mark.parametrize(
    ("said", "check"),
    [
        (b"", "proxy.connection"),
        (b"HTTP/1.1 200", "proxy.connection"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwel", "proxy.connection"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nwel\r\n", "proxy.connection"),
        (b"HTTP/1.1 200 OK\r\n\r\nwell", "http.length"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 3\r\n\r\nwell", "proxy.connection"),
        (b"SSH-2.0-x\r\n\r\n", "proxy.connection"),
        (b"HTTP/1.1 200 OK\r\nx: " + bytes(200_000), "proxy.connection"),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", "proxy.connection"),
    ],
    ids=["nothing", "half a line", "cut", "cut chunks", "no length", "two lengths", "SSH", "long head", "upgrade"],
)
async def test_no_whole_answer_is_a_failure(linked, said: bytes, check: str) -> None:
    made = await linked(says(said), answers)
    with pytest.raises(UnreachableError) as caught:
        await made.ask(b"body")
    assert caught.value.check == check
    assert await made.ask() == b"well"


async def test_a_tunnel_through_the_replica_is_none(linked) -> None:
    made = await linked(stays(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"))
    with pytest.raises(UnreachableError, match=r"proxy\.connection"):
        await made.ask(method="CONNECT")
    await asyncio.wait_for(made.ended.acquire(), 5)


async def test_an_answer_has_a_longest(linked, monkeypatch) -> None:
    monkeypatch.setattr(rest_back, "_LONGEST_BODY", 3)
    made = await linked(stays(WELL))
    with pytest.raises(UnreachableError, match=r"proxy\.answer"):
        await made.ask()
    await asyncio.wait_for(made.ended.acquire(), 5)


async def test_answers_that_arrive_share_an_account(linked) -> None:
    half = asyncio.Event()

    async def script(far: Far) -> None:
        await far.request()
        far.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhal")
        await half.wait()
        far.writer.write(b"ves")
        await answers(far)

    made = await linked(script, stays(WELL))
    made.memory = Memory(6)
    asking = asyncio.create_task(made.ask())
    async with asyncio.timeout(5):
        while made.memory.used < 3:
            await asyncio.sleep(0)
    with pytest.raises(UnreachableError, match=r"proxy\.memory"):
        await made.ask()
    assert made.memory.used == 3
    half.set()
    assert await asking == b"halves"
    assert made.memory.used == 0
    assert await made.ask() == b"well"


class Takes(asyncio.Transport):
    """Takes everything at once, unless it ``blocks``."""

    def __init__(self, back: RestBack, *, blocks: bool = False) -> None:
        super().__init__()
        self.taken, self._back, self._blocks, self._is_over = 0, back, blocks, False
        back.connection_made(self)

    def write(self, data: Any) -> None:
        self.taken += len(data)
        if self._blocks:
            self._back.pause_writing()

    def is_closing(self) -> bool:
        return self._is_over

    def abort(self) -> None:
        self._is_over = True


POST = h11.Request(method="POST", target="/a", headers=[("host", "d"), ("content-length", str(1 << 20))])


async def test_others_have_their_turn_while_a_long_body_goes() -> None:
    back = RestBack(memoryview(bytearray(1)))
    replica = Takes(back)
    asking = asyncio.create_task(back.ask(POST, bytes(1 << 20), Memory(0)))
    await asyncio.sleep(0)
    assert 0 < replica.taken < 1 << 20
    async with asyncio.timeout(5):
        while replica.taken < 1 << 20:
            await asyncio.sleep(0)
    asking.cancel()


async def test_a_connection_whose_end_nobody_was_told_of_yet_is_not_used() -> None:
    back = RestBack(memoryview(bytearray(1)))
    replica = Takes(back)
    assert back.is_open
    replica.abort()
    assert not back.is_open


async def test_nothing_is_logged_where_replica_and_client_leave_at_once() -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    back = RestBack(memoryview(bytearray(1)))
    Takes(back, blocks=True)
    asking = asyncio.create_task(back.ask(POST, bytes(1 << 20), Memory(0)))
    await asyncio.sleep(0)
    back.connection_lost(None)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    del asking, back
    gc.collect()
    assert not told


async def test_failures_keep_nothing_of_the_requests_before(linked) -> None:
    made = await linked(*[says(b"")] * 3)
    depths = []
    for _ in range(3):
        with pytest.raises(UnreachableError) as caught:
            await made.ask()
        depths.append(len(caught.traceback))
    assert len(set(depths)) == 1


@pytest.mark.parametrize("size", [0, 64 << 20])
async def test_who_waits_no_longer_ends_the_connection(linked, size: int) -> None:
    arrived = asyncio.Event()

    async def script(far: Far) -> None:
        await far.reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await asyncio.Event().wait() if size else await far.ended()

    made = await linked(script, answers)
    asking = asyncio.create_task(made.ask(bytes(size)))
    await asyncio.wait_for(arrived.wait(), 5)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    if not size:
        await asyncio.wait_for(made.ended.acquire(), 5)
    assert await made.ask() == b"well"
    assert made.opened == 2


async def test_so_many_connections_are_opened_at_a_time_and_a_failure_is_everybodys(linked) -> None:
    made = await linked()
    made.refuses = True
    made.dials.clear()
    asking = [asyncio.create_task(made.ask()) for _ in range(3 * DIALS)]
    async with asyncio.timeout(5):
        while made.dialling < DIALS:
            await asyncio.sleep(0)
    made.dials.set()
    assert {type(each) for each in await asyncio.gather(*asking, return_exceptions=True)} == {ConnectionError}
    assert made.most_dialling == DIALS
    assert made.opened == 0


async def test_a_connection_that_is_never_there_is_waited_for_so_long(linked) -> None:
    made = await linked(patience=0.01)
    made.dials.clear()
    with pytest.raises(ConnectionError):
        await made.ask()


async def test_a_failure_that_nobody_foresaw_is_told_and_no_request_hangs(linked, monkeypatch, caplog) -> None:
    made = await linked()

    async def connect(_make: object) -> RestBack:
        raise ZeroDivisionError

    monkeypatch.setattr(made.link, "_connect", connect)
    with pytest.raises(ConnectionError):
        await made.ask()
    assert "nobody foresaw" in caplog.text


async def test_the_end_of_a_link_is_the_end_of_its_requests(linked) -> None:
    arrived = asyncio.Event()

    async def script(far: Far) -> None:
        await far.request()
        arrived.set()
        await far.ended()

    made = await linked(answers, script)
    assert await made.ask() == b"well"
    busy = made.link._take()
    asking = asyncio.create_task(made.ask())
    await asyncio.wait_for(arrived.wait(), 5)
    assert busy is not None
    made.link._keep(busy)
    await asyncio.to_thread(made.link.close)
    with pytest.raises(UnreachableError, match=r"proxy\.connection"):
        await asking
    for _ in range(2):
        await asyncio.wait_for(made.ended.acquire(), 5)
    with pytest.raises(ConnectionError):
        await made.ask()
