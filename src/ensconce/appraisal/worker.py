"""The process behind :mod:`ensconce.appraisal.pool`: verifies one quote after another until the pool hangs up.

Run as ``python -m ensconce.appraisal.worker FD``, where FD is its end of a socket pair. It holds no secret: a quote,
collateral and a time go in, a verdict or a refusal comes out.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from multiprocessing.connection import Connection

from ensconce.appraisal.dcap import verify_quote
from ensconce.errors import EnsconceError

__all__: list[str] = []


def _main() -> None:
    # Ctrl-C goes to the whole group; the pool's process decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pool = Connection(int(sys.argv[1]))
    # The pool hangs up, or is killed while something is on its way.
    with contextlib.suppress(EOFError, OSError):
        _serve(pool)


def _serve(pool: Connection) -> None:
    while True:
        quote, collateral, at, root = pool.recv()
        answer: object
        try:
            answer = verify_quote(quote, collateral, at=at, root=root)
        except EnsconceError as error:
            answer = (error.fields(), error.exit_status)
        except BaseException as error:  # a panic of native code is no Exception
            answer = ({"check": "appraisal.bug", "problem": "verification failed", "found": type(error).__name__}, 1)
        pool.send(answer)


if __name__ == "__main__":
    _main()
