"""One connection of wire v2, from the end of the handshake to the answer.

Whatever goes wrong ends in exactly one refusal: recorded, and sent as far as the other side can still read it.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ensconce.appraisal.policy import Acceptance
from ensconce.errors import EnsconceError, EvidenceError, RefusedError, UnreachableError
from ensconce.provisioning.frames import AsyncStream, read_frame_async, write_frame_async
from ensconce.provisioning.judgement import Channel, Judged, judge
from ensconce.provisioning.messages import Challenge, ErrorFields, Kind, Refusal, Request, encode, parse_request
from ensconce.provisioning.refusal_budget import RefusalBudget
from ensconce.provisioning.services import Services, too_often
from ensconce.ratls.binding import NONCE_SIZE
from ensconce.ratls.context import check_channel, exporter, peer_certificate
from ensconce.ratls.verify import key_in_container

__all__ = ["Session"]

_LAST_WORD = 1.0


@dataclass(frozen=True, kw_only=True)
class Session:
    """Serves one connection whose handshake is done.

    Attributes:
        stream: the connection.
        peer: the other side's address, for the log.
        server_spki: the server's leaf key, DER SubjectPublicKeyInfo.
        services: what the server does for it.
        asked: waits until the server has room for a request that has come.
        too_many: this address connects too often, so that its request is refused unread.
    """

    stream: AsyncStream
    peer: str
    server_spki: bytes
    services: Services
    asked: Callable[[], Awaitable[None]]
    too_many: bool = False

    async def run(self) -> None:
        """Serve the connection, to its answer.

        Raises:
            UnreachableError: the other side is gone before it has its answer.
        """
        try:
            channel = self._open()
        except EnsconceError as error:
            # No answer: without ALPN there is no protocol to answer in.
            await self.services.refuse(error, self.peer, "v2", self.services.noise)
            return
        if self.too_many:
            await self._refuse(too_often("address"), "unavailable", self.services.noise)
            return
        try:
            await write_frame_async(self.stream, encode(Challenge(nonce=channel.nonce)))
            request = parse_request(await read_frame_async(self.stream))
        except UnreachableError as error:
            await self._refuse(error, "protocol", self.services.noise)
            return
        await self.asked()
        try:
            appraise = functools.partial(self.services.appraise, self.services.in_force())
            judged = await judge(request, channel, domain=self.services.release.domain, appraise=appraise)
        except EnsconceError as error:
            await self._refuse(error, _kind(error), self.services.doubts)
            return
        await self._answer(judged, request)

    def _open(self) -> Channel:
        connection = self.stream.connection
        check_channel(connection)
        return Channel(
            nonce=os.urandom(NONCE_SIZE),
            exporter=exporter(connection),
            server_spki=self.server_spki,
            client_spki=key_in_container(peer_certificate(connection)),
        )

    async def _answer(self, judged: Judged, request: Request) -> None:
        services, acceptance = self.services, judged.acceptance
        if not services.identities.take(acceptance.identity.name):
            await self._refuse(too_often("identity"), "unavailable", services.hurry, acceptance)
            return
        try:
            prepared = await services.answer(
                lambda now: services.release.prepare(
                    dataclasses.replace(judged, acceptance=now), request.key_ids, self.peer
                ),
                acceptance,
                judged.in_request,
            )
        except EnsconceError as error:
            await self._refuse(error, _kind(error), acceptance=acceptance)
            return
        except ValueError:
            too_long = UnreachableError("provisioning.answer", "the answer does not fit into a message")
            await self._refuse(too_long, "unavailable", acceptance=acceptance)
            return
        services.metrics.releases.labels("v2").inc()
        for check in prepared.withheld:
            services.metrics.refused(check, "v2")
        await write_frame_async(self.stream, prepared.answer)

    async def _refuse(
        self,
        error: EnsconceError,
        kind: Kind,
        budget: RefusalBudget | None = None,
        acceptance: Acceptance | None = None,
    ) -> None:
        await self.services.refuse(error, self.peer, "v2", budget, acceptance)
        told = error if kind != "unavailable" else _unavailable(error)
        # Judging may have taken all the time that there was.
        self.stream.deadline = max(self.stream.deadline, time.monotonic() + _LAST_WORD)
        await write_frame_async(self.stream, encode(Refusal(kind=kind, error=ErrorFields.of(told))))


def _kind(error: EnsconceError) -> Kind:
    if isinstance(error, EvidenceError):
        return "evidence"
    return "policy" if isinstance(error, RefusedError) else "unavailable"


def _unavailable(error: EnsconceError) -> EnsconceError:
    """What a stranger is told about a failure of the owner's own: which check, and no paths, addresses or values."""
    return UnreachableError(
        error.check,
        "the provisioning server cannot decide now, so it releases nothing",
        remedy="try again; the reason is in the owner's log",
    )
