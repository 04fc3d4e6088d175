"""How many entries a second the audit log takes durably, from one thread and from many, and what a proof costs.

    python benchmarks/audit.py [--entries N] [--rounds N] [--folder DIR]

Every round does each measurement once (A B C A B C ...), so that a slow minute of the machine hits all alike. Each
append is acknowledged only when entry and head are on disk. The bound is two files written, synced and renamed as the
log does, with nothing in them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ensconce.audit import AuditLog
from ensconce.files import write_aside

KEY = Ed25519PrivateKey.generate()
# What a release records, more or less.
FIELDS = {
    "peer": "192.0.2.7:41822",
    "key_ids": ["model/digits/1"],
    "identity": "digits.example.test replica",
    "mr_enclave": "11" * 32,
    "mr_signer": "22" * 32,
    "isv_prod_id": 1,
    "isv_svn": 1,
    "root": "intel",
    "tcb_status": "UpToDate",
    "advisory_ids": [],
    "policy_sha256": "33" * 32,
    "tls_key_sha256": "44" * 32,
    "certificate_serial": "5" * 40,
    "certificate_until": 1_769_860_800,
}


def main() -> None:
    """Run the rounds and print medians with their spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where the logs go (default: the temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="audit-", dir=options.folder) as folder:
        measure(Path(folder), options.entries, options.rounds)


def measure(folder: Path, entries: int, rounds: int) -> None:
    """Print entries a second of every measurement, and how long proofs take."""
    steps: dict[str, Callable[[], object]] = {"bound: two synced files for each entry": lambda: bound(folder, entries)}
    for kind, log in logs(folder).items():
        for threads in (1, 8, 32):
            steps[f"{kind}, {threads} thread{'s'[: threads - 1]}"] = lambda log=log, threads=threads: append(
                log, entries, threads
            )
        if hasattr(log, "append_many"):
            steps[f"{kind}, append_many of 64"] = lambda log=log: [
                log.append_many([("key.released", FIELDS)] * 64) for _ in range(entries // 64 + 1)
            ]
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            done = 64 * (entries // 64 + 1) if name.endswith("64") else entries
            rates[name].append(done / (time.perf_counter() - start))
    for name, values in rates.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{name:45} {middle:8.0f} entries/s   ({low:.0f} to {high:.0f})")
    proofs(folder)


def logs(folder: Path) -> dict[str, AuditLog]:
    """The same log in each place."""
    made = {"folder": AuditLog.open(folder / "audit", KEY, lambda: int(time.time()))}
    try:
        from ensconce.audit.database import DatabaseLog
        from ensconce.state.engine import Database
    except ImportError:  # an earlier version, for comparison
        return made
    storage = DatabaseLog(Database.open_sqlite(folder / "state.db"))
    return made | {"SQLite": AuditLog.open(storage, KEY, lambda: int(time.time()))}


def append(log: AuditLog, entries: int, threads: int) -> None:
    """Append from several threads, each of which waits for its own acknowledgements."""
    workers = [
        threading.Thread(target=lambda: [log.append("key.released", **FIELDS) for _ in range(entries // threads)])
        for _ in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def bound(folder: Path, entries: int) -> None:
    """What the disk alone takes for entries that are synced one by one."""
    with (folder / "bound").open("wb") as file:
        for _ in range(entries):
            file.write(bytes(1000))
            file.flush()
            os.fsync(file.fileno())
            write_aside(folder / "bound.head", bytes(400))


def proofs(folder: Path) -> None:
    """How long opening takes, and proofs, the first of which reads the log."""
    start = time.perf_counter()
    log = AuditLog.open(folder / "audit", KEY, lambda: int(time.time()))
    opened = time.perf_counter() - start
    if not hasattr(log, "consistency"):
        return
    size = log.head().size
    start = time.perf_counter()
    log.consistency(1, size)
    first = time.perf_counter() - start
    start = time.perf_counter()
    for earlier in range(1, 1001):
        log.consistency(size * earlier // 1001 + 1, size)
    each = (time.perf_counter() - start) / 1000
    print(f"{size} entries: opened in {opened:.2f} s, first proof {first * 1e3:.0f} ms, then {each * 1e6:.0f} µs each")


if __name__ == "__main__":
    main()
