"""SIGSTRUCTs: every byte is in a field, so that writing the fields gives the same bytes again."""

from __future__ import annotations

import datetime as dt
import json

import yaml

from ensconce.enclave.show import Shown, check_signature
from ensconce.errors import EvidenceError
from ensconce.evidence.report import Attributes
from ensconce.evidence.sigstruct import SIGSTRUCT_SIZE, Sigstruct, parse_sigstruct
from fuzz import world
from fuzz.target import Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]


def check(data: bytes) -> bool:
    """Read a SIGSTRUCT and write it again."""
    # Cut or filled up to its size, which anything else is refused for.
    attempt(lambda: parse_sigstruct(data), EvidenceError)
    whole = data[:SIGSTRUCT_SIZE].ljust(SIGSTRUCT_SIZE, b"\0")
    sigstruct = attempt(lambda: parse_sigstruct(whole), EvidenceError)
    if isinstance(sigstruct, Refused):
        return False
    holds(sigstruct.to_bytes() == whole, "a byte is in no field")
    holds(sigstruct.signed == whole[:128] + whole[900:1028], "other bytes are signed")
    holds(f"{sigstruct.date:%m%d}" == f"{int.from_bytes(whole[20:22], 'little'):04x}", "another day")
    # What `ensconce enclave show` says of it, were its signature to hold.
    attempt(lambda: check_signature(sigstruct), EvidenceError)
    shown = Shown(sigstruct, "enclave")
    stanza = yaml.safe_load(shown.stanza())[0]
    holds(stanza == shown.identity().to_json_object(), "the stanza is of another identity")
    holds(stanza["mr_enclave"] == whole[960:992].hex(), "another measurement")
    json.dumps(shown.to_json_object())
    return True


def seeds() -> dict[str, bytes]:
    """A sound one, and one with every number at its largest."""
    sound = Sigstruct(
        vendor=0,
        date=dt.datetime.fromtimestamp(world.NOW, dt.UTC).date(),
        sw_defined=0,
        modulus=bytes(range(256)) + bytes(128),
        exponent=3,
        signature=b"\1" * 384,
        misc_select=0,
        misc_mask=0xFFFFFFFF,
        cet_attributes=0,
        cet_attributes_mask=0,
        isv_family_id=bytes(16),
        attributes=Attributes(4, 3),
        attribute_mask=Attributes(2**64 - 1, 2**64 - 1),
        mr_enclave=b"\x11" * 32,
        isv_ext_prod_id=bytes(16),
        isv_prod_id=7,
        isv_svn=3,
        q1=b"\3" * 384,
        q2=b"\4" * 384,
    ).to_bytes()
    early = sound[:20] + bytes.fromhex("01010100") + sound[24:]
    return {"good": sound, "good-year-1": early, "no-date": sound[:20] + b"\xff" * 4 + sound[24:]}


TARGET = Target("sigstruct", check, seeds, max_size=SIGSTRUCT_SIZE)
