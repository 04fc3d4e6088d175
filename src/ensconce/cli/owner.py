"""``ensconce init``: the owner's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensconce.cli.output import print_json, remark

__all__ = ["Owner", "init", "protect"]

Owner = Annotated[Path, typer.Option("--owner", help="The owner's folder.")]


def protect() -> None:
    """Forbid core files, such as Ctrl-\\ makes: this process holds the owner's keys, or a passphrase that is typed."""
    from ensconce.keys import forbid_core_dumps

    forbid_core_dumps()


def init(
    folder: Annotated[Path, typer.Argument(help="The owner's new folder.")],
    domain: Annotated[str, typer.Option(help="The service's TLS name.")],
    model: Annotated[list[str], typer.Option(help="A model to serve; may be given several times.")],
    replicas: Annotated[int, typer.Option(min=1, max=64, help="How many replicas to run.")] = 2,
    grpc: Annotated[str, typer.Option(help="Where clients reach gRPC.")] = "127.0.0.1:8500",
    rest: Annotated[str, typer.Option(help="Where clients reach REST.")] = "127.0.0.1:8501",
    provisioning: Annotated[str, typer.Option(help="Where replicas reach the provisioning server.")] = "127.0.0.1:4433",
    pccs: Annotated[str, typer.Option(help="Where collateral comes from.")] = "127.0.0.1:8081",
    sqlite: Annotated[Path | None, typer.Option(help="Keep shared state and log in this SQLite file.")] = None,
    postgresql: Annotated[Path | None, typer.Option(help="Keep them in PostgreSQL; this file has the URL.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Make the owner's folder: certificate authority, keystore, signing keys, audit log, deployment file.

    The file unlock.key in it opens the keystore, until `ensconce key rewrap --to` lets something else open it.

    Examples:

      ensconce init owner --domain digits.example.test --model digits
    """
    protect()
    from ensconce.cluster.deployment import Deployment
    from ensconce.cluster.owner import OwnerFolder
    from ensconce.errors import InputError

    state = {"kind": "folder"}
    if sqlite is not None and postgresql is not None:
        raise InputError("usage", "--sqlite and --postgresql are two places", remedy="choose one")
    if sqlite is not None:
        state = {"kind": "sqlite", "path": str(sqlite.absolute())}
    elif postgresql is not None:
        state = {"kind": "postgresql", "url_file": str(postgresql.absolute())}

    fields = {
        "version": 1,
        "service": {"domain": domain, "grpc": grpc, "rest": rest},
        "replicas": replicas,
        "gateway": "auto",
        "platform": {"kind": "simulated", "pccs": pccs},
        "provisioning": {"listen": provisioning, "servers": [provisioning], "server_name": f"provisioning.{domain}"},
        "models": [{"name": name, "engine": "openvino"} for name in model],
        "state": state,
    }
    try:
        deployment = Deployment.check(fields)
    except InputError as error:  # there is no file yet whose line could be looked up
        raise error.altered(remedy="correct the option that gives this field: `ensconce init -h`") from None
    owner = OwnerFolder.create(folder, deployment)
    if json:
        print_json({"owner": str(owner.path), "deployment": str(owner.deployment_file)})
        return
    remark(f"made {owner.path}; the deployment is described in {owner.deployment_file}")
