"""Writers killed at any moment, again and again: what was acknowledged is in the log, and the log is whole."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ensconce.audit import AuditLog, read_entries, verify_log
from ensconce.audit.database import DatabaseLog
from ensconce.audit.folder import FolderLog
from ensconce.audit.storage import LogStorage
from ensconce.state.engine import Database

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
WRITER = """
import os, sys, threading
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ensconce.audit import AuditLog
from ensconce.audit.database import DatabaseLog
from ensconce.state.engine import Database

kind, path, run = sys.argv[1:]
where = Path(path) if kind == "folder" else DatabaseLog(Database.open_sqlite(Path(path)))
log = AuditLog.open(where, Ed25519PrivateKey.from_private_bytes(bytes(range(32))), lambda: 1_769_860_800)

def write(name):
    for number in range(1000000):
        many = [("a", {"who": f"{run}.{name}", "n": number, "text": "x" * (number * 37 % 900)})] * (1 + number % 3)
        seqs = [entry.seq for entry in log.append_many(many)]
        os.write(1, "".join(f"{seq} {run}.{name} {number}\\n" for seq in seqs).encode())

print("ready", flush=True)
for name in range(3):
    threading.Thread(target=write, args=(name,)).start()
"""


def storage(kind: str, path: Path) -> LogStorage:
    return FolderLog(path) if kind == "folder" else DatabaseLog(Database.open_sqlite(path))


@pytest.mark.parametrize("kind", ["folder", "sqlite"])
def test_killed_at_any_moment(kind: str, tmp_path: Path) -> None:
    chance = random.Random(20)
    path = tmp_path / kind
    acknowledged: dict[int, tuple[str, int]] = {}
    for run in range(4):
        # Two writers at once; the first dies while the second goes on, then the second.
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, kind, path, f"{run}-{n}"], stdout=subprocess.PIPE, bufsize=0
            )
            for n in range(1 if run % 2 else 2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            # After so many bytes of acknowledgements, wherever the writer is then.
            read = os.read(writer.stdout.fileno(), chance.randrange(1, 2000))
            writer.kill()
            lines = (read + writer.stdout.read()).splitlines(keepends=True)
            writer.stdout.close()
            writer.wait()
            for line in lines:
                if line.endswith(b"\n"):
                    seq, who, number = line.split()
                    assert int(seq) not in acknowledged
                    acknowledged[int(seq)] = (who.decode(), int(number))
        AuditLog.open(storage(kind, path), KEY, lambda: 1_769_860_800)  # settles what the last one left
        head = verify_log(storage(kind, path), KEY.public_key())
        held = {entry.seq: (entry.fields["who"], entry.fields["n"]) for entry in read_entries(storage(kind, path))}
        assert len(held) == head.size
        assert {seq: held.get(seq) for seq in acknowledged} == acknowledged
    assert acknowledged
