"""What an accepted client of wire v1 gets: the one secret that the policy names for it, in the form that it names."""

from __future__ import annotations

import hashlib

from ensconce.appraisal.policy import Acceptance
from ensconce.errors import RefusedError
from ensconce.provisioning.release import Prepared, Release, released
from ensconce.provisioning.wire_v1 import encode_answer, to_form
from ensconce.ratls.gramine import GramineClient

__all__ = ["prepare_v1"]


def prepare_v1(release: Release, client: GramineClient, acceptance: Acceptance, peer: str) -> Prepared:
    """The answer to an accepted client, and what must be recorded before it is sent. May block.

    Args:
        release: the owner's keys.
        client: who asks.
        acceptance: of the quote in its certificate.
        peer: the other side's address, for the log.

    Raises:
        RefusedError: ``policy.wire_v1``, ``policy.receives``, ``key.unknown``, ``key.retired``.
        EnsconceError: the keystore fails.
    """
    identity = acceptance.identity
    if identity.wire_v1 is None:
        raise RefusedError(
            "policy.wire_v1",
            "the policy gives this enclave nothing over Gramine's protocol",
            found=f"identity {identity.name!r}",
            rule="no wire_v1: in this identity",
            remedy="let it speak ensconce/1, or add wire_v1: {secret, form} after reading what that costs",
        )
    key_id = identity.wire_v1.secret
    answer = encode_answer(to_form(release.key(acceptance, key_id), identity.wire_v1.form))
    tls_key = hashlib.sha256(client.spki_der).hexdigest()
    event = released(acceptance, [key_id], peer, "v1", evidence_form=client.form, tls_key_sha256=tls_key)
    return Prepared(answer, (event,))
