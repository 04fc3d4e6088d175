"""``ensconce bench``: a load generator for attested servers and others'."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ensconce.cli.output import print_json, remark, say, updated_bar
from ensconce.cli.published import (
    Policy,
    Published,
    Publisher,
    PublisherIdentity,
    PublisherIssuer,
    Root,
    TrustRoot,
    published_list,
)
from ensconce.servables import MAX_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from ensconce.bench.schedule import Plan
    from ensconce.bench.targets.over_grpc import TlsFiles
    from ensconce.client.signatures import InputSpec

__all__ = ["bench"]

_WARM_UP = 10
_REQUESTS = 100
_UNDER_WAY = 256
_TIMEOUT_S = 60.0
_BAR_STEPS = 1000  # in a second
_DEFAULT_LOAD = f"{_REQUESTS} requests when nothing says when it ends"


def bench(
    targets: Annotated[list[str], typer.Argument(metavar="HOST:PORT...", help="Where the service is reached.")],
    model: Annotated[str, typer.Option("--model", help="The model's name.")],
    protocol: Annotated[
        Literal["grpc", "rest", "v2-grpc", "v2-rest", "v2-rest-binary"],
        typer.Option(
            "--protocol",
            help="TensorFlow Serving's gRPC or REST, or the Open Inference Protocol's; binary: with tensors as bytes.",
        ),
    ] = "grpc",
    policy: Policy = None,
    published: Published = None,
    publisher: Publisher = None,
    publisher_identity: PublisherIdentity = None,
    publisher_issuer: PublisherIssuer = None,
    sigstore_trust_root: TrustRoot = None,
    root: Root = None,
    ca: Annotated[Path | None, typer.Option("--ca", help="Attested: the owner's authority, ca.pem.")] = None,
    pccs: Annotated[
        str | None,
        typer.Option(
            "--pccs",
            envvar="ENSCONCE_PCCS",
            help="Attested: URL of a PCCS or Intel's PCS, or a bundle; Intel's when not given.",
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Attested: have every connection prove itself with a fresh quote as well.")
    ] = False,
    sealed: Annotated[
        bool,
        typer.Option("--sealed", help="Attested, gRPC: HOST:PORT is a balancer that ends TLS; seal every request."),
    ] = False,
    tls_ca: Annotated[
        Path | None, typer.Option("--tls-ca", help="TLS without evidence: the authority of the server's certificate.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="Mutual TLS: this client's certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Mutual TLS: its private key.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="No TLS at all.")] = False,
    server_name: Annotated[
        str | None, typer.Option("--server-name", help="The service's TLS name; the target's host when not given.")
    ] = None,
    version: Annotated[
        int | None,
        typer.Option("--version", min=1, max=MAX_VERSION, help="The model's version; the newest if not given."),
    ] = None,
    signature: Annotated[str, typer.Option("--signature", help="The model's signature, if not the default one.")] = "",
    batch: Annotated[int, typer.Option("--batch", min=1, max=1 << 20, help="Rows (images) in a request.")] = 1,
    input: Annotated[
        list[Path] | None,
        typer.Option(
            "--input",
            help="What to send: arrays in .npz (one for each input) or .npy; or images, files or folders of them, as "
            "they are to a model that takes strings, else as pixels. Random numbers when not given.",
        ),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option("--shape", metavar="NAME=AxBxC", help="Of one random row, where the model leaves it open."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency",
            min=1,
            help=f"Callers, each waiting for its answer (1 when not given); with --rate, requests under way at most "
            f"({_UNDER_WAY}).",
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Open loop: requests in a second, whether or not answers come.")
    ] = None,
    arrivals: Annotated[
        Literal["poisson", "constant"], typer.Option("--arrivals", help="Of an open loop: at random, or evenly.")
    ] = "poisson",
    requests: Annotated[int | None, typer.Option("--requests", min=1, help=f"So many in all; {_DEFAULT_LOAD}.")] = None,
    loop: Annotated[
        int | None, typer.Option("--loop", min=0, help="So many of each caller; 0 for until Ctrl-C.")
    ] = None,
    duration: Annotated[float | None, typer.Option("--duration", help="Nothing is sent after so many seconds.")] = None,
    warm_up: Annotated[int, typer.Option("--warm-up", min=0, help="Requests before the clock starts.")] = _WARM_UP,
    connections: Annotated[
        int, typer.Option("--connections", min=1, max=64, help="Of gRPC, at least; HTTP has one for each caller.")
    ] = 2,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.001, max=3600, help="Of a request, in seconds.")
    ] = _TIMEOUT_S,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of random numbers and arrivals.")] = 0,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE|-", help="Write JSON for programs; - prints nothing else.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with plots.")] = None,
) -> None:
    """Send predictions and measure how long they take.

    Say how the server is reached: --ca and --policy or --published for one that proves itself, --tls-ca for TLS without
    evidence, --plain for none. In an open loop (--rate) latency counts from when a request was due, so that a server
    that stalls cannot hide it. Ctrl-C ends it with a report of what was measured until then. Exit status: 0 all
    answered, 1 some were not, 130 interrupted, else why nothing could be measured.

    Examples:

    \b
      ensconce bench localhost:8500 --server-name digits.example.test \\
        --policy policy.yaml --ca ca.pem --model digits --batch 8 --concurrency 4
      ensconce bench tf-serving.example.test:8500 --tls-ca server.crt \\
        --model resnet50 --rate 50 --duration 60 --html report.html
      ensconce bench localhost:8001 --plain --protocol v2-grpc --model digits
    """
    import asyncio
    import json as _json
    import random

    from ensconce.addresses import Address
    from ensconce.bench.images import is_for_pixels, pixels
    from ensconce.bench.inputs import batches, dummies
    from ensconce.bench.page import page
    from ensconce.bench.report import Subject, lines, report
    from ensconce.bench.session import Measured, measure
    from ensconce.bench.targets.dialect import ModelName
    from ensconce.bench.targets.opening import dialect_of, open_attested, open_plain
    from ensconce.client.service import Service
    from ensconce.cluster.client import fit_inputs
    from ensconce.files import write_aside
    from ensconce.serving.signals import told_to_end
    from ensconce.times import unix_now

    if requests is not None and loop is not None:
        raise _usage("--requests and --loop say the same in two ways", "give one of them")
    plan = _plan(concurrency, rate, arrivals, requests, loop, duration, warm_up)
    list_ = published_list(
        policy, published, publisher, publisher_identity, publisher_issuer, sigstore_trust_root, root
    )
    attested = policy is not None or list_ is not None
    if sealed and not attested:
        raise _usage("--sealed is for a server that proves itself", "give --ca, and --policy or --published")
    tls = _tls(ca, tls_ca, tls_cert, tls_key, server_name, attested=attested, plain=plain)
    given, shapes = _files(input or []), _shapes(shape or [])
    dialect = dialect_of(protocol, ModelName(model, version, signature))
    addresses = [Address.parse(each) for each in targets]
    service = None
    if attested:
        service = Service.open(
            targets,
            policy,
            authority=ca,
            collateral=pccs,
            server_name=server_name,
            freshness=fresh,
            published=list_,
        )

    def arrays(specs: Mapping[str, InputSpec]) -> list[dict[str, np.ndarray[Any, Any]]]:
        if given is None:
            return [dummies(specs, batch, seed, shapes)]
        sent = given
        if "" in given and given[""].dtype == object and len(specs) == 1:
            [(name, spec)] = specs.items()
            if is_for_pixels(spec):
                sent = {name: pixels(given[""].tolist(), name, spec, shapes)}
        return batches(fit_inputs(sent, dict(specs)) if specs else sent, batch)

    async def run() -> Measured:
        task = asyncio.current_task()
        assert task is not None
        told_to_end().add_done_callback(lambda _: task.cancel())
        if service is not None:
            carrier = await open_attested(service, protocol, connections, sealed=sealed)
        else:
            carrier = open_plain(addresses, tls, protocol, connections)
        by_time = plan.requests is None
        total = round(plan.duration * _BAR_STEPS) if by_time and plan.duration else plan.requests
        try:
            with updated_bar("warming up", total) as update:
                return await measure(
                    dialect,
                    carrier,
                    arrays,
                    plan,
                    timeout=timeout,
                    chance=random.Random(seed),  # noqa: S311 - arrivals, no secrets
                    tell=lambda tally, seconds: update(
                        completed=seconds * _BAR_STEPS if by_time else tally.answered + tally.failed,
                        description=f"{tally.answered / max(seconds, 1e-9):8.0f}/s",
                    ),
                )
        finally:
            await carrier.close()

    began = unix_now()
    try:
        measured = asyncio.run(run())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    connection = "attested" if service is not None else "plain" if tls is None else "mutual tls" if tls.key else "tls"
    subject = Subject(
        addresses=tuple(map(str, addresses)),
        protocol=protocol,
        connection=connection,
        model=model,
        version=version,
        signature=signature,
        batch=batch,
    )
    found = report(subject, plan, measured, began=began)
    # Said before it is written: a disk that is full must not cost what took an hour to measure.
    if str(json) == "-":
        print_json(found)
        for warning in found["generator"]["warnings"]:
            remark(f"warning: the generator: {warning}")
    else:
        for line in lines(found):
            say(line)
    sys.stdout.flush()
    if json is not None and str(json) != "-":
        write_aside(json, (_json.dumps(found, indent=2) + "\n").encode())
    if html is not None:
        write_aside(html, page(found).encode())
    if found["interrupted"]:
        raise KeyboardInterrupt
    if found["requests"]["failed"]:
        raise typer.Exit(1)


def _plan(
    concurrency: int | None,
    rate: float | None,
    arrivals: Literal["poisson", "constant"],
    requests: int | None,
    loop: int | None,
    duration: float | None,
    warm_up: int,
) -> Plan:
    from ensconce.bench.schedule import Plan

    callers = concurrency or (1 if rate is None else _UNDER_WAY)
    if loop is not None:
        if rate is not None:
            raise _usage("--loop counts requests of callers, and --rate has none", "use --requests")
        requests = loop * callers or None
    if requests is None and duration is None and loop is None:
        requests = _REQUESTS
    return Plan(
        concurrency=callers, rate=rate, arrivals=arrivals, requests=requests, duration=duration, warm_up=warm_up
    )


def _tls(
    ca: Path | None,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    server_name: str | None,
    *,
    attested: bool,
    plain: bool,
) -> TlsFiles | None:
    """What TLS without evidence goes by, if that is asked for; and exactly one kind of connection is."""
    from ensconce.bench.targets.over_grpc import TlsFiles

    if attested + (tls_ca is not None) + plain != 1:
        rule = "give --policy or --published and --ca, or --tls-ca, or --plain"
        raise _usage("one way to reach the server has to be said", rule)
    if attested != (ca is not None):
        raise _usage("--policy or --published, and --ca belong together", "give both")
    if (tls_cert is None) != (tls_key is None) or (tls_cert is not None and tls_ca is None):
        raise _usage("--tls-cert and --tls-key belong together, and to --tls-ca", "give all three")
    return None if tls_ca is None else TlsFiles(tls_ca, tls_cert, tls_key, server_name)


def _files(paths: list[Path]) -> dict[str, np.ndarray[Any, Any]] | None:
    """The arrays of one file, or the bytes of several as strings; ``None`` where there is no file."""
    import numpy as np

    from ensconce.bench.images import read_images
    from ensconce.cluster.client import read_rows

    if not paths:
        return None
    if any(path.suffix in (".npy", ".npz") for path in paths):
        if len(paths) != 1:
            raise _usage("arrays come from one file", "put them into one .npz")
        return read_rows(paths[0], None)
    images = read_images(paths)
    strings = np.empty(len(images), dtype=object)
    strings[:] = images
    return {"": strings}


def _shapes(texts: list[str]) -> dict[str, tuple[int, ...]]:
    found = {}
    for text in texts:
        name, equals, sizes = text.partition("=")
        parts = sizes.split("x")
        if not equals or not all(part.isascii() and part.isdecimal() and 0 < len(part) <= 9 for part in parts):
            raise _usage(f"this is no shape: {text[:80]}", "NAME=AxBxC, such as images=224x224x3")
        found[name] = tuple(map(int, parts))
    return found


def _usage(problem: str, remedy: str) -> Exception:
    from ensconce.errors import InputError

    return InputError("usage", problem, remedy=remedy)
