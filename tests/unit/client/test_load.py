from __future__ import annotations

import numpy as np
import pytest

from ensconce.client.load import LoadResult


@pytest.mark.parametrize(("percent", "seconds"), [(0, 1.0), (50, 5.0), (90, 9.0), (91, 10.0), (100, 10.0)])
def test_percentiles_are_latencies_that_were_measured(percent: float, seconds: float) -> None:
    result = LoadResult((), np.arange(10.0, 0.0, -1.0), {}, 10.0)
    assert result.percentile(percent) == seconds
