"""``ensconce replica``: one replica alone, as a container runs it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(help="One replica alone, as a container runs it.", no_args_is_help=True)


class PlatformKind(StrEnum):
    """What runs the enclave."""

    SIMULATED = "simulated"
    GRAMINE = "gramine"


@app.callback()
def _group() -> None:
    """One replica alone, as a container runs it."""


@app.command("run")
def run(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder with enclave/ and models/.")],
    platform: Annotated[PlatformKind, typer.Option(help="What runs the enclave.")] = PlatformKind.GRAMINE,
    vendor: Annotated[
        str | None, typer.Option(metavar="URL", help="The simulated vendor; this machine's own when not given.")
    ] = None,
    run: Annotated[Path, typer.Option("--run", help="A folder that can be written.")] = Path("/run/ensconce"),
    health: Annotated[str, typer.Option(help="Where /livez and /readyz are answered, over plain HTTP.")] = (
        "0.0.0.0:8502"
    ),
) -> None:
    """Start the replica in BUNDLE's enclave and stay with it; its end is this command's end, with its exit status.

    SIGTERM drains it: no new requests, and up to 20 seconds for those that are under way; TensorFlow Serving ends at
    once. /readyz answers 200 once it was attested and has loaded its models, /livez for as long as it need not be
    started anew.

    Examples:

      ensconce replica run /opt/ensconce --platform simulated --vendor http://simulated-vendor:8081
    """
    from ensconce.addresses import Address
    from ensconce.cluster.pod.run import Pod, run_pod
    from ensconce.errors import InputError

    if vendor is not None and platform is not PlatformKind.SIMULATED:
        raise InputError("usage", "--vendor is for --platform simulated", remedy="leave it out")
    address = Address.parse(health, lowest_port=0)
    run_pod(Pod(bundle.resolve(), run.resolve(), platform.value, vendor, address))
