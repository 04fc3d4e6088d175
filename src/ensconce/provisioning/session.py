"""One connection of the provisioning server, from the handshake to the answer.

Whatever goes wrong ends in exactly one refusal: recorded, and sent as far as the other side can still read it.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass

from OpenSSL import crypto

from ensconce.appraisal.appraiser import Appraiser
from ensconce.errors import EnsconceError, EvidenceError, RefusedError, UnreachableError
from ensconce.provisioning.frames import read_frame, write_frame
from ensconce.provisioning.judgement import Channel, Judged, judge
from ensconce.provisioning.messages import Challenge, ErrorFields, Kind, Refusal, Request, encode, parse_request
from ensconce.provisioning.refusal_budget import RefusalBudget
from ensconce.provisioning.release import Release
from ensconce.ratls.binding import NONCE_SIZE
from ensconce.ratls.context import check_channel, exporter
from ensconce.ratls.stream import TlsStream
from ensconce.ratls.verify import key_in_container

__all__ = ["Session"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """Serves one connection.

    Attributes:
        stream: the connection, before its handshake; its deadline is that of the handshake.
        peer: the other side's address, for the log.
        server_spki: the server's leaf key, DER SubjectPublicKeyInfo.
        appraiser: judges evidence.
        release: answers and records.
        noise: how many failures of strangers before any evidence are recorded.
        doubts: how many refusals of evidence are recorded; apart, so that noise cannot hide them.
        exchange_time: seconds for everything after the handshake.
    """

    stream: TlsStream
    peer: str
    server_spki: bytes
    appraiser: Appraiser
    release: Release
    noise: RefusalBudget
    doubts: RefusalBudget
    exchange_time: float

    def run(self) -> None:
        """Serve the connection; raises nothing."""
        try:
            try:
                channel = self._open()
            except EnsconceError as error:
                # No answer: without the handshake there is no channel, without ALPN no protocol to answer in.
                self._record(error, self.noise)
            else:
                self._serve(channel)
            # Also after a failed handshake: its alert tells the other side why.
            self.stream.finish()
        except EnsconceError as error:
            _log.info("provisioning connection of %s ended: %s", self.peer, error.check)
        except Exception as error:
            # Its message and its values stay out of the log: they might be anything.
            _log.error("provisioning connection of %s failed inside: %s", self.peer, type(error).__name__)
            unforeseen = EnsconceError("provisioning.bug", "the server failed inside", found=type(error).__name__)
            self._record(unforeseen, self.noise)
        finally:
            self.stream.close()

    def _open(self) -> Channel:
        self.stream.handshake()
        connection = self.stream.connection
        check_channel(connection)
        certificate = connection.get_peer_certificate()
        if certificate is None or connection.get_peer_cert_chain():
            raise EvidenceError("ratls.container", "the client presents no certificate, or more than one")
        return Channel(
            nonce=os.urandom(NONCE_SIZE),
            exporter=exporter(connection),
            server_spki=self.server_spki,
            client_spki=key_in_container(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)),
        )

    def _serve(self, channel: Channel) -> None:
        self.stream.deadline = time.monotonic() + self.exchange_time
        try:
            write_frame(self.stream, encode(Challenge(nonce=channel.nonce)))
            request = parse_request(read_frame(self.stream))
        except UnreachableError as error:
            self._refuse(error, "protocol", self.noise)
            return
        try:
            judged = judge(request, channel, domain=self.release.domain, appraiser=self.appraiser)
        except EnsconceError as error:
            self._refuse(error, _kind(error), self.doubts)
            return
        self._answer(judged, request)

    def _answer(self, judged: Judged, request: Request) -> None:
        try:
            answer = self.release.grant(judged, request.models, self.peer)
        except EnsconceError as error:
            self._refuse(error, _kind(error), judged=judged)
            return
        except ValueError:
            too_long = UnreachableError("provisioning.answer", "the answer does not fit into a message")
            self._refuse(too_long, "unavailable", judged=judged)
            return
        write_frame(self.stream, answer)

    def _refuse(
        self, error: EnsconceError, kind: Kind, budget: RefusalBudget | None = None, judged: Judged | None = None
    ) -> None:
        self._record(error, budget, judged)
        told = error if kind != "unavailable" else _unavailable(error)
        write_frame(self.stream, encode(Refusal(kind=kind, error=ErrorFields.of(told))))

    def _record(self, error: EnsconceError, budget: RefusalBudget | None, judged: Judged | None = None) -> None:
        suppressed = budget.take() if budget is not None else 0
        if suppressed is None:
            return
        try:
            self.release.refuse(error, self.peer, judged, suppressed=suppressed)
        except EnsconceError as failure:
            _log.error("a refusal could not be recorded: %s", failure)


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
