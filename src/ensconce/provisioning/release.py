"""Acts on a judgement: reads keys, issues the certificate, says what the log must say before the answer may leave.

What cannot be recorded is not released: the answer and the events come together, and the answer goes nowhere before the
events are on disk (invariant I6).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cryptography import x509

from ensconce.appraisal.policy import Acceptance
from ensconce.audit.entry import FieldValue
from ensconce.errors import EnsconceError, InputError, RefusedError
from ensconce.keys.keystore import Keystore
from ensconce.provisioning.judgement import Judged
from ensconce.provisioning.messages import ErrorFields, Grant, RefusedKey, encode
from ensconce.provisioning.recorder import Event
from ensconce.ratls.authority import CertificateAuthority

__all__ = ["Prepared", "Release", "refusal", "released"]


@dataclass(frozen=True)
class Prepared:
    """An answer that is not recorded yet, and so must not be sent.

    Attributes:
        answer: a grant, encoded.
        events: what has to be in the log first.
        withheld: for each key that was asked for and is not in the answer, the check that failed.
    """

    answer: bytes = field(repr=False)
    events: tuple[Event, ...]
    withheld: tuple[str, ...] = ()


@dataclass(frozen=True)
class Release:
    """Answers judged requests out of the owner's keystore. Everything here may block.

    Attributes:
        keystore: where keys are.
        authority: issues serving certificates.
        domain: the service's name.
        now: the clock, seconds since 1970.
        lifetime: of serving certificates, in seconds.
    """

    keystore: Keystore
    authority: CertificateAuthority
    domain: str
    now: Callable[[], int]
    lifetime: int

    def prepare(self, judged: Judged, key_ids: Sequence[str], peer: str) -> Prepared:
        """The answer to a judged request, and what must be recorded before it is sent.

        Args:
            judged: who asks.
            key_ids: the keys that are asked for; none means that a certificate is all that is wanted.
            peer: the other side's address, for the log.

        Raises:
            RefusedError: the identity may receive nothing, or none of the keys can be given.
            EnsconceError: the keystore fails, or the authority has expired.
            ValueError: the answer does not fit into a message.
        """
        acceptance = judged.acceptance
        if not acceptance.identity.receives:
            raise RefusedError(
                "policy.receives",
                "the policy gives this enclave nothing, so it gets no certificate either",
                found=f"identity {acceptance.identity.name!r}",
                rule="receives: []",
                remedy="name what it may receive, such as model/<name>",
            )
        secrets: dict[str, bytes] = {}
        refused: list[tuple[str, EnsconceError]] = []
        for key_id in key_ids:
            try:
                secrets[key_id] = self.key(acceptance, key_id)
            except RefusedError as error:
                refused.append((key_id, error))
        if refused and not secrets:
            raise refused[0][1]
        chain = self.authority.issue_server(
            judged.request.public_key,
            self.domain,
            now=self.now(),
            evidence=judged.request.extension,
            lifetime=self.lifetime,
        )
        answer = encode(
            Grant(
                secrets=secrets,
                certificate_chain=chain.decode("ascii"),
                refused=tuple(RefusedKey(key_id=key_id, error=ErrorFields.of(reason)) for key_id, reason in refused),
            )
        )
        certificate = x509.load_pem_x509_certificate(chain)
        given = released(
            acceptance,
            sorted(secrets),
            peer,
            "v2",
            tls_key_sha256=hashlib.sha256(judged.request.spki_der).hexdigest(),
            certificate_serial=f"{certificate.serial_number:x}",
            certificate_until=int(certificate.not_valid_after_utc.timestamp()),
        )
        events = [refusal(reason, peer, "v2", acceptance, key_id=key_id) for key_id, reason in refused]
        return Prepared(answer, (*events, given), tuple(reason.check for _, reason in refused))

    def key(self, acceptance: Acceptance, key_id: str) -> bytes:
        """A key for an accepted enclave; not recorded.

        Raises:
            RefusedError: ``policy.receives``, ``key.unknown``, ``key.retired``.
            EnsconceError: the keystore fails.
        """
        # First the policy, so that nobody learns from an answer which keys exist.
        identity = acceptance.identity
        if not identity.may_receive(key_id):
            raise RefusedError(
                "policy.receives",
                "the policy does not give this key to this enclave",
                found=f"{key_id} for identity {identity.name!r}",
                rule=f"receives: [{', '.join(identity.receives)}]",
                remedy="name it under receives:, or do not ask for it",
            )
        try:
            return self.keystore.get(key_id)
        except InputError as error:
            if error.check != "key.unknown":
                raise
            raise RefusedError(**error.fields()) from None


def released(acceptance: Acceptance, key_ids: Sequence[str], peer: str, wire: str, **particulars: FieldValue) -> Event:
    """The event of a release.

    Args:
        acceptance: who receives.
        key_ids: what.
        peer: the other side's address.
        wire: over which protocol, ``v1`` or ``v2``.
        particulars: further fields, of the protocol's own.
    """
    verdict = acceptance.verdict
    return Event(
        "key.released",
        {
            "peer": peer,
            "wire": wire,
            "key_ids": list(key_ids),
            **_enclave(acceptance),
            "root": verdict.root,
            "tcb_status": verdict.status.value,
            "advisory_ids": list(verdict.advisory_ids),
            "policy_sha256": acceptance.policy_sha256,
            **particulars,
        },
    )


def refusal(
    error: EnsconceError,
    peer: str,
    wire: str,
    acceptance: Acceptance | None = None,
    *,
    key_id: str | None = None,
    suppressed: int = 0,
) -> Event:
    """The event of a refusal.

    Args:
        error: why.
        peer: the other side's address.
        wire: over which protocol, ``v1``, ``v2``, or ``none`` when it came to none.
        acceptance: who asked, when that is known for certain.
        key_id: the one key that it is about.
        suppressed: refusals of its sort that were not recorded since the last one, because there were too many.
    """
    fields: dict[str, FieldValue] = {**error.fields(), "peer": peer, "wire": wire}
    if key_id is not None:
        fields["key_id"] = key_id
    if suppressed:
        fields["suppressed"] = suppressed
    if acceptance is not None:
        fields |= _enclave(acceptance)
    return Event("key.refused", fields)


def _enclave(acceptance: Acceptance) -> Mapping[str, FieldValue]:
    return {"identity": acceptance.identity.name, **acceptance.report.measurements()}
