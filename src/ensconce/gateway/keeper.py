"""Keeps one child process, and lets nothing of it outlive the process that wanted it.

Run by path, with the standard library alone: ``python -I -S keeper.py PROGRAM ARGUMENT...``. Standard input is a pipe
whose other end only the supervisor holds; one byte on it is one wish:

====  ================================
h     SIGHUP to the child: reload
q     SIGQUIT to the child: finish what is open, then end
end   SIGTERM to the child, and SIGKILL to its whole process group two seconds later
====  ================================

The end comes when the supervisor closes the pipe, and just as well when it is killed, because then the kernel closes
it. Should the keeper itself be killed, the kernel sends the child SIGTERM (PR_SET_PDEATHSIG, prctl(2)). When the child
has ended by itself, the rest of its process group is killed: nginx's workers survive a master that was shot.

The exit status is the child's, as a shell would give it.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

TERM_S = 2.0
_PR_SET_PDEATHSIG = 1
_SIGNALS = {b"h": signal.SIGHUP, b"q": signal.SIGQUIT}


def main(command: list[str]) -> int:
    """Run ``command`` until it ends or the pipe on standard input does."""
    libc = ctypes.CDLL(None)

    def die_with_keeper() -> None:
        # Safe before exec: the keeper has one thread, so nothing can hold a lock across the fork.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    inherited = [int(number) for number in os.environ.get("NGINX", "").split(";") if number]
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        pass_fds=inherited,
        process_group=0,
        preexec_fn=die_with_keeper,
    )
    for number in inherited:
        # The listening sockets are the child's now: nobody else may keep its addresses taken.
        os.close(number)
    ended = os.pidfd_open(child.pid)
    deadline: float | None = None
    watched = select.poll()
    watched.register(0, select.POLLIN)
    watched.register(ended, select.POLLIN)
    while True:
        left = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000))
        events = dict(watched.poll(left))
        if ended in events:
            break
        if deadline is not None and not events:
            break
        if 0 in events:
            wish = os.read(0, 1)
            if wish in _SIGNALS:
                signal.pidfd_send_signal(ended, _SIGNALS[wish])
            elif not wish:
                watched.unregister(0)
                signal.pidfd_send_signal(ended, signal.SIGTERM)
                deadline = time.monotonic() + TERM_S
    # Before the child is reaped its number cannot belong to anybody else, so the group is certainly ours.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    status = child.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Only the pipe decides, so that a Ctrl-C meant for the supervisor does not end the gateway before it.
        signal.signal(number, signal.SIG_IGN)
    sys.exit(main(sys.argv[1:]))
