from __future__ import annotations

import pytest

from ensconce.client.conduct import Conduct
from ensconce.client.hedge import Latencies, check_hedge
from ensconce.errors import InputError


def test_p95_of_the_latest_calls() -> None:
    latencies = Latencies()
    for number in range(19):
        latencies.add(number)
        assert latencies.p95() is None
    for number in range(19, 100):
        latencies.add(number)
    assert latencies.p95() == 94
    for _ in range(1000):
        latencies.add(7.0)
    assert latencies.p95() == 7.0


@pytest.mark.parametrize("hedge", [0, -1.0, "p99", "1", float("nan")])
def test_no_delay(hedge: object) -> None:
    with pytest.raises(InputError) as refused:
        check_hedge(hedge)  # type: ignore[arg-type]
    assert refused.value.check == "client.hedge"


def test_by_what_was_asked() -> None:
    now = [0.0]
    conduct = Conduct(hedge="p95", clock=lambda: now[0])
    for _ in range(20):
        began, now[0] = now[0], now[0] + 2.0
        conduct.done("digits", began, "a")
    assert conduct.delay("digits") == 2.0
    assert conduct.delay("letters") is None
    assert conduct.answers() == {"a": 20}
    assert Conduct(hedge=0.5).delay("digits") == 0.5
    assert Conduct().delay("digits") is None
