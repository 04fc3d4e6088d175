"""Replicas that take sealed bodies, as their own clients and as balancers reach them."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
import pytest

from ensconce.addresses import Address
from ensconce.serving.fronts import FrontOptions
from ensconce.serving.manager import ModelManager
from ensconce.serving.metrics import Metrics
from ensconce.serving.quotes import Quotes
from ensconce.serving.sealing import Sealing
from ensconce.serving.server import ModelServer
from ensconce.tfserving.dtypes import dtype_named
from ensconce.tfserving.signatures import Signature, TensorSpec

FLOAT = TensorSpec("x", dtype_named("DT_FLOAT"), None)
NAME = [("grpc.ssl_target_name_override", "digits.example.test")]


class Doubling:
    signatures: Mapping[str, Signature] = {
        "serving_default": Signature("serving_default", "tensorflow/serving/predict", {"x": FLOAT}, {"y": FLOAT})
    }

    def predict(self, signature_name: str, inputs: Mapping[str, Any], output_filter: Sequence[str] = ()) -> Any:
        return {"y": inputs["x"] * 2}


@dataclasses.dataclass
class Replica:
    server: ModelServer
    sealing: Sealing
    who: Any
    grpc: Address
    rest: Address
    loop: asyncio.AbstractEventLoop

    def channel(self) -> grpc.Channel:
        """TLS to the replica itself, of a client that judges nothing there: what a balancer does."""
        return grpc.secure_channel(str(self.grpc), grpc.ssl_channel_credentials(self.who.chain_pem), NAME)

    def async_channel(self) -> grpc.aio.Channel:
        """The same, on an event loop."""
        return grpc.aio.secure_channel(str(self.grpc), grpc.ssl_channel_credentials(self.who.chain_pem), NAME)

    def renew(self, who: Any) -> None:
        """As a replica does it."""

        async def replace() -> None:
            self.server.replace_certificate(who.key_pem, who.chain_pem)

        asyncio.run_coroutine_threadsafe(replace(), self.loop).result(10)


@pytest.fixture
def replica(world) -> Iterator[Callable[..., Replica]]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    made: list[Replica] = []

    def make(who: Any = None, metrics: Metrics | None = None, quote: Any = None, **options: Any) -> Replica:
        who = who or world.replica()
        manager, sealing = ModelManager(), Sealing(**options)
        manager.add("doubling", 1, Doubling())

        async def start() -> Replica:
            server = ModelServer(
                manager,
                grpc_address="127.0.0.1:0",
                rest_address="127.0.0.1:0",
                private_key_pem=who.key_pem,
                certificate_chain_pem=who.chain_pem,
                options=FrontOptions(sealing=sealing, metrics=metrics, quotes=quote and Quotes(quote)),
            )
            ports = await server.start()
            where = (Address("127.0.0.1", port) for port in (ports.grpc, ports.rest))
            return Replica(server, sealing, who, *where, loop)

        made.append(asyncio.run_coroutine_threadsafe(start(), loop).result(30))
        return made[-1]

    yield make
    for each in made:
        asyncio.run_coroutine_threadsafe(each.server.stop(0), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
