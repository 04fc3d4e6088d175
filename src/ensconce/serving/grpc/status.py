"""How a call ends on the wire (grpc/doc/PROTOCOL-HTTP2.md): header blocks and trailers, most of them made once."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from ensconce.serving.http2.headers import encode_block
from ensconce.tfserving.refusal import Code

__all__ = ["HEAD", "TRAILERS_OK", "UNSUPPORTED_MEDIA", "WRONG_METHOD", "text_of", "trailers", "trailers_only"]

_CONTENT_TYPE: Final = (b"content-type", b"application/grpc")
# model_servers/grpc_status_util.cc
_LONGEST_TEXT: Final = 1024

HEAD: Final = encode_block([(b":status", b"200"), _CONTENT_TYPE])
TRAILERS_OK: Final = encode_block([(b"grpc-status", b"0")])
UNSUPPORTED_MEDIA: Final = encode_block([(b":status", b"415"), (b"content-length", b"0")])
WRONG_METHOD: Final = encode_block([(b":status", b"405"), (b"allow", b"POST"), (b"content-length", b"0")])


def text_of(text: str) -> str:
    """A status's text as it is sent: cut where TensorFlow Serving cuts it."""
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "...TRUNCATED"


def _fields(code: Code, text: str) -> list[tuple[bytes, bytes]]:
    fields = [(b"grpc-status", str(int(code)).encode())]
    if text:
        fields.append((b"grpc-message", _percent(text_of(text))))
    return fields


def _percent(text: str) -> bytes:
    """Percent-encoding as gRPC has it: all but printable ASCII, and the percent sign."""
    return b"".join(
        bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte
        for byte in text.encode("utf-8", "replace")
    )


def trailers(code: Code, text: str) -> bytes:
    """The block behind an answer that began."""
    return encode_block(_fields(code, text))


def trailers_only(code: Code, text: str, *, encodings: bool = False) -> bytes:
    """The only block of an answer that never began.

    Args:
        code: why.
        text: for whoever reads it.
        encodings: name the encodings of messages that are understood.
    """
    return _trailers_only(code, text_of(text), encodings)


@lru_cache(128)
def _trailers_only(code: Code, text: str, encodings: bool) -> bytes:
    # Texts are cut before they are kept: clients can make them as long as their requests.
    extra = [(b"grpc-accept-encoding", b"identity,gzip")] if encodings else []
    return encode_block([(b":status", b"200"), _CONTENT_TYPE, *_fields(code, text), *extra])
