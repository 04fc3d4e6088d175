"""The command ``ensconce``: gathers the groups, and turns every error into one line and an exit status."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Annotated

import typer

from ensconce import __version__
from ensconce.cli import (
    audit,
    bench,
    collateral,
    dashboard,
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
    proxy,
    publish,
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


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ensconce {__version__}")
        raise typer.Exit


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


_PARTS: dict[str, typer.Typer | Callable[..., None]] = {
    "init": owner.init,
    "model": model.app,
    "key": key.app,
    "enclave": enclave.app,
    "policy": policy.app,
    "provision": provision.app,
    "audit": audit.app,
    "publish": publish.publish,
    "up": host.up,
    "status": host.status,
    "scale": host.scale,
    "roll": host.roll,
    "logs": host.logs,
    "down": host.down,
    "replica": replica.app,
    "kubernetes": kubernetes.app,
    "verify": verify.verify,
    "predict": verify.predict,
    "proxy": proxy.proxy,
    "dashboard": dashboard.dashboard,
    "bench": bench.bench,
    "quote": quote.app,
    "collateral": collateral.app,
    "file": file.app,
    "tls": tls.app,
    "simulated": simulated.app,
    "demo": demo.demo,
}


def _assembled(names: Iterable[str]) -> typer.Typer:
    """The command with these parts."""
    made = typer.Typer(
        name="ensconce",
        help="""Serve machine-learning models from machines that nobody has to trust.

        Examples:

        \b
          ensconce demo
          ensconce verify digits.example.test:8500 --policy policy.yaml --ca ca.pem
        """,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Exit status: 0 well, 2 wrong input, 3 evidence not genuine, 4 refused by policy, 5 unreachable, "
        "6 stored data damaged, 130 interrupted.",
    )
    made.callback()(_options)
    for name in names:
        part = _PARTS[name]
        if isinstance(part, typer.Typer):
            made.add_typer(part, name=name)
        else:
            made.command(name)(part)
    return made


app = _assembled(_PARTS)


def _called() -> typer.Typer:
    """What the command line needs: Typer looks at every parameter that it knows, longer than most commands take."""
    return _assembled(sys.argv[1:2]) if sys.argv[1:2] and sys.argv[1] in _PARTS else app


def main() -> None:
    """Run the command line and exit; the one place where an exception becomes an exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell lets what runs in the background ignore Ctrl-C
            signal.signal(number, _interrupt)
    try:
        try:
            status = typer.main.get_command(_called()).main(standalone_mode=False) or 0
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
