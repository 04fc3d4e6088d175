"""``ensconce tls``: key and certificates for a model server outside any enclave."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

from ensconce.cli.output import print_json, say

__all__ = ["app", "issue"]

app = typer.Typer(no_args_is_help=True, help="Make TLS keys and certificates for model servers outside any enclave.")


@app.callback()
def _group() -> None:
    """Keep `issue` a command of its own: one alone would be the group's."""


@app.command()
def issue(
    domain: Annotated[str, typer.Argument(metavar="DOMAIN", help="The DNS name that clients connect to.")],
    mutual: Annotated[bool, typer.Option("--mutual", help="Clients must show a certificate, too.")] = False,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="A folder that is new, or empty.")
    ] = Path("ssl_configure"),
    days: Annotated[int, typer.Option(metavar="DAYS", help="How long the certificates are valid.")] = 365,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, errors included.")] = False,
) -> None:
    """Make server.crt, server.key and ssl.cfg for ensconce-model-server or TensorFlow Serving (--ssl_config_file).

    With --mutual also ca.crt and ca.key, which signed the server's certificate, and client.crt and client.key.

    A replica in an enclave needs none of this: it makes its own key, and shows evidence with it. These files prove
    nothing about the code that serves.

    Examples:

      ensconce tls issue models.example.test

      ensconce tls issue models.example.test --mutual --output tls/ --days 90
    """
    from ensconce.addresses import check_domain
    from ensconce.modelserver.certificates import issue_files, write_files

    files = issue_files(check_domain(domain), days=days, mutual=mutual, now=dt.datetime.now(dt.UTC))
    write_files(output, files)
    if json:
        print_json({"folder": str(output), "files": sorted(files)})
        return
    for name in sorted(files):
        say(str(output / name))
