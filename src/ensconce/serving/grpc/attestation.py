"""``ensconce.Attestation``: fresh quotes for clients that know the exporter of their TLS connection."""

from __future__ import annotations

from typing import Final

from ensconce.serving.grpc.call import Message, Note, Unary
from ensconce.serving.grpc.messages import parse, serialize
from ensconce.serving.quotes import Quotes
from ensconce.tfserving.messages import QuoteRequest, QuoteResponse

__all__ = ["ATTESTATION_SERVICE", "attestation_methods"]

ATTESTATION_SERVICE: Final = "ensconce.Attestation"
_MOST: Final = 100
"""Fields of a question, which has one."""


def attestation_methods(quotes: Quotes) -> dict[str, Unary]:
    """The service's methods by name."""

    async def quote(data: Message, note: Note) -> bytes:
        nonce = parse(QuoteRequest, data, most=_MOST).nonce
        return serialize(QuoteResponse(quote=await quotes.over(note.channel, nonce)))

    return {"Quote": Unary(quote)}
