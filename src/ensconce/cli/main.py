"""The command ``ensconce``: gathers the groups, and turns every error into one line and an exit status."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from ensconce import __version__
from ensconce.cli import (
    audit,
    collateral,
    demo,
    enclave,
    file,
    host,
    key,
    kubernetes,
    model,
    owner,
    policy,
    provision,
    quote,
    replica,
    simulated,
    tls,
    verify,
)
from ensconce.cli.text_log import TextLines
from ensconce.errors import EnsconceError, InputError, place_of
from ensconce.files import system_error

__all__ = ["app", "main"]

INTERRUPTED = 128 + signal.SIGINT

_log = logging.getLogger(__name__)

app = typer.Typer(
    name="ensconce",
    help="Serve machine-learning models from machines that nobody has to trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 well, 2 wrong input, 3 evidence not genuine, 4 refused by policy, 5 unreachable, "
    "6 stored data damaged, 130 interrupted.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ensconce {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Say more on standard error; twice for every detail.")
    ] = 0,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Serve machine-learning models from machines that nobody has to trust."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)


app.command("init")(owner.init)
app.add_typer(model.app, name="model")
app.add_typer(key.app, name="key")
app.add_typer(enclave.app, name="enclave")
app.add_typer(policy.app, name="policy")
app.add_typer(provision.app, name="provision")
app.add_typer(audit.app, name="audit")
app.command("up")(host.up)
app.command("status")(host.status)
app.command("scale")(host.scale)
app.command("roll")(host.roll)
app.command("logs")(host.logs)
app.command("down")(host.down)
app.add_typer(replica.app, name="replica")
app.add_typer(kubernetes.app, name="kubernetes")
app.command("verify")(verify.verify)
app.command("predict")(verify.predict)
app.add_typer(quote.app, name="quote")
app.add_typer(collateral.app, name="collateral")
app.add_typer(file.app, name="file")
app.add_typer(tls.app, name="tls")
app.add_typer(simulated.app, name="simulated")
app.command("demo")(demo.demo)


def main() -> None:
    """Run the command line and exit; the one place where an exception becomes an exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell lets what runs in the background ignore Ctrl-C
            signal.signal(number, _interrupt)
    try:
        try:
            status = typer.main.get_command(app).main(standalone_mode=False) or 0
            sys.stdout.flush()
        except KeyboardInterrupt:
            status = INTERRUPTED
        except Exception as error:
            status = _report(error)
    except OSError as error:
        status = _unheard(error)
    if status == INTERRUPTED:
        sys.stderr.write("interrupted\n")
    sys.exit(status)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    # What is half done is undone on the way out; an impatient second Ctrl-C must not leave it undone.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def _report(error: Exception) -> int:
    """Say what went wrong in one line, or as one JSON document, and return the exit status."""
    if isinstance(error, typer.TyperException) and "\n" in error.format_message():
        sys.stderr.write(error.format_message() + "\n")  # the help of a group that was called without a command
        return InputError.exit_status
    known = _known(error)
    if "--json" in sys.argv:
        sys.stdout.write(json.dumps({"error": known.fields()}) + "\n")
        sys.stdout.flush()
    else:
        sys.stderr.write(f"error: {known}\n")
    return known.exit_status


def _known(error: Exception) -> EnsconceError:
    match error:
        case EnsconceError():
            return error
        case OSError():
            return system_error(error)
        case typer.TyperException():
            context = getattr(error, "ctx", None)
            command = context.command_path if context is not None else "ensconce"
            problem = error.format_message().rstrip(".")
            remedy = "check its permissions" if problem.endswith("is not readable") else f"`{command} -h`"
            return InputError("usage", problem, remedy=remedy)
    _log.info("a defect", exc_info=error)
    return EnsconceError(
        "internal",
        "this is a defect of ensconce",
        found=f"{type(error).__name__}: {str(error)[:200]} at {place_of(error)}",
        remedy="report it, with what `ensconce -v` says about it",
    )


def _unheard(error: OSError) -> int:
    """Nobody takes our output any more: a closed pipe (`| head`) needs no word, a full disk does."""
    if error.errno != errno.EPIPE:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"error: cannot print: {error.strerror}\n")
    # What is still in Python's buffers would fail once more when the interpreter closes them.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return EnsconceError.exit_status


if __name__ == "__main__":
    main()
