"""Single steps, in this process: appraisal, certificate, log, and inference by batch size."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import appraisal, audit, provisioning, sealed_load
from benchmarks.scaling.cost import undisturbed
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
    """Appends to a log on disk by entries in a batch: ``wall`` and ``cpu`` seconds of each whole batch."""
    log = AuditLog.open(folder / "audit-by-batch", Ed25519PrivateKey.generate(), lambda: int(time.time()))
    found: dict[str, list[dict[str, float]]] = {str(size): [] for size in _BATCHES}
    for _ in range(count):
        for size in _BATCHES:
            events: Any = [("key.released", audit.FIELDS)] * size
            wall, cpu = time.perf_counter(), time.thread_time()
            log.append_many(events)
            found[str(size)].append({"wall": time.perf_counter() - wall, "cpu": time.thread_time() - cpu})
    return found


def log_opened(folder: Path, entries: int) -> dict[str, float]:
    """A log of so many entries: ``bytes`` and ``seconds`` an entry that a server's start takes for it."""
    key, where = Ed25519PrivateKey.generate(), folder / "audit-opened"
    log = AuditLog.open(where, key, lambda: int(time.time()))
    events: Any = [("key.released", audit.FIELDS)] * 64
    for _ in range(entries // 64):
        log.append_many(events)
    began = time.perf_counter()
    AuditLog.open(where, key, lambda: int(time.time()))
    seconds = time.perf_counter() - began
    size = (where / "log.jsonl").stat().st_size
    written = entries // 64 * 64
    return {"entries": written, "bytes": size / written, "seconds": seconds / written}


def make_model(folder: Path) -> None:
    """ResNet-50's layers with random weights, computed in bf16 where the processor can."""
    sealed_load.make(folder)
    signatures = folder / "signatures.json"
    signatures.write_text(json.dumps({"precision": "bf16", **json.loads(signatures.read_text())}))


def inferences(folder: Path, count: int) -> dict[str, list[float]]:
    """Seconds of each inference of that model, by rows."""
    servable = load_folder(folder)
    images = np.random.default_rng(1).standard_normal((max(_ROWS), 3, 224, 224), np.float32)

    def infer(rows: int) -> None:
        servable.predict("serving_default", {"images": images[:rows]})

    for rows in _ROWS:
        infer(rows)
    return {str(rows): undisturbed(lambda rows=rows: infer(rows), count) for rows in _ROWS}  # type: ignore[misc]
