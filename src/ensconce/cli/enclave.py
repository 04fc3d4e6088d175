"""``ensconce enclave``: package what runs inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensconce.cli.output import notices, print_json, say
from ensconce.cli.owner import Owner, protect

__all__ = ["app"]

app = typer.Typer(help="What runs inside: image, manifest, measurement, signature.", no_args_is_help=True)
app.callback()(protect)

_HERE = Path()
_Json = Annotated[bool, typer.Option("--json", help="Print JSON, errors included.")]


@app.command("build")
def build(
    owner: Owner = _HERE, json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False
) -> None:
    """Stage the server, render and lint its manifest, measure and sign it, into the bundle for the host.

    Examples:

      ensconce enclave build
    """
    from ensconce.cluster.owner import OwnerFolder

    identity = OwnerFolder.open(owner).build_enclave(lambda step: notices.print(step, markup=False))
    if json:
        print_json(identity.to_json_object())
        return
    say(f"mr_enclave   {identity.mr_enclave.hex()}")
    say(f"mr_signer    {identity.mr_signer.hex()}")
    say(f"isv_prod_id  {identity.isv_prod_id}")
    say(f"isv_svn      {identity.isv_svn}")


@app.command("lint")
def lint(
    manifests: Annotated[
        list[Path],
        typer.Argument(metavar="MANIFEST...", help="Manifests: .manifest.sgx, .manifest, .manifest.template."),
    ],
    json: _Json = False,
) -> None:
    """Say what a manifest leaves to the host: each finding with its line, the attack that it opens, and the remedy.

    Takes anybody's manifests: signed or not, templates, of Gramine and of Graphene.

    Exit status: 0 when nothing refuses a manifest, 4 when something does, 2 when one cannot be read.

    Examples:

      ensconce enclave lint bundle/enclave/server.manifest.sgx

      ensconce enclave lint --json app/*.manifest.template | jq -r '.manifests[].findings[].check'
    """
    from ensconce.cli.enclave_lint import lint_files

    lint_files(manifests, json)
