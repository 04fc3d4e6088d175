"""The text of a policy file: what :mod:`ensconce.appraisal.policy_file` reads, with comments that explain it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ensconce.appraisal.policy import Policy
from ensconce.appraisal.policy_tcb import status_json

__all__ = ["dump_policy"]


def dump_policy(policy: Policy) -> str:
    """The policy as the text of a policy file."""
    return "\n".join(_lines(policy)) + "\n"


def _lines(policy: Policy) -> Iterator[str]:
    value = policy.to_json_object()
    yield "# Who may receive keys: evidence that no line below names is refused. Unknown fields are errors."
    yield "# Reference: docs/reference/policy.md"
    yield "version: 1"
    yield ""
    yield "# Number of this version: a policy takes effect only in the place of one with a lower number."
    yield f"serial: {policy.serial}"
    if policy.service is not None:
        yield ""
        yield "# The service that this policy is for."
        yield f"service: {policy.service}"
    if policy.owners is not None:
        yield ""
        yield "# Who must sign this policy and the one after it."
        yield "owners:"
        yield f"  required: {policy.owners.required}"
        yield from _list("  keys", policy.owners.keys)
    yield ""
    yield "# Roots that evidence may hang from: intel, or simulated:<SHA-256 of the root certificate>."
    if any(root != "intel" for root in policy.roots):
        yield "# A simulated root protects nothing: whoever has that machine can read every enclave on it."
    yield from _list("roots", policy.roots)
    yield ""
    yield "# States of the platform that are accepted, in Intel's words; all but UpToDate are exceptions, and end."
    yield from _list("tcb_statuses", [_flow(status_json(each)) for each in policy.tcb_statuses])
    if policy.advisories is not None:
        yield ""
        yield "# Security advisories: what is under refuse refuses; if there is accept, so does what is not under it."
        yield "advisories:"
        for name, ids in value["advisories"].items():
            yield f"  {name}: [{', '.join(ids)}]"
    if policy.min_tcb_evaluation_data_number is not None:
        yield ""
        yield "# Collateral from before this TCB recovery is refused."
        yield f"min_tcb_evaluation_data_number: {policy.min_tcb_evaluation_data_number}"
    if policy.platforms is not None:
        yield ""
        yield "# Machines that are accepted, by PPID."
        yield from _list("platforms", [json.dumps(ppid.hex()) for ppid in policy.platforms])
    yield ""
    yield "# Code that is accepted: enclaves by measurement (mr_enclave), or by signer (mr_signer, isv_prod_id,"
    yield "# min_isv_svn), and trust domains (tdx); and what it receives. The first identity that fits counts."
    yield "identities:"
    for identity in value["identities"]:
        yield from _identity(identity)


def _identity(identity: dict[str, Any]) -> Iterator[str]:
    prefix = "  - "
    for field, value in identity.items():
        if field == "receives":
            yield from _list(f"{prefix}receives", value, indent=6)
        elif field in ("attributes", "tdx"):
            yield f"{prefix}{field}:"
            yield from (f"      {name}: {_flow(member)}" for name, member in value.items())
        else:
            comment = "  # the host can read this enclave's memory" if field == "debug" and value else ""
            yield f"{prefix}{field}: {_flow(value) if field == 'wire_v1' else _scalar(value)}{comment}"
        prefix = "    "


def _list(name: str, items: Any, indent: int | None = None) -> Iterator[str]:
    if not items:
        yield f"{name}: []"
        return
    yield f"{name}:"
    blank = " " * (indent if indent is not None else len(name) - len(name.lstrip()) + 2)
    yield from (f"{blank}- {item}" for item in items)


def _flow(value: Any) -> str:
    if not isinstance(value, dict):
        return value if isinstance(value, str) and value.isalpha() else _scalar(value)
    return "{" + ", ".join(f"{name}: {_flow(member)}" for name, member in value.items()) + "}"


def _scalar(value: Any) -> str:
    # Text in quotes: a measurement may hold no letter, a name may hold anything.
    return json.dumps(value, ensure_ascii=False)
