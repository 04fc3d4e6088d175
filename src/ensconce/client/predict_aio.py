"""As :mod:`ensconce.client.predict`, on an event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, Unpack

import numpy as np
import numpy.typing as npt

from ensconce.appraisal.policy import Policy
from ensconce.client.calls import TIMEOUT_S, Conduct
from ensconce.client.calls_aio import AsyncCaller
from ensconce.client.channel_aio import AsyncAttestedChannel, connect_async
from ensconce.client.codec import METADATA, PREDICT, Array, encode_metadata_request, encode_request, read_response
from ensconce.client.codec_examples import CLASSIFY, REGRESS, Classes, decode_classes, decode_values, encode_examples
from ensconce.client.hedge import Hedge
from ensconce.client.leaf import Accepted
from ensconce.client.pool import CONNECTIONS
from ensconce.client.sealed_grpc_aio import open_async_sealed
from ensconce.client.service import Service, ServiceOptions
from ensconce.client.signatures import Inputs, Signature, Signatures, known, to_arrays
from ensconce.errors import InputError

__all__ = ["AsyncClient"]


class AsyncClient:
    """A client of one service, for one event loop. Its methods are those of :class:`ensconce.client.predict.Client`.

    Args:
        channel: see there; so are the others.
        hedge: see there.
        conduct: see there.
    """

    def __init__(
        self, channel: AsyncAttestedChannel, *, hedge: Hedge | None = None, conduct: Conduct | None = None
    ) -> None:
        self.channel = channel
        self._conduct = conduct or Conduct(hedge=hedge)
        self._caller = AsyncCaller(channel, self._conduct)
        self._signatures = Signatures()

    @property
    def calls(self) -> dict[str, int]:
        """How many calls each replica has answered, by replica id."""
        return self._conduct.answers()

    @property
    def accepted(self) -> dict[str, Accepted]:
        """Every replica that this client is connected to or has asked, by replica id."""
        return self.channel.pool.known

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
        return known(await self._learned(model, version, timeout))

    async def predict(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: int | None = None,
        signature: str = "",
        outputs: Sequence[str] = (),
        timeout: float = TIMEOUT_S,
    ) -> dict[str, Array]:
        """See :meth:`ensconce.client.predict.Client.predict`."""
        arrays = to_arrays(inputs, await self._learned(model, version, timeout), signature)
        request = encode_request(model, arrays, version=version, signature=signature, outputs=outputs)
        found, by = read_response(await self._caller.call(PREDICT, request, kind=model, timeout=timeout))
        self._signatures.answered(model, version, by)
        return found

    async def classify(
        self,
        model: str,
        examples: Sequence[Mapping[str, Any]],
        *,
        version: int | None = None,
        signature: str = "",
        timeout: float = TIMEOUT_S,
    ) -> list[Classes]:
        """See :meth:`ensconce.client.predict.Client.classify`."""
        request = encode_examples(CLASSIFY, model, examples, version=version, signature=signature)
        return decode_classes(await self._caller.call(CLASSIFY, request, kind=model, timeout=timeout))

    async def regress(
        self,
        model: str,
        examples: Sequence[Mapping[str, Any]],
        *,
        version: int | None = None,
        signature: str = "",
        timeout: float = TIMEOUT_S,
    ) -> npt.NDArray[np.float32]:
        """See :meth:`ensconce.client.predict.Client.regress`."""
        request = encode_examples(REGRESS, model, examples, version=version, signature=signature)
        return decode_values(await self._caller.call(REGRESS, request, kind=model, timeout=timeout))

    async def close(self) -> None:
        """Close every connection."""
        await self.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def _learned(self, model: str, version: int | None, timeout: float) -> dict[str, Signature] | None:
        try:
            return self._signatures.get(model, version)
        except KeyError:
            request = encode_metadata_request(model, version)
        try:
            answer = await self._caller.call(METADATA, request, kind="", timeout=timeout)
        except InputError as error:
            self._signatures.untold(model, version, error)
            return None
        return self._signatures.learn(model, version, answer)
