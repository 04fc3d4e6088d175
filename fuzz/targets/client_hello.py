"""The server name in a ClientHello, which decides where a connection goes.

Oracle: OpenSSL. Where both read a name, it must be the same, or a connection would be routed by another name than the
one that its server sees. And what is read does not depend on how much had arrived when it was asked for.
"""

from __future__ import annotations

import functools
import random
import ssl
from contextlib import suppress

from ensconce.errors import UnreachableError
from ensconce.gateway.clienthello import NEED_MORE, NeedMore, parse_sni
from fuzz import world
from fuzz.target import Havoc, Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]


def check(data: bytes) -> bool:
    """Read the server name; see the module."""
    name = attempt(lambda: parse_sni(data), UnreachableError)
    if isinstance(name, Refused | NeedMore):
        return False
    holds(name is None or (name.isascii() and name == name.lower() and 0 < len(name) <= 253), "no DNS name")
    for end in {0, 1, 5, 6, len(data) // 2, len(data) - 1}:
        # What follows a hello is not its business, so the answer may be there before the end.
        holds(parse_sni(data[: max(end, 0)]) in (NEED_MORE, name), "one answer before the end, another at the end")
    seen = _openssl(data)
    holds(seen is _NOTHING or seen == name, f"OpenSSL sees {seen!r}")
    return True


_NOTHING = object()


def _openssl(data: bytes) -> object:
    """The name that OpenSSL's server is asked about, None for a hello without; ``_NOTHING`` for none that it takes."""
    context, names = _server()
    names.clear()
    received = ssl.MemoryBIO()
    connection = context.wrap_bio(received, ssl.MemoryBIO(), server_side=True)
    received.write(data)
    with suppress(ssl.SSLError):
        connection.do_handshake()
    if not names:
        return _NOTHING
    return names[0].lower() if isinstance(names[0], str) else None


@functools.cache
def _server() -> tuple[ssl.SSLContext, list[str | None]]:
    """A server that notes the name and ends the handshake there; it has no certificate and needs none."""
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def note(_connection: object, name: str | None, _context: object) -> int:
        names.append(name)
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    context.sni_callback = note
    return context, names


def _mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    """Bend one extension, or the message, and put all lengths right; or lay it out in other records."""
    if rng.random() < 0.3:
        return havoc(data)
    message = _message(data)
    if message is None:
        return havoc(data)
    head, extensions = _split(message)
    if extensions and rng.random() < 0.8:
        at = rng.randrange(len(extensions))
        names = [place for place, extension in enumerate(extensions) if extension[:2] == b"\0\0"]
        if names and rng.random() < 0.7:
            at = rng.choice(names)
        kind, value = extensions[at][:2], extensions[at][4:]
        if rng.random() < 0.5 and len(value) > 5:
            name = havoc(value[5:])
            value = (len(name) + 3).to_bytes(2) + b"\0" + len(name).to_bytes(2) + name
        else:
            value = havoc(value)
        extensions[at : at + rng.choice((0, 1, 1, 1))] = [kind + len(value).to_bytes(2) + value]
    else:
        head = havoc(head)
    body = b"".join(extensions)
    if len(body) > 0xFFFF:
        return havoc(data)
    return _records(head + len(body).to_bytes(2) + body, rng.choice((1 << 14, 1 << 14, 200, 100)))


def _message(data: bytes) -> bytes | None:
    """The body of the hello, out of its records."""
    message, at = b"", 0
    while at + 5 <= len(data):
        size = int.from_bytes(data[at + 3 : at + 5])
        message += data[at + 5 : at + 5 + size]
        at += 5 + size
    return message[4:] if len(message) > 60 else None


def _split(message: bytes) -> tuple[bytes, list[bytes]]:
    """What precedes the extensions, and each extension; what is malformed is the head's."""
    at = 34
    for width in (1, 2, 1):
        at += width + int.from_bytes(message[at : at + width])
    head, rest = message[:at], message[at + 2 :]
    extensions = []
    while len(rest) >= 4:
        size = 4 + int.from_bytes(rest[2:4])
        extensions.append(rest[:size])
        rest = rest[size:]
    return head, extensions


def _records(body: bytes, size: int) -> bytes:
    message = b"\x01" + len(body).to_bytes(3) + body
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(part).to_bytes(2) + part for part in parts)


def seeds() -> dict[str, bytes]:
    """Hellos of OpenSSL, for TLS 1.3 and 1.2, with and without a name, whole and in pieces."""
    hello = _hello(world.DOMAIN)
    message = _message(hello)
    assert message is not None
    return {
        "good": hello,
        "good-no-name": _hello(None),
        "good-tls12": _hello("Digits.Example.test", tls12=True),
        "good-pieces": _records(message, 64),
        "begun": hello[:100],
    }


def _hello(name: str | None, *, tls12: bool = False) -> bytes:
    """A hello of OpenSSL's with everything random in it replaced: the same each time."""
    message = _message(world.client_hello(name, tls12=tls12))
    assert message is not None
    head, extensions = _split(message)
    session = 35 + head[34]
    head = head[:2] + bytes(range(32)) + head[34:35] + bytes(range(session - 35)) + head[session:]
    # Extension 51, key_share: the last 32 bytes are a key of X25519.
    fixed = [each[:-32] + bytes(range(32)) if each[:2] == b"\x00\x33" else each for each in extensions]
    body = b"".join(fixed)
    return _records(head + len(body).to_bytes(2) + body, 1 << 14)


TARGET = Target("client-hello", check, seeds, _mutate, max_size=4096, words=(b"\x16\x03\x01", b"\x00\x00", b"\xff\x01"))
