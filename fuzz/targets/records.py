"""TFRecord files, and the requests in them that a model is warmed up with.

Oracle: what was accepted is written again with a checksum that is computed bit by bit, and gives the same bytes.
"""

from __future__ import annotations

import io
import random
import struct
from typing import Any

from ensconce.serving.warmup import MAX_RECORDS, replay_records
from ensconce.tfserving.messages import PredictionLog
from ensconce.tfserving.records import read_records
from ensconce.tfserving.refusal import RequestError
from fuzz.target import Havoc, Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]

_LIMIT = 1 << 20


def check(data: bytes) -> bool:
    """Read a file; see the module."""
    records = attempt(lambda: list(read_records(io.BytesIO(data), _LIMIT)), RequestError)
    seen: list[Any] = []
    count = attempt(lambda: replay_records(io.BytesIO(data), "the file", seen.append, iterations=2), RequestError)
    holds(len(seen) <= 2 * MAX_RECORDS, "more was replayed than may be")
    if isinstance(records, Refused):
        holds(isinstance(count, Refused), "a damaged file was replayed")
        return False
    written = b"".join(_record(each) for each in records)
    holds(data.startswith(written) and len(data) - len(written) < 12, "another reader sees other records")
    if isinstance(count, Refused):
        return False
    holds(count == len(records), "another number of records")
    holds(all(log.WhichOneof("log_type") for log in seen), "nothing was replayed")
    return True


def _record(data: bytes) -> bytes:
    size = struct.pack("<Q", len(data))
    return size + struct.pack("<I", _masked(size)) + data + struct.pack("<I", _masked(data))


def _masked(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    """Bend a record and give it its checksum, or else bend the file."""
    read = attempt(lambda: list(read_records(io.BytesIO(data), _LIMIT)), RequestError)
    if isinstance(read, Refused) or not read or rng.random() < 0.2:
        return havoc(data)
    at = rng.randrange(len(read))
    read[at] = havoc(read[at])
    if rng.random() < 0.2:
        read.insert(at, rng.choice(read))
    return b"".join(_record(each) for each in read)


def seeds() -> dict[str, bytes]:
    """Requests of every kind, a record long enough to be summed in parts, and damage."""
    logs = {}
    for kind in PredictionLog.DESCRIPTOR.fields_by_name:
        log = PredictionLog()
        part = getattr(log, kind)
        part.SetInParent()
        if hasattr(part, "request"):
            part.request.SetInParent()
        logs[kind] = _record(log.SerializeToString())
    predict = PredictionLog()
    predict.predict_log.request.model_spec.name = "m"
    predict.predict_log.request.inputs["x"].tensor_content = bytes(9000)
    replayed = [made for kind, made in logs.items() if kind not in ("session_run_log", "predict_streamed_log")]
    return {
        "good-empty": b"",
        "good-every-kind": b"".join(replayed),
        "good-long": _record(predict.SerializeToString()),
        "good-nothing-in-it": _record(b"") * 3,
        "good-part-of-a-header": _record(b"") + b"\0" * 11,
        "streamed": logs["predict_streamed_log"],
        "session-run": logs["session_run_log"],
        "no-message": _record(b"\xff"),
        "cut-off": replayed[0][:-1],
        "claim": struct.pack("<Q", 2**63) + struct.pack("<I", _masked(struct.pack("<Q", 2**63))),
    }


TARGET = Target("records", check, seeds, _mutate)
