from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
CHILD = """
import socket
from pathlib import Path
from benchmarks.serving.network import unpaced
told = unpaced()
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
    print(Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(), told, sep=": ")
"""


def test_loopback_works_and_what_is_told_of_it_holds() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], cwd=ROOT, capture_output=True, text=True, check=True)
    control, _, told = done.stdout.strip().partition(": ")
    assert told.startswith(control)
    assert control in ("reno", "cubic") or "could not be had" in told
