"""Replays the requests that a model brings with it before it answers others, so that its first answer is a quick one.

Place, form and limits: servables/tensorflow/saved_model_warmup_util.cc and saved_model_warmup.cc.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from google.protobuf.message import DecodeError

from ensconce.serving.engines import Servable
from ensconce.serving.loading import Loader
from ensconce.serving.manager import LoadedServable
from ensconce.tfserving.messages import PredictionLog
from ensconce.tfserving.records import read_records
from ensconce.tfserving.refusal import Code, RequestError, invalid

__all__ = ["MAX_RECORDS", "WARMUP_FILE", "Replay", "replay_records", "warming_up"]

_log = logging.getLogger(__name__)

WARMUP_FILE: Final = Path("assets.extra", "tf_serving_warmup_requests")
"""Under the version's folder: a TFRecord file of ``tensorflow.serving.PredictionLog``."""
MAX_RECORDS: Final = 1000
_MAX_RECORD_BYTES: Final = 128 << 20
_UNSUPPORTED: Final = ("predict_streamed_log", "session_run_log")

Replay = Callable[[LoadedServable, Any], object]
"""Answers the request in a ``PredictionLog`` (Predict, Classify, Regress or MultiInference) with this very version,
whatever model and version the request names. Raises RequestError."""


def warming_up(loader: Loader, replay: Replay, *, iterations: int = 1) -> Loader:
    """A loader that also replays the version's recorded requests; when one fails, the load has failed.

    Args:
        loader: makes the servable.
        replay: answers one request.
        iterations: how often each is replayed (``--num_request_iterations_for_warmup``; 0 and less are 1).
    """

    def load(name: str, version: int, folder: Path) -> Servable:
        servable = loader(name, version, folder)
        path = folder / WARMUP_FILE
        if path.is_file():
            loaded = LoadedServable(name, version, servable)
            with path.open("rb") as file:
                replay_records(file, str(path), lambda log: replay(loaded, log), iterations=iterations)
        return servable

    return load


def replay_records(file: BinaryIO, source: str, replay: Callable[[Any], object], *, iterations: int = 1) -> int:
    """Replay all records of a file, each as often as wanted, in order.

    Args:
        file: opened for reading; may be in memory.
        source: what it is, for errors and the log.
        replay: answers the request in a ``PredictionLog``.
        iterations: how often each is replayed; 0 and less are 1.

    Returns:
        How many records there were.

    Raises:
        RequestError: DATA_LOSS, no TFRecord file or a damaged one; INVALID_ARGUMENT, a record is no ``PredictionLog``,
            or there are more than :data:`MAX_RECORDS`; UNIMPLEMENTED, a kind of request that is not replayed; or what
            ``replay`` raised.
    """
    start, count = time.monotonic(), 0
    for record in _records(file):
        if count == MAX_RECORDS:
            raise invalid(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {source}")
        log = _parse(record, count, source)
        # A record without a request counts and does nothing.
        for _ in range(max(iterations, 1) if log.WhichOneof("log_type") else 0):
            replay(log)
        count += 1
    seconds = time.monotonic() - start
    _log.info("Finished reading warmup data at %s. Number of records: %d. Seconds: %.3f", source, count, seconds)
    return count


def _records(file: BinaryIO) -> Iterator[bytes]:
    try:
        yield from read_records(file, _MAX_RECORD_BYTES)
    except RequestError as error:
        if error.code is not Code.DATA_LOSS:
            raise
        text = f"{error.problem}. Please verify your warmup data is in TFRecord format."
        raise RequestError(Code.DATA_LOSS, text) from None


def _parse(record: bytes, index: int, source: str) -> Any:
    log = PredictionLog()
    try:
        log.ParseFromString(record)
    except DecodeError:
        # The original quotes the record, which is somebody's request.
        raise invalid(f"Failed to parse warmup record: record {index} from {source}") from None
    kind = log.WhichOneof("log_type")
    if kind in _UNSUPPORTED:
        number = PredictionLog.DESCRIPTOR.fields_by_name[kind].number
        raise RequestError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}")
    return log
