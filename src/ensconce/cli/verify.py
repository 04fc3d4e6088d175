"""``ensconce verify|predict``: the client proves before it sends."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensconce.cli.output import print_json, say
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

__all__ = ["predict", "verify"]

Address = Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where the service is reached.")]
ServerName = Annotated[str, typer.Option("--server-name", help="The service's TLS name.")]
Authority = Annotated[Path, typer.Option("--ca", help="The owner's authority, ca.pem.")]
Pccs = Annotated[
    str | None,
    typer.Option(
        "--pccs",
        envvar="ENSCONCE_PCCS",
        help="Where collateral comes from: URL of a PCCS or Intel's PCS, or a bundle; Intel's when not given.",
    ),
]
Sealed = Annotated[
    bool,
    typer.Option("--sealed", help="HOST:PORT is a balancer that ends TLS: seal every request to a verified replica."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def verify(
    address: Address,
    ca: Authority,
    policy: Policy = None,
    published: Published = None,
    publisher: Publisher = None,
    publisher_identity: PublisherIdentity = None,
    publisher_issuer: PublisherIssuer = None,
    sigstore_trust_root: TrustRoot = None,
    root: Root = None,
    server_name: Annotated[
        str | None, typer.Option("--server-name", help="The service's TLS name; the address's host when not given.")
    ] = None,
    pccs: Pccs = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Also have it quote a nonce of ours and this connection.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write the report as one page, to be filed.")
    ] = None,
    json: Json = False,
) -> None:
    """Verify the replica behind an address, send it nothing, and report what was compared with what.

    Exit status: 0 accepted, 3 its evidence is not genuine or not its own, 4 the policy refuses it, 5 unreachable.

    Examples:

    \b
      ensconce verify localhost:8500 --server-name digits.example.test \\
        --policy policy.yaml --ca ca.pem --pccs http://127.0.0.1:8081 --html report.html

    \b
      ensconce verify digits.example.test:8500 --ca ca.pem \\
        --published https://example.test/published.json --publisher owner.pub
    """
    from ensconce.client.report import examine
    from ensconce.client.report_text import lines_of
    from ensconce.client.service import Service

    service = Service.open(
        address,
        policy,
        authority=ca,
        collateral=pccs,
        server_name=server_name,
        freshness=fresh,
        published=published_list(
            policy, published, publisher, publisher_identity, publisher_issuer, sigstore_trust_root, root
        ),
    )
    report = examine(service, service.targets[0])
    if html is not None:
        from ensconce.client.report_html import page_of
        from ensconce.files import write_aside

        write_aside(html, page_of(report).encode())
    if json:
        print_json(report.to_json_object())
        raise typer.Exit(report.exit_status)
    for line in lines_of(report):
        say(line)
    if report.error is not None:
        raise report.error


def predict(
    address: Address,
    server_name: ServerName,
    ca: Authority,
    model: Annotated[str, typer.Option("--model", help="The model's name.")],
    input: Annotated[Path, typer.Option("--input", help="Arrays: .npz, one for each input; or .npy for a lone one.")],
    pccs: Pccs = None,
    policy: Policy = None,
    published: Published = None,
    publisher: Publisher = None,
    publisher_identity: PublisherIdentity = None,
    publisher_issuer: PublisherIssuer = None,
    sigstore_trust_root: TrustRoot = None,
    root: Root = None,
    version: Annotated[
        int | None,
        typer.Option("--version", min=1, max=MAX_VERSION, help="The model's version; the newest if not given."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only so many of the first rows.")] = None,
    sealed: Sealed = False,
    json: Json = False,
) -> None:
    """Verify a replica, then send it arrays and print what it answers.

    Examples:

    \b
      ensconce predict localhost:8500 --server-name digits.example.test \\
        --policy policy.yaml --ca ca.pem --pccs http://127.0.0.1:8081 \\
        --model digits --input images.npy
    """
    from ensconce.client.predict import Client
    from ensconce.client.signatures import signature_named
    from ensconce.cluster.client import fit_inputs, read_rows

    arrays = read_rows(input, limit)
    with Client.connect(
        address,
        policy,
        authority=ca,
        collateral=pccs,
        server_name=server_name,
        published=published_list(
            policy, published, publisher, publisher_identity, publisher_issuer, sigstore_trust_root, root
        ),
        connections=1,
        sealed=sealed,
    ) as client:
        signature = signature_named("", client.signatures(model, version=version))
        inputs = fit_inputs(arrays, dict(signature.inputs))
        outputs = client.predict(model, inputs, version=version)
        replicas = sorted(client.calls)
    if json:
        print_json({"replicas": replicas, "outputs": {name: array.tolist() for name, array in outputs.items()}})
        return
    for name, array in outputs.items():
        say(f"{name}: {array.tolist()}")
