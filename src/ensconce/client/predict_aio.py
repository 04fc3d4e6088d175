"""As :mod:`ensconce.client.predict`, on an event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack

import numpy as np
import numpy.typing as npt

from ensconce.appraisal.policy import Policy
from ensconce.client.calls_aio import AsyncCaller
from ensconce.client.channel_aio import AsyncAttestedChannel, connect_async
from ensconce.client.codec import Array
from ensconce.client.codec_examples import Classes
from ensconce.client.conduct import TIMEOUT_S, Conduct
from ensconce.client.hedge import Hedge
from ensconce.client.pool import CONNECTIONS
from ensconce.client.questions import Questions, Steps, Which
from ensconce.client.sealed_grpc_aio import open_async_sealed
from ensconce.client.service import Service, ServiceOptions
from ensconce.client.signatures import Inputs, Signature
from ensconce.errors import EnsconceError

__all__ = ["AsyncClient"]

T = TypeVar("T")


class AsyncClient(Questions):
    """A client of one service, for one event loop. Its methods are those of :class:`ensconce.client.predict.Client`.

    Args:
        channel: see there; so are the others.
        hedge: see there.
        conduct: see there.
    """

    def __init__(
        self, channel: AsyncAttestedChannel, *, hedge: Hedge | None = None, conduct: Conduct | None = None
    ) -> None:
        super().__init__(channel.pool, hedge, conduct)
        self.channel = channel
        self._caller = AsyncCaller(channel, self._conduct)

    @classmethod
    async def connect(
        cls,
        target: str | Sequence[str],
        policy: Path | str | Policy | None,
        *,
        connections: int = CONNECTIONS,
        hedge: Hedge | None = None,
        sealed: bool = False,
        **options: Unpack[ServiceOptions],
    ) -> Self:
        """Connect as :func:`ensconce.client.channel_aio.connect_async` does."""
        if sealed:
            service = await asyncio.to_thread(functools.partial(Service.open, target, policy, **options))
            return cls(await open_async_sealed(service, connections=connections), hedge=hedge)
        return cls(await connect_async(target, policy, connections=connections, **options), hedge=hedge)

    async def signatures(
        self, model: str, *, version: int | None = None, timeout: float = TIMEOUT_S
    ) -> dict[str, Signature]:
        """See :meth:`ensconce.client.predict.Client.signatures`."""
        return await self._run(self._told(model, version), timeout)

    async def predict(
        self,
        model: str,
        inputs: Inputs,
        *,
        outputs: Sequence[str] = (),
        timeout: float = TIMEOUT_S,
        **which: Unpack[Which],
    ) -> dict[str, Array]:
        """See :meth:`ensconce.client.predict.Client.predict`."""
        return await self._run(self._predict(model, inputs, outputs, **which), timeout)

    async def classify(
        self,
        model: str,
        examples: Sequence[Mapping[str, Any]],
        *,
        timeout: float = TIMEOUT_S,
        **which: Unpack[Which],
    ) -> list[Classes]:
        """See :meth:`ensconce.client.predict.Client.classify`."""
        return await self._run(self._classify(model, examples, which), timeout)

    async def regress(
        self,
        model: str,
        examples: Sequence[Mapping[str, Any]],
        *,
        timeout: float = TIMEOUT_S,
        **which: Unpack[Which],
    ) -> npt.NDArray[np.float32]:
        """See :meth:`ensconce.client.predict.Client.regress`."""
        return await self._run(self._regress(model, examples, which), timeout)

    async def close(self) -> None:
        """Close every connection."""
        await self.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def _run(self, steps: Steps[T], timeout: float) -> T:
        """Make the calls that the steps ask for, within a timeout for all of them."""
        deadline = self._conduct.clock() + timeout
        try:
            ask = next(steps)
            while True:
                try:
                    left = deadline - self._conduct.clock()
                    answer = await self._caller.call(ask.path, ask.request, kind=ask.kind, timeout=left)
                except EnsconceError as error:
                    ask = steps.throw(error)
                else:
                    ask = steps.send(answer)
        except StopIteration as end:
            found: T = end.value
            return found
