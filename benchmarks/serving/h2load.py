"""The load: h2load (nghttp2), which is compiled and replays one body over HTTP/2 or HTTP/1.1, plain or with TLS.

Every server is asked the same way: as many connections as the concurrency, one request at a time on each. Latencies
are those of ``--log-file``, one line a request: the start in microseconds since the epoch, the HTTP status, the
microseconds until the end of the response (h2load(1)). gRPC tells failures in trailers, which h2load does not look at;
a failed call has no message, so that the bytes of all answers tell.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.results import Request

__all__ = ["LoadError", "Target", "parse_log", "received", "run"]

_TRAFFIC = re.compile(r"^traffic: .* (?P<data>\S+ \((?P<bytes>\d+)\)) data$", re.MULTILINE)
_TIMEOUT_S = 600


class LoadError(Exception):
    """The load was not answered as it should have been."""


@dataclass(frozen=True)
class Target:
    """What to ask, and where.

    Attributes:
        url: with the name that TLS asks for.
        connect: ``HOST:PORT`` to connect to instead of the one in ``url``.
        headers: ``NAME: VALUE``.
        body: one request's.
        http1: HTTP/1.1 rather than HTTP/2.
        answer: bytes of one answer's body; 0 while that is not known.
    """

    url: str
    body: bytes
    connect: str | None = None
    headers: tuple[str, ...] = ()
    http1: bool = False
    answer: int = 0


def run(target: Target, concurrency: int, requests: int) -> list[Request]:
    """Ask ``requests`` times on ``concurrency`` connections.

    Raises:
        LoadError: an answer was missing, not 200, or of another size than it should have been.
    """
    with tempfile.TemporaryDirectory(prefix="h2load-") as name:
        body, log = Path(name, "body"), Path(name, "log")
        body.write_bytes(target.body)
        command = ["h2load", "-t", "1", "-m", "1", "-c", str(concurrency), "-n", str(requests)]
        # One window's size never decides: that of a connection and a stream is 2**30 - 1.
        command += ["-w", "30", "-W", "30", "-d", str(body), f"--log-file={log}"]
        command += ["--h1"] if target.http1 else []
        command += [f"--connect-to={target.connect}"] if target.connect else []
        command += [part for header in target.headers for part in ("-H", header)]
        done = subprocess.run(
            [*command, target.url], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )  # fmt: skip
        found = parse_log(log.read_text()) if log.exists() else []
    if done.returncode or len(found) != requests:
        raise LoadError(f"{target.url}: {len(found)} of {requests} answers\n{done.stdout}{done.stderr}")
    got, least = received(done.stdout), 0.9 * target.answer * requests
    if got < least:
        raise LoadError(f"{target.url}: answers of {got} bytes, expected at least {least:.0f}: some calls failed")
    return found


def parse_log(text: str) -> list[Request]:
    """The requests of a ``--log-file``, in order of their end.

    Raises:
        LoadError: one was not answered with 200, or the file is not what h2load writes.
    """
    found = []
    for line in text.splitlines():
        columns = line.split("\t")
        try:
            start, status, took = (int(column) for column in columns[:3])
        except ValueError:
            raise LoadError(f"not a line of h2load's: {line!r}") from None
        if status != 200:
            raise LoadError(f"answered with status {status}")
        found.append(Request(start / 1e6, took / 1e6))
    return sorted(found, key=lambda request: request.end)


def received(output: str) -> int:
    """Bytes of all answers' bodies, as h2load's summary has them.

    Raises:
        LoadError: it has none.
    """
    match = _TRAFFIC.search(output)
    if match is None:
        raise LoadError(f"h2load printed no traffic:\n{output}")
    return int(match["bytes"])
