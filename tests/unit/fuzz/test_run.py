"""What the command makes of what a run said."""

from __future__ import annotations

from fuzz.__main__ import _last, _problem, _quoted

LOG = """\
INFO: Instrumenting ensconce.evidence
#1024\tpulse  cov: 100 ft: 300 corp: 20/2Kb lim: 16384 exec/s: 512 rss: 60Mb
stat::accepted_percent: 12
#2048\tNEW    cov: 125 ft: 330 corp: 21/2Kb lim: 16384 exec/s: 512 rss: 60Mb L: 3/9 MS: 1 Custom-
stat::accepted_percent: 14

 === Uncaught Python exception: ===
InvariantError: a byte of the quote is in no field
Traceback (most recent call last):
==4711== ERROR: libFuzzer: fuzz target exited
"""


def test_the_last_number_counts() -> None:
    assert _last(LOG, r"cov: (\d+)") == 125
    assert _last(LOG, r"stat::accepted_percent: (\d+)") == 14
    assert _last(LOG, r"^#(\d+)\s") == 2048
    assert _last("", r"(\d+)") == 0


def test_what_is_wrong_is_said_in_one_line() -> None:
    assert _problem(LOG, 77) == "InvariantError: a byte of the quote is in no field"
    assert "out-of-memory" in _problem("==1== ERROR: libFuzzer: out-of-memory (used: 2Mb)\n", 71)
    assert _problem("json.decoder.JSONDecodeError: Extra data\n", 77) == "json.decoder.JSONDecodeError: Extra data"
    assert "status 9" in _problem("", 9)


def test_words_for_the_dictionary() -> None:
    assert _quoted(b'a"\xff') == '"\\x61\\x22\\xff"\n'
