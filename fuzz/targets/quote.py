"""Quotes: taken apart to the last byte, so that putting the parts together gives the same bytes again.

Oracle: dcap-qvl. It reads more kinds of quotes than we do; what both read, they must read alike.
"""

from __future__ import annotations

import json
import struct

import dcap_qvl  # type: ignore[import-untyped]  # it has stubs, but no py.typed

from ensconce.appraisal.pck import read_pck
from ensconce.errors import EvidenceError
from ensconce.evidence.quote import Quote, parse_quote
from ensconce.evidence.report import SgxReport
from fuzz import world
from fuzz.mutation import by_parts
from fuzz.target import Refused, Target, attempt, holds

__all__ = ["TARGET", "check", "encode", "join", "shapes", "split"]

_BODIES = {384: 1, 584: 2, 648: 3, 885: 4}


def check(data: bytes) -> bool:
    """Read a quote; see the module."""
    quote = attempt(lambda: parse_quote(data), EvidenceError)
    if isinstance(quote, Refused):
        return False
    holds(encode(quote) == data, "a byte of the quote is in no field")
    json.dumps([quote.body.to_json_object(), quote.body.debug])
    _compare(quote, data)
    attempt(lambda: read_pck(quote), EvidenceError)
    return True


def _compare(quote: Quote, data: bytes) -> None:
    try:
        other = dcap_qvl.parse_quote(data)
    except ValueError:
        return
    holds(other.is_tdx() == (quote.tee == "tdx"), "another kind of environment to dcap-qvl")
    holds(other.header.version == quote.header.version, "another version to dcap-qvl")
    base = other.report
    while hasattr(base, "base"):
        base = base.base
    names = ("mr_enclave", "mr_signer") if isinstance(quote.body, SgxReport) else ("mr_td",)
    for name in (*names, "report_data"):
        if hasattr(base, name):
            holds(bytes(getattr(base, name)) == getattr(quote.body, name), f"another {name} to dcap-qvl")


def encode(quote: Quote) -> bytes:
    """The bytes of a quote, from nothing but its fields."""
    header = quote.header
    parts = [
        struct.pack(
            "<HHIHH16s20s",
            header.version,
            header.attestation_key_type,
            header.tee_type,
            header.qe_svn,
            header.pce_svn,
            header.qe_vendor_id,
            header.user_data,
        ),
        quote.body.to_bytes(),
        quote.signature,
        quote.attestation_key,
        quote.qe_report.to_bytes(),
        quote.qe_report_signature,
        quote.qe_auth_data,
        quote.certification_type.to_bytes(2, "little"),
        quote.certification_data,
    ]
    return join(parts)


def split(data: bytes) -> list[bytes] | None:
    """The parts of a quote without the lengths between them; None for what is not read."""
    try:
        quote = parse_quote(data)
    except EvidenceError:
        return None
    return [
        data[:48],
        quote.body.to_bytes(),
        quote.signature,
        quote.attestation_key,
        quote.qe_report.to_bytes(),
        quote.qe_report_signature,
        quote.qe_auth_data,
        quote.certification_type.to_bytes(2, "little"),
        quote.certification_data,
    ]


def join(parts: list[bytes]) -> bytes:
    """A quote of such parts, every length as the version in the header wants it."""
    header, body, signature, key, qe_report, qe_signature, auth, kind, chain = parts
    version = int.from_bytes(header[:2], "little")
    if version == 5:
        body = struct.pack("<HI", _BODIES.get(len(body), 0), len(body)) + body
    inner = (
        qe_report + qe_signature + struct.pack("<H", len(auth)) + auth + kind + struct.pack("<I", len(chain)) + chain
    )
    if version > 3:
        inner = struct.pack("<HI", 6, len(inner)) + inner
    inner = signature + key + inner
    return header + body + struct.pack("<I", len(inner)) + inner


def shapes() -> dict[str, bytes]:
    """A quote of every version and kind; only that of version 3 is really signed."""
    sound = world.quote()
    parts = split(sound)
    assert parts is not None
    made = {"good-sgx-3": sound}
    for version in (4, 5):
        header = version.to_bytes(2, "little") + parts[0][2:]
        made[f"good-sgx-{version}"] = join([header, *parts[1:]])
    made["good-tdx-4"] = world.td_quote(584)
    made |= {f"good-tdx-5-{size}": world.td_quote(size, 5) for size in (584, 648, 885)}
    return made


TARGET = Target("quote", check, shapes, by_parts(split, join))
