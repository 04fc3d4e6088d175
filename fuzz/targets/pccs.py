"""Answers of a PCCS: whatever is taken out of one is what stands in it, byte for byte.

What was signed is the text of a member as it stands there, so it is cut out and not written anew. Oracle: Python's own
JSON, of the whole and of what was cut out.
"""

from __future__ import annotations

import json

import httpx

from ensconce.appraisal import pccs
from ensconce.appraisal.http import Answer
from ensconce.errors import UnreachableError
from fuzz import world
from fuzz.mutation import by_tree
from fuzz.target import Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]

_URL = "https://pccs.test/sgx/certification/v4/tcb"
_HEADER = "TCB-Info-Issuer-Chain"
_MEMBERS = ("tcbInfo", "enclaveIdentity")


def check(data: bytes) -> bool:
    """Take a body for each kind of answer, and for a header."""
    body = Answer(_URL, httpx.Headers(), data)
    accepted = False
    for member in _MEMBERS:
        signed = attempt(lambda: pccs._signed(body, member), UnreachableError)  # noqa: B023  # called at once
        if isinstance(signed, Refused):
            continue
        accepted = True
        text, signature = signed
        value = json.loads(data)
        holds(text.encode() in data, "another text than the one that stands there")
        holds(json.loads(text) == value[member] or value[member] != value[member], "another member")
        holds(bytes.fromhex(value["signature"]) == signature, "another signature")
    crl = attempt(lambda: pccs._crl(body), UnreachableError)
    if not isinstance(crl, Refused):
        accepted = True
        holds(crl == data or crl.hex() in data.decode("ascii").lower().translate(_NO_SPACE), "another list")
    header = data.decode("latin-1").replace("\r", "").replace("\n", "").replace("\0", "")
    headers = Answer(_URL, httpx.Headers({_HEADER.encode(): header.encode("latin-1")}), b"")
    chain = attempt(lambda: pccs._chain(headers, _HEADER), UnreachableError)
    # It is written into JSON, and given to a parser of PEM, as text.
    holds(isinstance(chain, Refused) or json.loads(json.dumps(chain)) == chain, "a chain that is no text")
    return accepted


_NO_SPACE = str.maketrans("", "", " \t\n\r\f\v")


def seeds() -> dict[str, bytes]:
    """Each kind of answer as a PCCS gives it."""
    sound = world.collateral()
    made = {
        "good-tcb": b'{"tcbInfo":%s,"signature":"%s"}'
        % (sound.tcb_info.encode(), sound.tcb_info_signature.hex().encode()),
        "good-identity": b'{ "signature" : "00ff" , "enclaveIdentity" : {"a": [1, {}]} }',
        "good-crl": sound.pck_crl,
        "good-crl-hex": sound.root_ca_crl.hex().encode(),
        "twice": b'{"tcbInfo":{},"tcbInfo":{},"signature":""}',
    }
    return made


TARGET = Target("pccs", check, seeds, by_tree(json.loads, lambda tree: json.dumps(tree).encode()), max_size=4096)
