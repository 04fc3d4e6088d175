"""``ensconce provision``: the server that releases keys to enclaves that the policy accepts."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from ensconce.cli.output import notices
from ensconce.cli.owner import Owner

__all__ = ["app"]

app = typer.Typer(help="The secret provisioning server.", no_args_is_help=True)


@app.command("serve")
def serve(
    owner: Owner = Path(),
    policy: Annotated[Path | None, typer.Option(help="Another policy than the owner's policy.yaml.")] = None,
) -> None:
    """Release keys to replicas whose fresh evidence the policy accepts; log every release and every refusal.

    Runs until SIGTERM or Ctrl-C.

    Examples:

      ensconce provision serve

      ensconce provision serve --policy policy.yaml
    """
    from ensconce.cluster.owner import OwnerFolder
    from ensconce.cluster.provision import open_server

    server = open_server(OwnerFolder.open(owner), policy)

    def leave(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
    try:
        notices.print(f"provisioning server on port {server.port}", markup=False)
        server.serve_forever()
    finally:
        server.shutdown()
