"""``ensconce up|status|scale|roll|logs|down``: the host's side, on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ensconce.cli.output import print_json, print_table, remark, say
from ensconce.cluster import host as act

__all__ = ["down", "logs", "roll", "scale", "status", "up"]

Folder = Annotated[Path, typer.Option("--host", help="The host's folder: a copy of the owner's bundle.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

_HERE = Path()


def up(host: Folder = _HERE, json: Json = False) -> None:
    """Start the gateway and the replicas, and wait until all of them serve.

    Examples:

      ensconce up

      ensconce up --host /srv/digits --json
    """
    _show(act.up(host, _Progress()), json)


def status(host: Folder = _HERE, json: Json = False) -> None:
    """Say what runs: the gateway, and each replica with its state.

    Examples:

      ensconce status --json
    """
    _show(act.status(host), json)


def scale(
    replicas: Annotated[int, typer.Argument(min=1, max=64, help="How many replicas there shall be.")],
    host: Folder = _HERE,
    json: Json = False,
) -> None:
    """Change the number of replicas, and wait until it is so.

    Examples:

      ensconce scale 3
    """
    _show(act.scale(host, replicas, _Progress()), json)


def roll(host: Folder = _HERE, json: Json = False) -> None:
    """Replace every replica by a fresh one, one at a time, and wait until it is so; the service goes on meanwhile.

    A fresh replica serves what is in models/ then: versions that came, without those that went.

    Examples:

      ensconce roll
    """
    _show(act.roll(host, _Progress()), json)


def logs(
    name: Annotated[str | None, typer.Argument(help="Only this process, such as replica-1 or supervisor.")] = None,
    host: Folder = _HERE,
    json: Json = False,
) -> None:
    """Print what the processes wrote. No log of Ensconce holds a payload, a key or a model.

    Examples:

      ensconce logs replica-1
    """
    found = act.logs(host, name)
    if json:
        print_json(found)
        return
    for process, lines in found.items():
        for line in lines:
            say(f"{process} | {line}")


def down(host: Folder = _HERE, json: Json = False) -> None:
    """Stop the gateway and the replicas, and wait until they are gone.

    Examples:

      ensconce down
    """
    act.down(host)
    if json:
        print_json({"stopped": str(host)})
        return
    remark("down")


def _show(found: dict[str, Any], json: bool) -> None:
    if json:
        print_json(found)
        return
    service = found["service"]
    say(f"{service['domain']}: gRPC on {service['grpc']}, REST on {service['rest']}, through {found['gateway_about']}")
    if found["platform"] == "simulated":
        say("platform: SIMULATED; nothing here is protected from this machine")
    print_table(
        ["replica", "state", "pid", "servables", "key", "restarts", "last error"],
        [
            [
                replica["name"],
                replica["state"],
                str(replica["pid"] or ""),
                " ".join(replica["servables"]),
                (replica["key_sha256"] or "")[:16],
                str(replica["restarts"]),
                (replica["error"] or {}).get("check", ""),
            ]
            for replica in found["replicas"]
        ],
    )


class _Progress:
    """Says a line whenever the states of the replicas have changed."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, found: dict[str, Any]) -> None:
        states = ", ".join(f"{replica['name']} {replica['state']}" for replica in found["replicas"])
        if states and states != self._last:
            remark(states)
            self._last = states
