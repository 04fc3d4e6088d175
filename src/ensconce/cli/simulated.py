"""``ensconce simulated``: the vendor of simulated CPUs as a service, for test and demonstration clusters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensconce.cli.output import print_json, remark, say

__all__ = ["app"]

app = typer.Typer(help="The simulated platform's vendor, as Intel is SGX's. It protects nothing.", no_args_is_help=True)


@app.command("serve")
def serve(
    listen: Annotated[str, typer.Option(help="Where machines and verifiers reach it.")] = "127.0.0.1:8081",
    home: Annotated[
        Path | None, typer.Option(help="Where its secret is kept; this machine's own vendor when not given.")
    ] = None,
) -> None:
    """Be the vendor of simulated machines elsewhere: certify their keys, and serve collateral for their quotes.

    Whoever asks is certified. A new home is a new root, which policies have to name. Runs until SIGTERM or Ctrl-C.

    Examples:

      ensconce simulated serve --listen 0.0.0.0:8081 --home /run/ensconce/vendor
    """
    from ensconce.addresses import Address
    from ensconce.cluster.vendor import serve_vendor

    address = Address.parse(listen, lowest_port=0)
    interrupted = serve_vendor(address, home, lambda text: remark(text))
    if interrupted:
        raise KeyboardInterrupt


@app.command("root")
def root(
    vendor: Annotated[str, typer.Argument(metavar="URL", help="Of the vendor.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Print a vendor's root as policies name it. Ask only where nobody between can answer in its place.

    Examples:

      ensconce simulated root http://127.0.0.1:8081
    """
    from ensconce.platform.simulated.enrolment import root_name_at

    name = root_name_at(vendor)
    if json:
        print_json({"root": name})
        return
    say(name)
