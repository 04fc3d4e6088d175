"""Our reader of HTTP/1.1 against servers that answer in every allowed way, and in some others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from ensconce.bench.tally import AnswerError
from ensconce.bench.targets.dialect import Ask
from ensconce.bench.targets.over_http import Http, dialler

ASK = Ask("/v2/models/m/infer", b'{"inputs":[]}')
Serve = Callable[..., Awaitable["Served"]]


class Served:
    """A server that sends the same answers to each connection, one for each request, then what ``then`` says."""

    def __init__(self, answers: list[bytes], *, end: bool) -> None:
        self.answers, self.end = answers, end
        self.heads: list[bytes] = []
        self.connections = 0

    async def start(self) -> Http:
        self.server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        self.http = Http(dialler("127.0.0.1", port, None, None), "models.example")
        return self.http

    async def stop(self) -> None:
        await self.http.close()
        self.server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            for answer in self.answers:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                if head.startswith(b"POST"):
                    await reader.readexactly(len(ASK.body or b""))
                writer.write(answer)
            if not self.end:
                await reader.read(1)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    made: list[Served] = []

    async def make(*answers: bytes, end: bool = True) -> Served:
        made.append(Served(list(answers), end=end))
        await made[-1].start()
        return made[-1]

    yield make
    for each in made:
        await each.stop()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=1\r\nllo\r\n0\r\nx: y\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length:5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
    ],
)
async def test_answers(serve: Serve, answer: bytes) -> None:
    served = await serve(answer)
    assert (await served.http.ask(ASK, 5)).body == b"hello"
    assert served.heads[0] == (
        b"POST /v2/models/m/infer HTTP/1.1\r\nhost: models.example\r\ncontent-type: application/json\r\n"
        b"content-length: 13\r\n\r\n"
    )


async def test_where_json_ends_before_binary_tensors(serve: Serve) -> None:
    served = await serve(
        b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: 2\r\ncontent-length: 4\r\n\r\n{}\xff\xff"
    )
    answer = await served.http.ask(Ask(ASK.path, ASK.body, 9), 5)
    assert (answer.body, answer.json_size) == (b"{}\xff\xff", 2)
    assert served.heads[0].endswith(
        b"\r\ncontent-type: application/octet-stream\r\ncontent-length: 13\r\n"
        b"inference-header-content-length: 9\r\n\r\n"
    )


async def test_connections_are_used_again_and_those_that_ended_meanwhile_are_not_missed(serve: Serve) -> None:
    ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    served = await serve(ok, ok)
    for _ in range(5):
        assert (await served.http.ask(Ask("/x", None), 5)).body == b"ok"
    assert served.connections == 3
    assert served.heads[0] == b"GET /x HTTP/1.1\r\nhost: models.example\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy", "http 503"),
        (b"HTTP/1.1 204 Nothing\r\n\r\n", "http 204"),
        (b"", "http connection"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel", "http connection"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "http protocol"),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", "http protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello", "http protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\nhello", "http protocol"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhello", "http protocol"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffff\r\nhello", "http protocol"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000, "http protocol"),
    ],
)
async def test_failures_by_kind(serve: Serve, answer: bytes, kind: str) -> None:
    served = await serve(answer)
    with pytest.raises(AnswerError) as caught:
        await served.http.ask(ASK, 5)
    assert caught.value.kind == kind


async def test_no_answer_in_time(serve: Serve) -> None:
    served = await serve(b"", end=False)
    with pytest.raises(AnswerError) as caught:
        await served.http.ask(ASK, 0.05)
    assert caught.value.kind == "http timeout"


async def test_nobody_listens(serve: Serve) -> None:
    served = await serve(b"")
    served.server.close()
    await served.server.wait_closed()
    with pytest.raises(AnswerError) as caught:
        await served.http.ask(ASK, 5)
    assert caught.value.kind == "http connection"
