"""What leads a proxy to replicas, or says why not."""

from __future__ import annotations

import asyncio

import pytest

from ensconce.errors import RefusedError
from ensconce.proxy.upstream import Upstream


async def test_each_call_is_told_the_reason_in_an_error_of_its_own(world, recorder) -> None:
    other = recorder(world.replica(mr_enclave=bytes(32)), alpn=["h2"])
    upstream: Upstream[None] = Upstream(world.service(other.target), "h2", lambda _tunnel: None, lambda _link: None)
    upstream.start()
    try:
        async with asyncio.timeout(10):
            while "" not in upstream.failures():
                await asyncio.sleep(0.005)
        told = []
        for _ in range(2):
            with pytest.raises(RefusedError) as caught:
                upstream.lease()
            told.append(caught.value)
        assert told[0].fields() == told[1].fields()
        assert told[0] is not told[1]
    finally:
        upstream.close()
