"""How fast files are encrypted and decrypted, and what keeps them from being faster.

    python benchmarks/encfile.py [--size MiB] [--rounds N] [--folder DIR]

Every round does each measurement once (A B C A B C ...), so that a slow minute of the machine hits all alike. Files
are warm in the page cache when read; every write ends with an fsync, as in the product, and goes to a new file.
Gramine's own tool is measured alongside if ``gramine-sgx-pf-crypt`` is on the PATH (it does not fsync).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ensconce import encfile
from ensconce.encfile.layout import GROUP_DATA, NODE_SIZE
from ensconce.encfile.nodes import ZERO_IV, GroupBuffers, seal_group

MIB = 1 << 20


def main() -> None:
    """Run the rounds and print medians with their spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, metavar="MiB")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=None, help="where the files go (default: the temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="encfile-", dir=options.folder) as folder:
        rates = measure(Path(folder), options.size * MIB, options.rounds)
    report(rates, options)


def measure(folder: Path, size: int, rounds: int) -> dict[str, list[float]]:
    """MB/s of every measurement, one value per round."""
    plain, sealed, key = folder / "plain", folder / "sealed", os.urandom(16)
    with plain.open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())
    encfile.encrypt_file(plain, sealed, key, embedded_path="sealed")
    (folder / "key").write_bytes(key)
    out = folder / "out"
    steps: dict[str, Callable[[], object]] = {}
    for workers in (1, 2):
        name = f"{workers} process{'es'[: 2 * (workers - 1)]}"
        steps[f"encrypt_file, {name}"] = lambda workers=workers: encfile.encrypt_file(
            plain, out, key, embedded_path="out", workers=workers
        )
        steps[f"decrypt_file, {name}"] = lambda workers=workers: encfile.decrypt_file(
            sealed, out, key, verify_path="sealed", workers=workers
        )
    steps["decrypt_bytes, 1 process (as in an enclave)"] = lambda: encfile.decrypt_bytes(
        sealed, key, verify_path="sealed"
    )
    steps["bound: AES-128-GCM, 4 KiB nodes, one key, no I/O"] = lambda: raw_nodes(size, key)
    steps["bound: the same, a fresh key per node (the format)"] = lambda: raw_groups(size)
    steps["bound: copy and fsync, no encryption"] = lambda: copy(plain, out)
    if tool := shutil.which("gramine-sgx-pf-crypt"):
        for verb, source in (("encrypt", plain), ("decrypt", sealed)):
            command = [tool, verb, "-w", str(folder / "key"), "-i", str(source), "-o", str(out)]
            steps[f"Gramine's tool, {verb}"] = lambda command=command: subprocess.run(
                command, check=True, capture_output=True
            )
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            out.unlink(missing_ok=True)
            start = time.perf_counter()
            step()
            rates[name].append(size / 1e6 / (time.perf_counter() - start))
    return rates


def raw_nodes(size: int, key: bytes) -> None:
    """What AES-GCM alone costs: the key schedule once, the same 4 KiB over and over (the output is thrown away)."""
    cipher, data, box = AESGCM(key), bytes(NODE_SIZE), bytearray(NODE_SIZE + 16)
    for _ in range(size // NODE_SIZE):
        cipher.encrypt_into(ZERO_IV, data, None, box)


def raw_groups(size: int) -> None:
    """What the format makes of it: a random key, a cipher object and an entry per node."""
    buffers = GroupBuffers()
    for _ in range(size // GROUP_DATA):
        seal_group(buffers, 96, b"")


def copy(source: Path, target: Path) -> None:
    """What the kernel and the disk cost."""
    buffer = memoryview(bytearray(GROUP_DATA))
    with source.open("rb", buffering=0) as reading, target.open("wb", buffering=0) as writing:
        while count := reading.readinto(buffer):
            writing.write(buffer[:count])
        os.fsync(writing.fileno())


def report(rates: dict[str, list[float]], options: argparse.Namespace) -> None:
    """Print the table, and which part of the time goes where."""
    print(f"{options.size} MiB, {options.rounds} rounds, {len(os.sched_getaffinity(0))} processors, ", end="")
    print(f"load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}")
    print(f"{'MB/s':52} {'median':>7} {'min':>7} {'max':>7}")
    for name, found in rates.items():
        print(f"{name:52} {statistics.median(found):7.0f} {min(found):7.0f} {max(found):7.0f}")
    median = {name: statistics.median(found) for name, found in rates.items()}
    whole = 1 / median["encrypt_file, 1 process"]
    cipher = 1 / median["bound: AES-128-GCM, 4 KiB nodes, one key, no I/O"]
    groups = 1 / median["bound: the same, a fresh key per node (the format)"]
    moving = 1 / median["bound: copy and fsync, no encryption"]
    print("\nWhat limits encrypt_file in one process, in parts of its time:")
    print(f"  AES-GCM itself                        {cipher / whole:4.0%}")
    print(f"  fresh key and cipher object per node  {(groups - cipher) / whole:4.0%}")
    print(
        f"  read, write, fsync (done alone)       {moving / whole:4.0%}  partly at the same time: writes go out early"
    )
    print(f"  the second process gains              {median['encrypt_file, 2 processes'] * whole:4.2f} times")


if __name__ == "__main__":
    main()
