"""Policy files: what is accepted is the same policy after it was written and read again.

What YAML itself means is :mod:`fuzz.targets.strict_yaml`.
"""

from __future__ import annotations

import json
import random
from typing import Any

from ensconce.appraisal.policy_file import parse_policy
from ensconce.appraisal.policy_text import dump_policy
from ensconce.errors import InputError
from fuzz import world
from fuzz.target import Havoc, Refused, Target, attempt, holds
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
    # Lists whose order means nothing are written sorted, so the values may differ, but not what is signed.
    holds(again.to_json_object() == policy.to_json_object(), "a round trip changes the policy")
    holds(again.sha256 == policy.sha256, "a round trip changes what is signed")
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


_ODD = "a|true|null|~|1|0x1|a: b|- a|# a|[a|{a|a'b|a\"b|a\\n|é|🔑|!x|&x|*x|a ,|%|2027-03-31|<<|? a|> a"
"""Names that YAML could take for something else."""


def _mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    """A policy made anew, which is likely to be one; or what there is, bent, which seldom is."""
    if rng.random() < 0.7:
        return MUTATE(data, rng, havoc)
    return json.dumps(_made(rng), ensure_ascii=False).encode()


def _made(rng: random.Random) -> dict[str, Any]:
    """The tree of some policy."""

    def digits(size: int) -> str:
        return rng.choice((rng.randbytes(size).hex(), "1" * 2 * size, "0e" * size))

    def mask(bits: int) -> dict[str, str]:
        value = rng.getrandbits(bits)
        return {"mask": f"{value:#x}", "value": f"{value & rng.getrandbits(bits):#x}"}

    def identity(number: int) -> dict[str, Any]:
        made: dict[str, Any] = {
            "name": f"{rng.choice(_ODD.split('|'))}{number}" if number else rng.choice(_ODD.split("|"))
        }
        if rng.random() < 0.3:
            made["tdx"] = {"mr_td": digits(48), "rtmr0": digits(48), "td_attributes": mask(64), "xfam": mask(64)}
        elif rng.random() < 0.5:
            made |= {"mr_signer": digits(32), "isv_prod_id": rng.getrandbits(16), "min_isv_svn": rng.getrandbits(16)}
        else:
            made["mr_enclave"] = digits(32)
            made["attributes"] = {"flags": mask(64), "xfrm": mask(64), "misc_select": mask(32)}
        optional = {
            "debug": rng.random() < 0.5,
            "receives": ["model/digits", "secret/license"][: rng.randrange(3)],
            "wire_v1": {"secret": "model/digits/1", "form": rng.choice(("raw", "hex"))},
        }
        return made | {name: value for name, value in optional.items() if rng.random() < 0.5}

    advisories = ("INTEL-SA-00615", "SIMULATED-SA-00001", "INTEL-SA-00828")
    day = f"20{rng.randrange(10, 100)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"
    optional = {
        "serial": rng.choice((1, 2, 2**31 - 1)),
        "service": rng.choice(("a.test", "xn--a.test", "1.test")),
        "owners": {"required": 1, "keys": [f"ed25519:{digits(32)}"]},
        "advisories": {"accept": rng.sample(advisories, rng.randrange(3)), "refuse": advisories[2:]},
        "min_tcb_evaluation_data_number": rng.choice((1, 17)),
        "platforms": [digits(16)],
    }
    required = {
        "version": 1,
        "roots": rng.choice((["intel"], [world.ROOT.name], ["intel", world.ROOT.name])),
        "tcb_statuses": ["UpToDate", {"status": rng.choice(("OutOfDate", "SWHardeningNeeded")), "until": day}],
        "identities": [identity(number) for number in range(rng.randrange(1, 4))],
    }
    return required | {name: value for name, value in optional.items() if rng.random() < 0.5}


TARGET = Target(
    "policy",
    check,
    seeds,
    _mutate,
    max_size=8192,
    words=(*WORDS, b"identities:", b"receives:", b"mr_enclave:", b"tdx:"),
)
