"""Signed policies: none is in force that its owners, and those before them, did not sign.

The first byte says what the rest is: a document of the store, or a file of signatures beside a fixed policy.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ensconce.appraisal.policy_authority import Authority
from ensconce.appraisal.policy_owners import key_name
from ensconce.appraisal.policy_signing import SignedPolicy
from ensconce.errors import InputError, IntegrityError, RefusedError
from fuzz import world
from fuzz.mutation import by_tree
from fuzz.target import Havoc, Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]

_DOCUMENT = 0
_KEYS = [Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"fuzzing: owner %d" % n).digest()) for n in range(3)]
_NAMES = [key_name(key.public_key()) for key in _KEYS]
_AUTHORITY = Authority(owner=_NAMES[0], service=world.DOMAIN)


def check(data: bytes) -> bool:
    """Read a signed policy and try to put it in force; see the module."""
    sort, rest = (data[0] if data else 0), data[1:]
    if sort == _DOCUMENT:
        signed = attempt(lambda: SignedPolicy.from_document(rest), IntegrityError)
    else:
        text = _policies()[1].text.encode()
        signed = attempt(lambda: SignedPolicy.parse(text, "policy.yaml", rest), InputError)
    if isinstance(signed, Refused):
        return False
    holds(SignedPolicy.from_document(signed.to_document()).policy == signed.policy, "a round trip changes the policy")
    rightful = {each.policy.sha256: each.signers for each in _policies()}
    holds(set(signed.signers) <= set(rightful.get(signed.policy.sha256, ())), "a signature that nobody made")
    first = attempt(lambda: _AUTHORITY.admit(signed, None), RefusedError)
    if not isinstance(first, Refused):
        holds(set(first.signers) <= set(signed.signers), "signers that did not sign")
        owners = signed.policy.owners
        wanted = (owners.required, owners.keys) if owners else (1, (_NAMES[0],))
        holds(len(set(signed.signers) & set(wanted[1])) >= wanted[0], "too few owners signed")
        holds(signed.policy.service in (None, world.DOMAIN), "a policy for another service")
    in_force = _AUTHORITY.admit(_policies()[1], None)
    later = attempt(lambda: _AUTHORITY.admit(signed, in_force), RefusedError)
    if not isinstance(later, Refused):
        holds(not isinstance(first, Refused), "refused alone, and not as the next one")
        newer = signed.policy.serial > in_force.policy.serial
        holds(newer or signed.policy.sha256 == in_force.policy.sha256, "an older policy takes the place of a newer one")
        holds(len(set(signed.signers) & set(_NAMES[:2])) == 2, "the owners before did not agree")
    return True


@functools.cache
def _policies() -> list[SignedPolicy]:
    """Of one owner; of two who both must sign; the next one, of two others; older ones, one of them of the same two."""
    head = f"version: 1\nroots: [{world.ROOT.name}]\ntcb_statuses: [UpToDate]\n"
    tail = f'identities:\n  - {{name: digits, mr_enclave: "{"11" * 32}", receives: [model/digits]}}\n'
    both = "serial: 2\nowners: {required: 2, keys: [%s, %s]}\n"
    made = []
    for middle, keys in (
        ("", _KEYS[:1]),
        (both % (_NAMES[0], _NAMES[1]), _KEYS[:2]),
        ((both % (_NAMES[1], _NAMES[2])).replace("serial: 2", "serial: 3"), _KEYS),
        (f"service: {world.DOMAIN}\n", _KEYS[1:2]),
        ((both % (_NAMES[0], _NAMES[1])).replace("serial: 2", "serial: 1"), _KEYS[:2]),
    ):
        signed = SignedPolicy.parse((head + middle + tail).encode(), "policy.yaml")
        made.append(functools.reduce(SignedPolicy.signed_with, keys, signed))
    return made


def _mutate(data: bytes, rng: random.Random, havoc: Havoc) -> bytes:
    return data[:1] + _by_tree(data[1:], rng, havoc)


_by_tree = by_tree(json.loads, lambda tree: json.dumps(tree).encode())


def seeds() -> dict[str, bytes]:
    """Documents of several policies, and a file of signatures."""
    made = {f"good-document-{at}": b"\x00" + each.to_document() for at, each in enumerate(_policies())}
    return made | {"good-signatures": b"\x01" + _policies()[1].signatures_file()}


TARGET = Target("signed-policy", check, seeds, _mutate, max_size=8192)
