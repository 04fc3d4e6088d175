"""The command ``ensconce``, also as ``python -m ensconce``."""

from __future__ import annotations

import signal

__all__ = ["main"]


def main() -> None:
    """Load the command line and run it.

    Until it is loaded, a Ctrl-C ends the process as it ends any program, rather than with a traceback of imports.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from ensconce.cli.main import main as run

    signal.signal(signal.SIGINT, before)
    run()


if __name__ == "__main__":
    main()
