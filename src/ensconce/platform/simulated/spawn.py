"""Becomes an enclave's process: sheds everything of the host's, then executes the enclave's program.

Run by path as a fresh, isolated interpreter (`python -I -S -B spawn.py`), so that nothing runs between `fork` and
`exec` in the daemon, and imported by nobody. Its standard input is a JSON object with the program, argv and
environment; its arguments are the descriptors of the door and of a pipe for failures, and the daemon's process id.
The process id stays the same through the exec, so the daemon knows the enclave by it.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import signal
import sys

_DOOR = 3
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def _main() -> None:
    door, failures, daemon = (int(argument) for argument in sys.argv[1:])
    # Out of the way of 3, and gone after the exec.
    failures = fcntl.fcntl(failures, fcntl.F_DUPFD_CLOEXEC, 10)
    try:
        _become_enclave(fcntl.fcntl(door, fcntl.F_DUPFD_CLOEXEC, 10), daemon)
    except BaseException as error:  # whatever it is, the daemon must hear of it
        os.write(failures, f"{type(error).__name__}: {error}"[:1000].encode(errors="replace"))
        os._exit(127)


def _become_enclave(door: int, daemon: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    # The kernel kills this process when the daemon dies, however it dies.
    for option, value in ((_PR_SET_PDEATHSIG, signal.SIGKILL), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
            raise OSError(ctypes.get_errno(), "prctl failed")
    if os.getppid() != daemon:
        raise RuntimeError("the daemon has gone")
    # No memory in core dumps. Dumps that are piped to a program ignore the limit; the filter is for them.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(FileNotFoundError), open("/proc/self/coredump_filter", "w") as filter_file:  # noqa: PTH123
        filter_file.write("0")

    with open(0, "rb", closefd=False) as stream:
        start = json.load(stream)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(door, _DOOR)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - pathlib is not worth its import here
        if int(name) > _DOOR:
            with contextlib.suppress(OSError):
                os.set_inheritable(int(name), False)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    # Encoded here: what an empty environment makes of the locale must not matter.
    os.execve(  # noqa: S606 - no shell is the point
        start["program"].encode(),
        [argument.encode() for argument in start["argv"]],
        {name.encode(): value.encode() for name, value in start["env"].items()},
    )


if __name__ == "__main__":
    _main()
