"""``ensconce proxy``: attested TLS for clients that know nothing of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensconce.cli.output import remark
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
from ensconce.cli.verify import Authority, Pccs

__all__ = ["proxy"]


def proxy(
    ca: Authority,
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[HOST:PORT]...", help="Where the service's gRPC is reached; REST with --rest."),
    ] = None,
    policy: Policy = None,
    published: Published = None,
    publisher: Publisher = None,
    publisher_identity: PublisherIdentity = None,
    publisher_issuer: PublisherIssuer = None,
    sigstore_trust_root: TrustRoot = None,
    root: Root = None,
    pccs: Pccs = None,
    server_name: Annotated[
        str | None, typer.Option("--server-name", help="The service's TLS name; the target's host when not given.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="PLACE", help="Where gRPC is taken: HOST:PORT or unix:PATH.")
    ] = None,
    listen_rest: Annotated[
        str | None, typer.Option("--listen-rest", metavar="PLACE", help="Where REST is taken: HOST:PORT or unix:PATH.")
    ] = None,
    rest: Annotated[
        list[str] | None, typer.Option("--rest", metavar="HOST:PORT", help="Where the service's REST is reached.")
    ] = None,
    status: Annotated[
        str | None,
        typer.Option("--status", metavar="HOST:PORT", help="Where /healthz, /readyz and /metrics are answered."),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", help="Speak TLS to clients with this certificate, PEM, leaf first.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its private key, PEM.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Have every connection prove itself with a fresh quote as well.")
    ] = False,
) -> None:
    """Take plain gRPC and REST from clients on this machine, and pass it on to replicas that were verified.

    Every connection to every replica is verified before it is sent a byte; each call goes to the replica with the
    fewest under way. Without an accepted replica calls end in UNAVAILABLE (not reached) or FAILED_PRECONDITION
    (refused), over REST in 503 or 502, and say why. Beyond loopback addresses and Unix sockets it listens with TLS
    only. SIGTERM drains it.

    Examples:

    \b
      ensconce proxy --listen 127.0.0.1:8500 digits.example.test:8500 \\
        --policy policy.yaml --ca ca.pem --status 127.0.0.1:8502
    """
    from ensconce.addresses import Address
    from ensconce.client.service import Service
    from ensconce.errors import InputError
    from ensconce.proxy.listening import place_in
    from ensconce.proxy.program import Proxy, Side, run_proxy
    from ensconce.serving.tls import ServingCertificate

    if bool(targets) != (listen is not None):
        raise InputError("usage", "--listen and HOST:PORT belong together", remedy="give both, or REST's alone")
    if bool(rest) != (listen_rest is not None):
        raise InputError("usage", "--listen-rest and --rest belong together", remedy="give both or neither")
    if (tls_cert is None) != (tls_key is None):
        raise InputError("usage", "--tls-cert and --tls-key belong together", remedy="give both or neither")

    list_ = published_list(
        policy, published, publisher, publisher_identity, publisher_issuer, sigstore_trust_root, root
    )

    def side(place: str | None, targets: list[str] | None) -> Side | None:
        if place is None or not targets:
            return None
        service = Service.open(
            targets,
            policy,
            authority=ca,
            collateral=pccs,
            server_name=server_name,
            freshness=fresh,
            published=list_,
        )
        return Side(place_in(place), service)

    certificate = None
    if tls_cert is not None and tls_key is not None:
        certificate = ServingCertificate.read(tls_key, tls_cert)
    wanted = Proxy(
        grpc=side(listen, targets),
        rest=side(listen_rest, rest),
        status=Address.parse(status, lowest_port=0) if status is not None else None,
        certificate=certificate,
    )
    if run_proxy(wanted, lambda what, where: remark(f"{what} on {where}")):
        raise KeyboardInterrupt
