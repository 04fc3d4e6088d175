"""``ensconce init`` and ``ensconce audit``: the owner's folder and its log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensconce.cli.output import notices, print_json, say

__all__ = ["Owner", "audit_app", "init"]

Owner = Annotated[Path, typer.Option("--owner", help="The owner's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

audit_app = typer.Typer(help="The log of every release and every refusal.", no_args_is_help=True)


def init(
    folder: Annotated[Path, typer.Argument(help="The owner's new folder.")],
    domain: Annotated[str, typer.Option(help="The service's TLS name.")],
    model: Annotated[list[str], typer.Option(help="A model to serve; may be given several times.")],
    replicas: Annotated[int, typer.Option(min=1, max=64, help="How many replicas to run.")] = 2,
    grpc: Annotated[str, typer.Option(help="Where clients reach gRPC.")] = "127.0.0.1:8500",
    rest: Annotated[str, typer.Option(help="Where clients reach REST.")] = "127.0.0.1:8501",
    provisioning: Annotated[str, typer.Option(help="Where replicas reach the provisioning server.")] = "127.0.0.1:4433",
    pccs: Annotated[str, typer.Option(help="Where collateral comes from.")] = "127.0.0.1:8081",
) -> None:
    """Make the owner's folder: certificate authority, keystore, signing keys, audit log, deployment file.

    Examples:

      ensconce init owner --domain digits.example.test --model digits
    """
    from ensconce.cluster.deployment import Deployment
    from ensconce.cluster.owner import OwnerFolder

    deployment = Deployment.check(
        {
            "version": 1,
            "service": {"domain": domain, "grpc": grpc, "rest": rest},
            "replicas": replicas,
            "gateway": "auto",
            "platform": {"kind": "simulated", "pccs": pccs},
            "provisioning": {
                "listen": provisioning,
                "servers": [provisioning],
                "server_name": f"provisioning.{domain}",
            },
            "models": [{"name": name, "engine": "openvino"} for name in model],
        }
    )
    owner = OwnerFolder.create(folder, deployment)
    notices.print(f"made {owner.path}; the deployment is described in {owner.deployment_file}", markup=False)


@audit_app.command("show")
def audit_show(owner: Owner = Path(), json: Json = False) -> None:
    """Verify the whole log, then print its entries.

    Examples:

      ensconce audit show

      ensconce audit show --json
    """
    from ensconce.cluster.owner import OwnerFolder

    head, entries = OwnerFolder.open(owner).verified_log()
    if json:
        print_json({"head": head.to_json_object(), "entries": [entry.to_json_object() for entry in entries]})
        return
    for entry in entries:
        fields = " ".join(f"{name}={_text(value)}" for name, value in entry.fields.items())
        say(f"{entry.seq}  {entry.time}  {entry.event}  {fields}")
    say(f"{head.size} entries, each chained to the one before; signed root {head.root.hex()}")


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
