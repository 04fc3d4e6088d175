"""One small document from a web server, within bounds of length and time; what it says is judged elsewhere."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator

import h11
import httpx

from ensconce.errors import UnreachableError

__all__ = ["get", "get_over"]

_CHUNK = 1 << 16


def get(
    url: str,
    limit: int,
    error: Callable[[str, str], UnreachableError],
    *,
    timeout: float = 30.0,
    tls: ssl.SSLContext | None = None,
) -> bytes:
    """What a GET of ``url`` answers. Redirects are not followed, and nothing is unpacked.

    Args:
        url: http or https.
        limit: longest answer, in bytes.
        error: makes the error from what is wrong and what was found.
        timeout: for all of it, in seconds; only the system's resolver has a time of its own.
        tls: how certificates are checked; against the system's authorities when absent.

    Raises:
        UnreachableError: what ``error`` made.
    """
    deadline = time.monotonic() + timeout
    transport = _OneExchange(tls, deadline)
    # Without trust_env: a proxy that the environment names is nobody that the user chose.
    with httpx.Client(transport=transport, trust_env=False, follow_redirects=False) as client:
        return get_over(client, url, limit, error, deadline)


def get_over(
    client: httpx.Client, url: str, limit: int, error: Callable[[str, str], UnreachableError], deadline: float
) -> bytes:
    """The same, over a client at hand.

    Args:
        client: follows no redirects.
        url: also a path below the client's own.
        limit: longest answer, in bytes.
        error: see :func:`get`.
        deadline: until when all of it has to be there, by ``time.monotonic()``. A server that sends the head of its
            answer byte by byte is held to it only where the client's transport does so.

    Raises:
        UnreachableError: what ``error`` made.
    """
    body = bytearray()
    left = max(0.05, deadline - time.monotonic())
    try:
        # Nothing is unpacked: a short answer would become a long one.
        with client.stream("GET", url, headers={"accept-encoding": "identity"}, timeout=left) as response:
            if response.status_code != 200:
                raise error("it refuses", f"HTTP status {response.status_code} for {url}")
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > limit:
                    raise error("its answer is too long", f"more than {limit} bytes for {url}")
                if time.monotonic() > deadline:
                    raise error("its answer takes too long", f"more than {left:.3g} s for {url}")
    except (httpx.HTTPError, httpx.InvalidURL) as failure:
        raise error("no answer", f"{type(failure).__name__}: {str(failure)[:200]}") from failure
    return bytes(body)


class _OneExchange(httpx.BaseTransport):
    """One request over one connection, over at a deadline.

    httpx's own transport bounds each single read: a server that sends a byte now and then would be waited for for ever.
    """

    def __init__(self, tls: ssl.SSLContext | None, deadline: float) -> None:
        self._tls, self._deadline = tls, deadline
        self._socket: socket.socket | None = None
        self._http = h11.Connection(h11.CLIENT)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        try:
            self._connect(request.url)
            head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
            self._send(head)
            self._send(h11.EndOfMessage())
            while isinstance(event := self._next(), h11.InformationalResponse):
                pass
        except (OSError, UnicodeError, h11.ProtocolError) as error:
            raise _failure(error) from error
        if not isinstance(event, h11.Response):
            raise httpx.RemoteProtocolError("the connection ended")
        headers = [(name, value) for name, value in event.headers]
        return httpx.Response(event.status_code, headers=headers, stream=_Body(self._data))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _connect(self, url: httpx.URL) -> None:
        if url.scheme not in ("http", "https"):
            raise httpx.UnsupportedProtocol("neither http nor https")
        host, port = url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            self._socket = socket.socket(family, kind, protocol)
            # One address where nobody answers leaves time for the others.
            self._socket.settimeout(self._left() / (len(addresses) - number))
            try:
                self._socket.connect(address)
                break
            except OSError:
                self._socket.close()
                if number + 1 == len(addresses):
                    raise
        if url.scheme == "https":
            assert self._socket is not None
            context = self._tls or ssl.create_default_context()
            self._socket.settimeout(self._left())
            self._socket = context.wrap_socket(self._socket, server_hostname=host)

    def _send(self, event: h11.Request | h11.EndOfMessage) -> None:
        assert self._socket is not None
        self._socket.settimeout(self._left())
        self._socket.sendall(self._http.send(event) or b"")

    def _next(self) -> object:
        assert self._socket is not None
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._socket.settimeout(self._left())
            self._http.receive_data(self._socket.recv(_CHUNK))
        return event

    def _data(self) -> Iterator[bytes]:
        try:
            while isinstance(event := self._next(), h11.Data):
                yield bytes(event.data)
        except (OSError, h11.ProtocolError) as error:
            raise _failure(error) from error

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


class _Body(httpx.SyncByteStream):
    def __init__(self, data: Callable[[], Iterator[bytes]]) -> None:
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        return self._data()


def _failure(error: Exception) -> httpx.TransportError:
    if isinstance(error, TimeoutError):
        return httpx.ReadTimeout(str(error))
    return httpx.NetworkError(f"{type(error).__name__}: {error}")
