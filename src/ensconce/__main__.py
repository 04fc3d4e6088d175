"""The command ``ensconce``, also as ``python -m ensconce``."""

from __future__ import annotations

import os
import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Load the command line and run it.

    Until it is loaded, a Ctrl-C ends the process as it ends any program, rather than with a traceback of imports.
    """
    _open_streams()
    # Pydantic would look for plugins in the metadata of everything that is installed, and run them beside our keys.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from ensconce.cli.main import main as run

    signal.signal(signal.SIGINT, before)
    run()


def _open_streams() -> None:
    """Stand in for standard streams that were closed (`>&-`), before another file gets their number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


if __name__ == "__main__":
    main()
