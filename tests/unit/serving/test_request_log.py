from __future__ import annotations

import errno
import io
import json
import threading
from collections.abc import Callable

import pytest

from ensconce.serving.observing import Answered
from ensconce.serving.request_log import LogWriter, RequestLog, sampling_rates
from ensconce.tfserving.messages import ModelServerConfig
from ensconce.tfserving.refusal import Code

ANSWERED = Answered(
    "REST", "Predict", "digits", 3, "serving_default", Code.INVALID_ARGUMENT, 400, 0.0123456789, 10, 20, "[::1]:9"
)


def taking(lines: list[bytes]) -> Callable[[bytes], bool]:
    def take(line: bytes) -> bool:
        lines.append(line)
        return True

    return take


def test_rates_are_the_configurations() -> None:
    config = ModelServerConfig()
    for name, rate in (("a", 0.5), ("b", 7.0), ("c", -1.0), ("d", float("nan"))):
        config.model_config_list.config.add(name=name).logging_config.sampling_config.sampling_rate = rate
    config.model_config_list.config.add(name="e")
    assert sampling_rates(config) == {"a": 0.5, "b": 1.0}


def test_a_line_has_what_it_should_and_nothing_else() -> None:
    lines: list[bytes] = []
    counted: list[tuple[str, str]] = []
    log = RequestLog(
        taking(lines), lambda: {"digits": 1.0}, clock=lambda: 0.0, logged=lambda *each: counted.append(each)
    )
    log.answered(ANSWERED)
    assert lines[0].endswith(b"}\n")
    assert json.loads(lines[0]) == {
        "time": "1970-01-01T00:00:00.000+00:00",
        "peer": "[::1]:9",
        "entrypoint": "REST",
        "method": "Predict",
        "model": "digits",
        "version": 3,
        "signature": "serving_default",
        "code": "INVALID_ARGUMENT",
        "status": 400,
        "seconds": 0.012346,
        "received": 10,
        "sent": 20,
    }
    assert counted == [("digits", "OK")]


def test_what_is_dropped_is_counted_as_that() -> None:
    counted: list[tuple[str, str]] = []
    log = RequestLog(lambda _: False, lambda: {"digits": 1.0}, logged=lambda *each: counted.append(each))
    log.answered(ANSWERED)
    assert counted == [("digits", "RESOURCE_EXHAUSTED")]


@pytest.mark.parametrize(("rate", "lines"), [(0.0, 0), (0.25, 25), (1.0, 100)])
def test_the_share_that_is_logged(rate: float, lines: int) -> None:
    written: list[bytes] = []
    chances = iter(number / 100 for number in range(100))
    log = RequestLog(taking(written), lambda: {"digits": rate}, chance=lambda: next(chances))
    for _ in range(100):
        log.answered(ANSWERED)
    assert len(written) == lines


def test_nothing_is_logged_unless_asked_for() -> None:
    written: list[bytes] = []
    RequestLog(taking(written), lambda: {"other": 1.0}).answered(ANSWERED)
    assert written == []


class Stuck(io.RawIOBase):
    """A pipe that nobody reads, until somebody does."""

    def __init__(self) -> None:
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.lines: list[bytes] = []

    def write(self, data: object) -> int:
        self.entered.set()
        self.go_on.wait(30)
        self.lines.append(bytes(data))  # type: ignore[call-overload]
        return len(self.lines[-1])


def test_a_slow_reader_costs_lines_not_time() -> None:
    file = Stuck()
    writer = LogWriter(file)  # type: ignore[arg-type]
    assert writer.write(b"first")
    assert file.entered.wait(30)
    assert sum(writer.write(b"x") for _ in range(11_000)) == 10_000
    file.go_on.set()
    writer.close(30)
    assert len(file.lines) == 10_001


class Full(io.RawIOBase):
    """A disk that is full for a while."""

    def __init__(self, failures: int) -> None:
        self.failures, self.lines = failures, list[bytes]()

    def write(self, data: object) -> int:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        self.lines.append(bytes(data))  # type: ignore[call-overload]
        return len(self.lines[-1])


def test_a_file_that_fails_is_tried_again_and_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    file = Full(3)
    writer = LogWriter(file)  # type: ignore[arg-type]
    for line in (b"1", b"2", b"3", b"4", b"5"):
        writer.write(line)
    writer.close(30)
    assert file.lines == [b"4", b"5"]
    assert [record.getMessage() for record in caplog.records] == [
        "the request log cannot be written, and goes on when it can: [Errno 28] No space left on device",
        "the request log goes on; up to 3 lines were lost",
    ]


def test_a_file_that_is_closed_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    file = io.BytesIO()
    file.close()
    writer = LogWriter(file)
    writer.write(b"a")
    writer.write(b"b")
    writer.close(30)
    assert len(caplog.records) == 1
