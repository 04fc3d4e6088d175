"""The command ``ensconce``: gathers the groups, and turns every error into one line and an exit status."""

from __future__ import annotations

import json
import logging
import signal
import sys
from typing import Annotated

import typer

from ensconce import __version__
from ensconce.cli import demo, enclave, file, host, model, owner, policy, provision, quote, verify
from ensconce.errors import EnsconceError, InputError

__all__ = ["app", "main"]

INTERRUPTED = 128 + signal.SIGINT

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
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", force=True)


app.command("init")(owner.init)
app.add_typer(model.app, name="model")
app.add_typer(enclave.app, name="enclave")
app.add_typer(policy.app, name="policy")
app.add_typer(provision.app, name="provision")
app.add_typer(owner.audit_app, name="audit")
app.command("up")(host.up)
app.command("status")(host.status)
app.command("scale")(host.scale)
app.command("logs")(host.logs)
app.command("down")(host.down)
app.command("verify")(verify.verify)
app.command("predict")(verify.predict)
app.add_typer(quote.app, name="quote")
app.add_typer(file.app, name="file")
app.command("demo")(demo.demo)


def main() -> None:
    """Run the command line and exit; the one place where an exception becomes an exit status."""
    # As with Ctrl-C, what is half done is undone on the way out.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        app()
    except EnsconceError as error:
        _report(error)
        sys.exit(error.exit_status)
    except OSError as error:
        known = InputError("os.error", f"{error.strerror or error}", found=str(error.filename or "") or None)
        _report(known)
        sys.exit(known.exit_status)
    except SystemExit as leave:
        if leave.code == INTERRUPTED:
            sys.stderr.write("interrupted\n")
        raise


def _report(error: EnsconceError) -> None:
    if "--json" in sys.argv:
        sys.stdout.write(json.dumps({"error": error.fields()}) + "\n")
    else:
        sys.stderr.write(f"error: {error}\n")


if __name__ == "__main__":
    main()
