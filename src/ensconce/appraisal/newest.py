"""No way back: TCB info and QE identity older than what was already seen are refused.

An old answer is genuine for a month, and whoever stands between can replay it to hide a TCB recovery. What was seen is
remembered in a store, for each root and kind of platform: the evaluation data numbers and the dates of issue. Numbers
are compared across all kinds of platform that a document is for; dates only within one kind, because Intel's machines
sign anew all the time, and answer with documents some minutes apart.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

from ensconce import strict_json
from ensconce.appraisal.vetting import Vetted
from ensconce.errors import EvidenceError, IntegrityError
from ensconce.state.store import Store

__all__ = ["NEWEST", "Newest"]

NEWEST = "collateral/newest"
"""Name of the document: ``{"version": 1, "seen": {root: {platform: {member: seconds or number}}}}``."""

_MEMBERS = ("tcb_number", "tcb_issued", "qe_number", "qe_issued")

_Seen = dict[str, dict[str, dict[str, int]]]


class Newest:
    """What was seen, in memory and in a store. Safe to share between threads; processes share the store.

    What this process saw it remembers, so that a store which is put back to an earlier state takes nothing from it.

    Args:
        store: where the document is.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._seen: _Seen = {}

    def admit(self, vetted: Vetted) -> None:
        """Refuse what is older than what was seen; remember it otherwise.

        Args:
            vetted: what is to be used next.

        Raises:
            EvidenceError: ``collateral.rollback``.
            IntegrityError: ``collateral.newest``: the document cannot be read.
            InputError: the store cannot be written.
            UnreachableError: the store cannot be reached.
        """
        platform, found = vetted.platform, _marks(vetted)
        with self._lock, self._store.locked(NEWEST) as slot:
            stored = _read(slot.read())
            self._learn(stored)
            of_root = self._seen.setdefault(vetted.root, {})
            least = dict(of_root.get(str(platform), {}))
            for name, other in of_root.items():
                if name.startswith(f"{platform.tee}-"):
                    least["qe_number"] = max(least.get("qe_number", 0), other["qe_number"])
                if name.startswith(f"{platform.tee}-{platform.fmspc}-"):
                    least["tcb_number"] = max(least.get("tcb_number", 0), other["tcb_number"])
            _refuse_older(vetted, least)
            seen = self._seen | {vetted.root: of_root | {str(platform): found}}
            if stored != seen:
                slot.write(json.dumps({"version": 1, "seen": seen}, sort_keys=True).encode())
            self._seen = seen

    def check_kept(self, vetted: Vetted) -> None:
        """Refuse what was kept for a kind of platform when there was something newer for the same kind.

        Raises:
            EvidenceError: ``collateral.rollback``.
            IntegrityError: ``collateral.newest``: the document cannot be read.
            InputError: the store cannot be read.
            UnreachableError: the store cannot be reached.
        """
        with self._lock:
            self._learn(_read(self._store.read(NEWEST)))
            _refuse_older(vetted, self._seen.get(vetted.root, {}).get(str(vetted.platform), {}))

    def _learn(self, stored: _Seen) -> None:
        for root, marks in stored.items():
            of_root = self._seen.setdefault(root, {})
            for platform, read in marks.items():
                known = of_root.get(platform, read)
                of_root[platform] = {member: max(known[member], read[member]) for member in _MEMBERS}


def _marks(vetted: Vetted) -> dict[str, int]:
    return {
        "tcb_number": vetted.papers.tcb_info.evaluation_number,
        "tcb_issued": vetted.papers.tcb_info.issued,
        "qe_number": vetted.papers.qe_identity.evaluation_number,
        "qe_issued": vetted.papers.qe_identity.issued,
    }


def _refuse_older(vetted: Vetted, least: Mapping[str, int]) -> None:
    for member, value in _marks(vetted).items():
        if value < least.get(member, 0):
            what = "TCB info" if member.startswith("tcb") else "QE identity"
            raise EvidenceError(
                "collateral.rollback",
                f"the {what} is genuine, but older than what was already seen for {vetted.platform}",
                found=f"{member} {value}",
                rule=f"at least {least[member]}",
                remedy="let the PCCS refresh what it has; if it has, somebody may be replaying old answers",
            )


def _read(data: bytes | None) -> _Seen:
    if data is None:
        return {}
    try:
        value: Any = strict_json.loads(data)
        if not isinstance(value, dict) or set(value) != {"version", "seen"} or value["version"] != 1:
            raise ValueError("its members are others, or its version is")
        seen: _Seen = value["seen"]
        for of_root in seen.values():
            for marks in of_root.values():
                if set(marks) != set(_MEMBERS) or not all(type(mark) is int for mark in marks.values()):
                    raise ValueError("an entry is malformed")
    except (ValueError, AttributeError, TypeError) as error:
        raise IntegrityError(
            "collateral.newest",
            "what collateral was seen cannot be read",
            found=str(error)[:200],
            rule="an object of version 1 with seen",
            remedy=f"restore the document `{NEWEST}` of the state from a backup; removing it forgets what was seen",
        ) from error
    return seen
