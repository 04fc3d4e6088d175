"""``ensconce.Attestation``: fresh quotes for clients that know the exporter of their TLS connection, and the key that
requests are sealed to."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from ensconce.serving.fresh_keys import FreshKeys
from ensconce.serving.grpc.call import Message, Note, Unary
from ensconce.serving.grpc.messages import parse, serialize
from ensconce.serving.quotes import Quotes
from ensconce.tfserving.messages import QuoteRequest, QuoteResponse, SealingKeyRequest, SealingKeyResponse

__all__ = ["ATTESTATION_SERVICE", "attestation_methods"]

ATTESTATION_SERVICE: Final = "ensconce.Attestation"
_MOST: Final = 100
"""Fields of a question, which has one."""


def attestation_methods(quotes: Quotes | None, keys: FreshKeys | None) -> dict[str, Unary]:
    """The service's methods by name, as far as there is what answers them."""
    methods = {}

    async def quote(data: Message, note: Note) -> bytes:
        assert quotes is not None
        nonce = parse(QuoteRequest, data, most=_MOST).nonce
        return serialize(QuoteResponse(quote=await quotes.over(note.channel, nonce)))

    async def sealing_key(data: Message, _note: Note) -> bytes:
        assert keys is not None
        nonce = parse(SealingKeyRequest, data, most=_MOST).nonce
        return serialize(SealingKeyResponse(**asdict(await keys.statement(nonce))))

    if quotes is not None:
        methods["Quote"] = Unary(quote)
    if keys is not None:
        methods["SealingKey"] = Unary(sealing_key)
    return methods
