"""How much a DER structure says beside its evidence: a bound on what reading it can cost, before it is read.

Reading X.509 makes an object of each name in it. Five bytes are enough for a name, and evidence alone needs to be long.
"""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["length_beside"]

_BOOLEAN, _OCTET_STRING, _OID = 0x01, 0x04, 0x06
_CONSTRUCTED = 0x20
_LONG_TAG = 0x1F


def length_beside(der: bytes, oids: Collection[bytes], most: int) -> int:
    """The length of a DER structure (X.690) without the octet strings that follow certain object identifiers.

    So an extension's value (RFC 5280, 4.1: identifier, critical, octet string) does not count. Octet strings and bit
    strings are not looked into.

    Args:
        der: anything.
        oids: contents of object identifiers, without tag and length.
        most: counting ends beyond it, and what comes after is not looked at.

    Raises:
        ValueError: it is not DER, or uses tags that X.509 does not.
    """
    total = 0
    spans = [(0, len(der))]
    while spans:
        at, end = spans.pop()
        named = False
        while at < end:
            tag = der[at]
            content, after = _content(der, at, end)
            total += content - at
            if tag & _CONSTRUCTED:
                spans.append((content, after))
            elif not (named and tag == _OCTET_STRING):
                total += after - content
            if total > most:
                return total
            named = der[content:after] in oids if tag == _OID else named and tag == _BOOLEAN
            at = after
    return total


def _content(der: bytes, at: int, end: int) -> tuple[int, int]:
    """Where the content of the element at ``at`` begins and ends."""
    if der[at] & _LONG_TAG == _LONG_TAG or end - at < 2:
        raise ValueError("not the DER of X.509")
    first = der[at + 1]
    content = at + 2 + (first & 0x7F if first & 0x80 else 0)
    if first == 0x80 or content > min(end, at + 6):
        raise ValueError("not the DER of X.509")
    after = content + (int.from_bytes(der[at + 2 : content], "big") if first & 0x80 else first)
    if after > end:
        raise ValueError("not the DER of X.509")
    return content, after
