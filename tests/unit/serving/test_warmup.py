from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import pytest

from ensconce.serving.manager import LoadedServable
from ensconce.serving.warmup import MAX_RECORDS, WARMUP_FILE, replay_records, warming_up
from ensconce.tfserving.messages import PredictionLog
from ensconce.tfserving.records import masked_crc32c
from ensconce.tfserving.refusal import Code, RequestError


def record(data: bytes) -> bytes:
    size = struct.pack("<Q", len(data))
    return size + struct.pack("<I", masked_crc32c(size)) + data + struct.pack("<I", masked_crc32c(data))


def log(kind: str, name: str = "m") -> bytes:
    message = PredictionLog()
    part = getattr(message, kind)
    part.SetInParent()
    if hasattr(part, "request"):
        part.request.SetInParent()
        if hasattr(part.request, "model_spec"):
            part.request.model_spec.name = name
    return bytes(message.SerializeToString())


def replayed(data: bytes, **options: Any) -> tuple[int, list[Any]]:
    seen: list[Any] = []
    return replay_records(io.BytesIO(data), "the file", seen.append, **options), seen


def refused(data: bytes) -> tuple[Code, str]:
    with pytest.raises(RequestError) as caught:
        replayed(data)
    return caught.value.code, caught.value.problem


KINDS = ("predict_log", "classify_log", "regress_log", "multi_inference_log")


def test_requests_are_replayed_in_order() -> None:
    count, seen = replayed(b"".join(record(log(kind)) for kind in KINDS))
    assert count == 4
    assert [each.WhichOneof("log_type") for each in seen] == list(KINDS)


@pytest.mark.parametrize(("iterations", "times"), [(3, 3), (1, 1), (0, 1), (-1, 1)])
def test_each_as_often_as_wanted(iterations: int, times: int) -> None:
    count, seen = replayed(record(log("predict_log", "a")) + record(log("predict_log", "b")), iterations=iterations)
    assert count == 2
    assert [each.predict_log.request.model_spec.name for each in seen] == ["a"] * times + ["b"] * times


def test_a_record_without_a_request_does_nothing() -> None:
    assert replayed(record(b"")) == (1, [])
    assert replayed(b"") == (0, [])


def test_a_thousand_records_and_no_more() -> None:
    one = record(log("predict_log"))
    assert replayed(one * MAX_RECORDS)[0] == MAX_RECORDS == 1000
    assert refused(one * (MAX_RECORDS + 1)) == (
        Code.INVALID_ARGUMENT,
        "Number of warmup records exceeds the maximum (1000) at the file",
    )


@pytest.mark.parametrize(("kind", "number"), [("session_run_log", 5), ("predict_streamed_log", 7)])
def test_kinds_that_are_not_replayed(kind: str, number: int) -> None:
    assert refused(record(log(kind))) == (Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}")


def test_what_is_no_request() -> None:
    code, text = refused(record(log("predict_log")) + record(b"\xff a secret"))
    assert (code, text) == (Code.INVALID_ARGUMENT, "Failed to parse warmup record: record 1 from the file")


def test_what_is_no_tfrecord_file() -> None:
    assert refused(b"something else altogether") == (
        Code.DATA_LOSS,
        "corrupted record at 0 (Is this even a TFRecord file?). Please verify your warmup data is in TFRecord format.",
    )
    code, text = refused(record(b"")[:-1])
    assert code is Code.DATA_LOSS
    assert text.endswith(". Please verify your warmup data is in TFRecord format.")


def test_a_request_that_fails_is_told_as_it_is() -> None:
    def replay(_log: Any) -> None:
        raise RequestError(Code.DATA_LOSS, "the model's own")

    with pytest.raises(RequestError) as caught:
        replay_records(io.BytesIO(record(log("predict_log"))), "x", replay)
    assert caught.value.problem == "the model's own"


def test_a_loader_that_warms_up(tmp_path: Path, loading: Any) -> None:
    seen: list[tuple[LoadedServable, Any]] = []
    load = warming_up(loading, lambda loaded, each: seen.append((loaded, each)), iterations=2)
    servable = load("m", 3, tmp_path)
    assert servable.predict("", {}) == {"version": 3}
    assert seen == []
    (tmp_path / WARMUP_FILE).parent.mkdir()
    (tmp_path / WARMUP_FILE).write_bytes(record(log("predict_log", "whatever it is called")))
    servable = load("m", 4, tmp_path)
    assert len(seen) == 2
    loaded, request = seen[0]
    assert (loaded.name, loaded.version, loaded.servable) == ("m", 4, servable)
    assert request.predict_log.request.model_spec.name == "whatever it is called"


def test_a_request_that_fails_fails_the_load(tmp_path: Path, loading: Any) -> None:
    def replay(_loaded: LoadedServable, _log: Any) -> None:
        raise RequestError(Code.INVALID_ARGUMENT, "input size does not match signature")

    (tmp_path / WARMUP_FILE).parent.mkdir()
    (tmp_path / WARMUP_FILE).write_bytes(record(log("predict_log")))
    with pytest.raises(RequestError, match="input size"):
        warming_up(loading, replay)("m", 1, tmp_path)


def test_a_record_that_is_too_long_is_not_read() -> None:
    size = struct.pack("<Q", 1 << 40)
    code, text = refused(size + struct.pack("<I", masked_crc32c(size)))
    assert code is Code.RESOURCE_EXHAUSTED
    assert "1099511627776 bytes" in text
