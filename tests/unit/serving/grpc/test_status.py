from __future__ import annotations

import tracemalloc

from ensconce.serving.grpc import status
from ensconce.tfserving.refusal import Code


def test_long_texts_of_strangers_are_not_kept() -> None:
    tracemalloc.start()
    try:
        for index in range(20):
            block = status.trailers_only(Code.INVALID_ARGUMENT, f"{index} " + "x" * 1_000_000)
            assert len(block) < 5_000
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()
