"""``ensconce verify|predict``: the client proves before it sends."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ensconce.cli.output import print_json, say
from ensconce.servables import MAX_VERSION

__all__ = ["predict", "verify"]

Address = Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where the service is reached.")]
ServerName = Annotated[str, typer.Option("--server-name", help="The service's TLS name.")]
PolicyFile = Annotated[Path, typer.Option("--policy", help="The measurements that this client accepts.")]
Authority = Annotated[Path, typer.Option("--ca", help="The owner's authority, ca.pem.")]
Pccs = Annotated[
    str,
    typer.Option(
        "--pccs", envvar="ENSCONCE_PCCS", help="Where collateral comes from: URL of a PCCS or Intel's PCS, or a bundle."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def verify(
    address: Address, server_name: ServerName, policy: PolicyFile, ca: Authority, pccs: Pccs, json: Json = False
) -> None:
    """Verify the replica behind an address, and send it nothing.

    Exit status: 0 accepted, 3 its evidence is not genuine or not its own, 4 the policy refuses it, 5 unreachable.

    Examples:

    \b
      ensconce verify localhost:8500 --server-name digits.example.test \\
        --policy policy.yaml --ca ca.pem --pccs http://127.0.0.1:8081
    """
    from ensconce.addresses import Address
    from ensconce.client.attested import connect_tls
    from ensconce.cluster.client import open_appraiser, read_authority
    from ensconce.times import utc_text

    appraiser = open_appraiser(policy, pccs)
    authority = read_authority(ca)
    with connect_tls(Address.parse(address), server_name, appraiser, authority=authority, alpn="h2") as replica:
        acceptance = replica.acceptance
        found: dict[str, Any] = {
            "accepted": True,
            "replica": replica.replica_id,
            "identity": acceptance.identity.name,
            "policy_sha256": acceptance.policy_sha256,
            "certificate_not_after": utc_text(replica.accepted.certificate.not_valid_after_utc.timestamp()),
            "verdict": acceptance.verdict.to_json_object(),
        }
    if json:
        print_json(found)
        return
    verdict = found["verdict"]
    say(f"accepted   {found['identity']} (replica {found['replica']})")
    say(f"mr_enclave {verdict['mr_enclave']}")
    say(f"root       {verdict['root']}")
    say(f"TCB status {verdict['status']}")
    say(f"until      {found['certificate_not_after']} (the certificate's end)")
    if verdict["root"] != "intel":
        say("SIMULATED: no hardware protects this replica")


def predict(
    address: Address,
    server_name: ServerName,
    policy: PolicyFile,
    ca: Authority,
    pccs: Pccs,
    model: Annotated[str, typer.Option("--model", help="The model's name.")],
    input: Annotated[Path, typer.Option("--input", help="Arrays: .npz, one for each input; or .npy for a lone one.")],
    version: Annotated[
        int | None,
        typer.Option("--version", min=1, max=MAX_VERSION, help="The model's version; the newest if not given."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only so many of the first rows.")] = None,
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
        address, policy, authority=ca, collateral=pccs, server_name=server_name, connections=1
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
