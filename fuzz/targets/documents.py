"""TCB info and QE identity: signed by the vendor, but read before the signature is checked.

Oracle: Python's own JSON. Unknown members are tolerated, so what is accepted must say what that reader sees. And what
is accepted is signed here and used: a vendor's document in an odd condition may be refused, and may say of a platform
only what one of its levels says.
"""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from typing import Any, Literal

from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.documents import read_qe_identity, read_tcb_info
from ensconce.errors import EvidenceError
from ensconce.platform.simulated.certificates import sign_raw
from fuzz import world
from fuzz.mutation import by_tree
from fuzz.target import Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]

_TEES: tuple[Literal["sgx", "tdx"], ...] = ("sgx", "tdx")


def check(data: bytes) -> bool:
    """Read both documents out of any text, for both kinds of environment."""
    # Text as JSON gives it: it may hold halves of surrogate pairs.
    text = data.decode("utf-8", "surrogatepass") if _is_text(data) else data.decode("latin-1")
    accepted = False
    for tee in _TEES:
        for read in (read_tcb_info, read_qe_identity):
            document = attempt(lambda: read(text, tee), EvidenceError)  # noqa: B023  # called at once
            if isinstance(document, Refused):
                continue
            accepted = True
            value = json.loads(text)
            holds(document.evaluation_number == value["tcbEvaluationDataNumber"], "another number")
            holds(-62_135_596_800 <= document.issued < document.next_update, "no such times")
            kind = {"SGX": "sgx", "TDX": "tdx", "QE": "sgx", "TD_QE": "tdx"}
            holds(kind[value["id"]] == tee, "a document for another kind of environment")
            _use(text, value, tee)
    return accepted


def _use(text: str, value: dict[str, Any], tee: Literal["sgx", "tdx"]) -> None:
    """Verify a sound quote with the document, signed."""
    signature = sign_raw(world.VENDOR.tcb_signer.key, text.encode())
    which = "qe_identity" if value["id"].endswith("QE") else "tcb_info"
    changes: dict[str, Any] = {which: text, f"{which}_signature": signature}
    papers = replace(world.collateral(tee), **changes)
    verdict = attempt(lambda: verify_quote(_quote(tee), papers, at=world.NOW, root=world.ROOT), EvidenceError)
    if not isinstance(verdict, Refused) and which == "tcb_info":
        said = {level["tcbStatus"] for level in value["tcbLevels"]}
        modules = {level["tcbStatus"] for each in value.get("tdxModuleIdentities", []) for level in each["tcbLevels"]}
        holds(verdict.status.value in said | modules, "a status that no level has")


@functools.cache
def _quote(tee: Literal["sgx", "tdx"]) -> bytes:
    return world.quote() if tee == "sgx" else world.td_quote(584)


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def seeds() -> dict[str, bytes]:
    """Both documents, for SGX and for TDX."""
    made: dict[str, bytes] = {}
    for tee in _TEES:
        sound = world.collateral(tee)
        made |= {f"good-tcb-info-{tee}": sound.tcb_info.encode(), f"good-qe-identity-{tee}": sound.qe_identity.encode()}
    return made


TARGET = Target("documents", check, seeds, by_tree(json.loads, lambda tree: json.dumps(tree).encode()))
