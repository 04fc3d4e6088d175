"""Single steps, in this process: appraisal, certificate, log, and inference by batch size."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import appraisal, audit, provisioning, sealed_load
from benchmarks.scaling.cost import queued_seconds, undisturbed
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ensconce.audit import AuditLog
from ensconce.serving.engines.folder import load_folder

__all__ = ["inferences", "log_by_batch", "log_opened", "make_model", "release_steps"]

_BATCHES = (1, 4, 16, 64)
_ROWS = (1, 2, 4, 8, 16)
# Of provisioning's own steps, those that are told of here.
_STEPS = {
    "certificate request read": "certificate request read",
    "verification here, twice": "appraisal of two quotes, here",
    "verification in a process, twice": "appraisal of two quotes, in a verifier",
    "key, certificate and answer": "certificate issued, key read, answer written",
}


def release_steps(folder: Path, count: int) -> dict[str, list[float]]:
    """Seconds of each step of a release by its name, and of an appraisal with nothing kept from before."""
    every = provisioning.steps(folder)
    found = {name: undisturbed(every[step], count) for step, name in _STEPS.items()}
    papers = appraisal.VENDOR.collateral(appraisal.NOW)
    [quote] = appraisal.quotes(appraisal.reports()["SGX v3"], 1)
    found["appraisal of one quote"] = undisturbed(lambda: appraisal.layer(quote, papers), count)
    found["appraisal of one quote, nothing kept"] = undisturbed(lambda: appraisal.afresh(quote, papers), count)
    return found


def log_by_batch(folder: Path, count: int) -> dict[str, list[dict[str, float]]]:
    """Appends to a log on disk by entries in a batch: ``wall`` seconds of each whole batch, and those of ``disk``, in
    which this process neither ran nor waited for a processor."""
    log = AuditLog.open(folder / "audit-by-batch", Ed25519PrivateKey.generate(), lambda: int(time.time()))
    found: dict[str, list[dict[str, float]]] = {str(size): [] for size in _BATCHES}
    for _ in range(count):
        for size in _BATCHES:
            events: Any = [("key.released", audit.FIELDS)] * size
            wall, busy = time.perf_counter(), time.thread_time() + queued_seconds()
            log.append_many(events)
            took = time.perf_counter() - wall
            disk = max(0.0, took - (time.thread_time() + queued_seconds() - busy))
            found[str(size)].append({"wall": took, "disk": disk})
    return found


def log_opened(folder: Path, entries: int) -> dict[str, float]:
    """A log of so many entries: ``bytes`` an entry, and processor ``seconds`` an entry of a server's start."""
    key, where = Ed25519PrivateKey.generate(), folder / "audit-opened"
    log = AuditLog.open(where, key, lambda: int(time.time()))
    events: Any = [("key.released", audit.FIELDS)] * 64
    for _ in range(entries // 64):
        log.append_many(events)
    began = time.process_time()
    AuditLog.open(where, key, lambda: int(time.time()))
    seconds = time.process_time() - began
    size = (where / "log.jsonl").stat().st_size
    written = entries // 64 * 64
    return {"entries": written, "bytes": size / written, "seconds": seconds / written}


def make_model(folder: Path) -> None:
    """ResNet-50's layers with random weights, computed in bf16 where the processor can."""
    sealed_load.make(folder)
    signatures = folder / "signatures.json"
    signatures.write_text(json.dumps({"precision": "bf16", **json.loads(signatures.read_text())}))


def inferences(folder: Path, count: int) -> dict[str, list[dict[str, float]]]:
    """Inferences of that model, by rows and by turns: ``wall`` seconds of each, and ``cpu``, processor time over the
    number of processors: what it takes when nobody else is there, as all of them work at it."""
    servable = load_folder(folder)
    images = np.random.default_rng(1).standard_normal((max(_ROWS), 3, 224, 224), np.float32)

    processors = len(os.sched_getaffinity(0))
    found: dict[str, list[dict[str, float]]] = {str(rows): [] for rows in _ROWS}
    for turn in range(-1, count):
        for rows in _ROWS:
            wall, busy = time.perf_counter(), time.process_time()
            servable.predict("serving_default", {"images": images[:rows]})
            cpu = (time.process_time() - busy) / processors
            if turn >= 0:
                found[str(rows)].append({"wall": time.perf_counter() - wall, "cpu": cpu})
    return found
