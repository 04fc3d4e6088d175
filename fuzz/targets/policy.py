"""Policy files: what is accepted is the same policy after it was written and read again.

What YAML itself means is :mod:`fuzz.targets.strict_yaml`.
"""

from __future__ import annotations

import json

from ensconce.appraisal.policy_file import parse_policy
from ensconce.appraisal.policy_text import dump_policy
from ensconce.errors import InputError
from fuzz import world
from fuzz.target import Refused, Target, attempt, holds
from fuzz.targets.strict_yaml import MUTATE, WORDS, load

__all__ = ["TARGET", "check"]


def check(data: bytes) -> bool:
    """Read a policy; see the module."""
    policy = attempt(lambda: parse_policy(data, "policy.yaml"), InputError)
    if isinstance(policy, Refused):
        return False
    holds(policy.roots and policy.tcb_statuses and policy.identities, "a policy for nobody, or for anybody")
    written = dump_policy(policy)
    again = parse_policy(written.encode(), "policy.yaml")
    holds(again == policy, "a round trip changes the policy")
    holds(dump_policy(again) == written, "written twice, it differs")
    return True


def seeds() -> dict[str, bytes]:
    """The least policy, one with every field, and one for nobody."""
    least = f"""\
version: 1  # a comment
roots:
  - {world.ROOT.name}
tcb_statuses: [UpToDate]
identities:
  - name: "digits replica"
    mr_enclave: "{"11" * 32}"
    receives: [model/digits]
"""
    full = f"""\
version: 1
serial: 7
service: digits.example.test
owners:
  required: 2
  keys:
    - ed25519:{"ab" * 32}
    - ed25519:{"cd" * 32}
roots: [intel]
tcb_statuses:
  - UpToDate
  - {{status: SWHardeningNeeded, until: 2027-03-31}}
advisories:
  accept: [INTEL-SA-00615]
  refuse: [INTEL-SA-00828]
min_tcb_evaluation_data_number: 17
platforms:
  - {"0a" * 16}
identities:
  - name: enclave
    mr_enclave: {"1a" * 32}
    attributes:
      flags: {{mask: 0xffffffffffffffff, value: 0x5}}
      xfrm: {{mask: 0x1b, value: 0x3}}
      misc_select: {{mask: 0xffffffff, value: 0x0}}
    receives: [model/digits, secret/license]
    wire_v1: {{secret: model/digits/1, form: hex}}
  - name: guest
    tdx:
      mr_td: {"aa" * 48}
      rtmr1: {"bb" * 48}
      mr_owner: {"cc" * 48}
      td_attributes: {{mask: 0x8000000000000000, value: 0x0}}
    receives: [secret/license]
  - name: by signer
    mr_signer: '{"22" * 32}'
    isv_prod_id: 7
    min_isv_svn: 3
    debug: false
"""
    return {
        "good-least": least.encode(),
        "good-full": full.encode(),
        "good-flow": json.dumps(load(full.encode())).encode(),
        "nobody": b"version: 1\nroots: [intel]\ntcb_statuses: [UpToDate]\nidentities: []\n",
    }


TARGET = Target(
    "policy", check, seeds, MUTATE, max_size=8192, words=(*WORDS, b"identities:", b"receives:", b"mr_enclave:", b"tdx:")
)
