"""``ensconce provision``: the server that releases keys to enclaves that the policy accepts."""

from __future__ import annotations

import logging
import signal
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from ensconce.cli.json_log import JsonLines
from ensconce.cli.output import remark
from ensconce.cli.owner import Owner

__all__ = ["app"]

app = typer.Typer(help="The secret provisioning server.", no_args_is_help=True)

_log = logging.getLogger(__name__)


class LogFormat(StrEnum):
    """How the server says what it does, on standard error."""

    TEXT = "text"
    JSON = "json"


@app.command("serve")
def serve(
    owner: Owner = Path(),
    policy: Annotated[
        Path | None, typer.Option(help="This policy for this run, signed or not, instead of the one in force.")
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="json: one JSON object for each line, every event among them.")
    ] = LogFormat.TEXT,
) -> None:
    """Release keys to replicas whose fresh evidence the policy accepts; log every release and every refusal.

    Runs until SIGTERM or Ctrl-C. SIGHUP makes it look for a new policy at once.

    Examples:

      ensconce provision serve

      ensconce provision serve --policy policy.yaml

      ensconce provision serve --log-format json
    """
    from ensconce.cluster.owner import OwnerFolder
    from ensconce.cluster.provision import open_server
    from ensconce.keys import protect_process

    if log_format is LogFormat.JSON:
        _log_json()
    protection = protect_process()
    if protection.remark is not None:
        _log.info("%s", protection.remark)
    interrupted = False
    with open_server(OwnerFolder.open(owner), policy) as server:

        def leave(number: int, _frame: FrameType | None) -> None:
            nonlocal interrupted
            interrupted = interrupted or number == signal.SIGINT
            server.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, leave)
        signal.signal(signal.SIGHUP, lambda _number, _frame: server.look_again())
        if log_format is LogFormat.JSON:
            _log.info("listening", extra={"fields": {"port": server.port, "status_port": server.status_port}})
        else:
            remark(f"provisioning server on port {server.port}")
            if server.status_port is not None:
                remark(f"its status on port {server.status_port}")
        server.serve_forever()
    if interrupted:
        raise KeyboardInterrupt


def _log_json() -> None:
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonLines())
    ensconce = logging.getLogger("ensconce")
    if ensconce.getEffectiveLevel() > logging.INFO:
        ensconce.setLevel(logging.INFO)
