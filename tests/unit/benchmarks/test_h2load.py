"""What h2load writes, as it writes it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from benchmarks.serving import h2load
from benchmarks.serving.h2load import LoadError, Target, parse_log, received, run
from benchmarks.serving.results import Request

# Of nghttp2 1.52.
SUMMARY = """\
finished in 2.06ms, 1939.86 req/s, 341.41KB/s
requests: 4 total, 4 started, 4 done, 4 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 4 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 704B (704) total, 120B (120) headers (space savings 52.00%), 496B (496) data
                     min         max         mean         sd        +/- sd
time for request:      265us       612us       402us       148us    75.00%
"""


def test_every_line_is_a_request_in_order_of_its_end() -> None:
    log = "1795437239000100\t200\t900\n1795437239000000\t200\t500\n"
    assert parse_log(log) == [Request(1795437239.0, 0.0005), Request(1795437239.0001, 0.0009)]
    assert parse_log("") == []


def test_later_columns_are_passed_over() -> None:
    assert parse_log("1000000\t200\t5\tmore\n") == [Request(1.0, 5e-6)]


@pytest.mark.parametrize("line", ["", "1\t2", "a\tb\tc", "1 200 3"])
def test_what_is_no_log_is_refused(line: str) -> None:
    with pytest.raises(LoadError, match="not a line"):
        parse_log(line + "\n")


@pytest.mark.parametrize("status", ["503", "0", "-1"])
def test_one_answer_that_is_none_spoils_the_run(status: str) -> None:
    with pytest.raises(LoadError, match=f"status {status}"):
        parse_log(f"1\t200\t3\n1\t{status}\t3\n")


def test_bytes_of_answers_are_those_without_headers() -> None:
    assert received(SUMMARY) == 496
    with pytest.raises(LoadError, match="no traffic"):
        received("h2load: no such option\n")


@pytest.fixture
def as_h2load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in h2load's place that writes a log of four lines and the summary, and its arguments to a file."""
    said = tmp_path / "arguments"
    program = tmp_path / "h2load"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"open({str(said)!r}, 'w').write('\\n'.join(sys.argv))\n"
        "[log] = [each.partition('=')[2] for each in sys.argv if each.startswith('--log-file=')]\n"
        "open(log, 'w').write('1000000\\t200\\t5\\n' * 4)\n"
        f"print({SUMMARY!r})\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return said


def test_a_run_is_asked_for_as_it_is_measured(as_h2load: Path) -> None:
    target = Target("https://a.example/X", b"body", "127.0.0.1:1", ("te: trailers",), answer=124)
    assert len(run(target, 2, 4)) == 4
    said = as_h2load.read_text().split("\n")
    assert said[-1] == "https://a.example/X"
    assert {"-c", "2", "-n", "4", "--connect-to=127.0.0.1:1", "te: trailers"} < set(said)
    assert "--h1" not in said


def test_missing_answers_are_noticed(as_h2load: Path) -> None:
    with pytest.raises(LoadError, match="4 of 8 answers"):
        run(Target("http://a.example/", b""), 2, 8)


def test_calls_that_failed_have_no_message_and_are_noticed(as_h2load: Path) -> None:
    with pytest.raises(LoadError, match="some calls failed"):
        run(Target("http://a.example/", b"", answer=200), 2, 4)


def test_a_target_without_a_known_answer_takes_any(as_h2load: Path) -> None:
    assert h2load.run(Target("http://a.example/", b"", http1=True), 2, 4)
    assert "--h1" in as_h2load.read_text()
