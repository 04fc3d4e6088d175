"""``ensconce policy``: who may receive keys, and whom a client may talk to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensconce.cli.output import say
from ensconce.cli.owner import Owner

__all__ = ["app"]

app = typer.Typer(help="Policies: which evidence is accepted, and what it may receive.", no_args_is_help=True)

_HERE = Path()


@app.command("write")
def write(
    owner: Owner = _HERE,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the policy that is there.")] = False,
) -> None:
    """Write policy.yaml: this deployment's models for exactly the enclave in the bundle, on this machine's platform.

    Examples:

      ensconce policy write
    """
    from ensconce.cluster.machine import simulated_root
    from ensconce.cluster.owner import OwnerFolder

    folder = OwnerFolder.open(owner)
    folder.write_policy(folder.enclave_identity(), simulated_root(), replace)
    say(folder.policy_file.read_text().rstrip())
