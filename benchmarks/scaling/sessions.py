"""Provisioning sessions against the real server process: what one costs each side, and what so many at once come to."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from benchmarks import provisioning
from benchmarks.scaling.cost import busy_seconds, children, processor_seconds
from cryptography.hazmat.primitives.asymmetric import ec

from ensconce.platform.simulated.quoting import make_quote
from ensconce.provisioning.client import provision
from ensconce.provisioning.frames import read_frame
from ensconce.ratls.context import client_context
from ensconce.ratls.request import make_key_container
from ensconce.ratls.stream import TlsStream
from ensconce.ratls.trust import load_authority

__all__ = ["at_once", "one_by_one"]

_WARM = 120  # the server writes its first hundred refusals of strangers into its log, and then one a second


@contextmanager
def _server() -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """As ``ensconce provision serve`` makes it: one process, verifiers beside it, a log on disk."""
    process = provisioning.start("--serve", "processes")
    try:
        yield process, provisioning.hear(process)
    finally:
        provisioning.tell(process, "stop")
        process.wait()


def one_by_one(count: int) -> dict[str, list[float]]:
    """Sessions, each alone; seconds of each.

    Returns:
        ``server``, ``verifiers``, ``client``: processor time of a whole session; ``wall``: how long it took;
        ``handshake``: processor time of the server for a client that leaves once it was asked to prove itself.
    """
    vendor = provisioning.the_vendor()
    report = provisioning.the_report(vendor)
    found: dict[str, list[float]] = {name: [] for name in ("server", "verifiers", "client", "wall", "handshake")}
    with _server() as (process, place):
        workers = children(process.pid)
        ca, port = place["ca"].encode(), place["port"]

        def session() -> None:
            provision(
                [f"127.0.0.1:{port}"],
                provisioning.SERVER_NAME,
                ca,
                lambda data: make_quote(vendor, replace(report, report_data=data)),
                provisioning.DOMAIN,
                [("digits", 1)],
            )

        for turn in range(_WARM + count):
            before = [processor_seconds(process.pid), sum(map(processor_seconds, workers)), time.thread_time()]
            began = time.perf_counter()
            session()
            wall = time.perf_counter() - began
            after = [processor_seconds(process.pid), sum(map(processor_seconds, workers)), time.thread_time()]
            if turn >= _WARM:
                found["wall"].append(wall)
                for name, early, late in zip(("server", "verifiers", "client"), before, after, strict=True):
                    found[name].append(late - early)
        authority, key = load_authority(ca), ec.generate_private_key(ec.SECP256R1())
        context = client_context(key, make_key_container(key), authority)
        for turn in range(_WARM + count):
            begun = processor_seconds(process.pid)
            sock = socket.create_connection(("127.0.0.1", port))
            deadline = time.monotonic() + 10
            with TlsStream(context, sock, deadline=deadline, server_name=provisioning.SERVER_NAME) as stream:
                stream.handshake()
                read_frame(stream)
                if turn >= _WARM:
                    found["handshake"].append(processor_seconds(process.pid) - begun)
    return found


def at_once(levels: list[int], seconds: float) -> list[dict[str, Any]]:
    """So many clients, each asking again as soon as it was answered, in one or two processes.

    Returns:
        for each level ``clients``, ``seconds``, the ``waited`` of every session, and the part of all processors' time
        that ``others`` took meanwhile.
    """
    found = []
    for clients in levels:
        with _server() as (process, place):
            askers = [provisioning.start("--ask") for _ in range(min(clients, 2))]
            for asker in askers:
                asked = {**place, "seconds": seconds, "clients": clients // len(askers)}
                provisioning.tell(asker, json.dumps(asked))
            time.sleep(0.5)
            ours = [process.pid, *children(process.pid), *(asker.pid for asker in askers)]
            before = busy_seconds() - sum(map(processor_seconds, ours))
            began = time.monotonic()
            for asker in askers:
                provisioning.tell(asker, "go")
            answers = [provisioning.hear(asker) for asker in askers]
            took = time.monotonic() - began
            others = busy_seconds() - sum(map(processor_seconds, ours)) - before
            for asker in askers:
                asker.wait()
        waited = [each for answer in answers for each in answer["waited"]]
        part = max(0.0, others / took / len(os.sched_getaffinity(0)))
        found.append({"clients": clients, "seconds": took, "others": part, "waited": waited})
    return found
