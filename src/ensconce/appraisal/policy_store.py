"""The policy in force, in the store that a deployment's servers share.

The log decides: its ``policy.applied`` entries name every policy that was ever in force, in order. To apply a policy
means to put it by under its fingerprint, to record it, and then to make it the document ``policy``. After a crash
before the record nothing has happened; after one behind it, the policy that was put by is found. Whoever reads follows
the entries from the first policy or from the one he has, and each must be admitted by the one before it, so that
neither a store that was changed nor one owner's word can bring in a policy that the owners did not sign.

A lock keeps two from applying at once, but a database may lose it, or have its administrator take it. So an entry also
says which policy it takes the place of. One that names another than the policy in force came second: it has no effect.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ensconce.appraisal.policy_authority import AdmittedPolicy, Authority
from ensconce.appraisal.policy_signing import SignedPolicy
from ensconce.errors import InputError, IntegrityError, RefusedError
from ensconce.state.store import Store

__all__ = ["DOCUMENT", "PolicyStore", "Record"]

DOCUMENT = "policy"
"""Name of the document that holds the policy in force."""

_log = logging.getLogger(__name__)

_APPLY_AGAIN = (
    "restore the store from a backup, or apply the signed file of that policy again, which puts it by even where "
    "another is in force; and find out who changed the store"
)


@dataclass(frozen=True)
class Record:
    """What the log says of a policy that was applied.

    Attributes:
        serial: its serial.
        sha256: its fingerprint, hexadecimal.
        replaces: fingerprint of the policy that was in force when it was checked, empty where none was; None where the
            log does not say.
    """

    serial: int
    sha256: str
    replaces: str | None = None


class PolicyStore:
    """The policy in force, and how it is replaced.

    Args:
        store: where it is kept.
        authority: who decides what may be in force.
        records: reads the log's ``policy.applied`` entries, oldest first; must have checked the log.
    """

    def __init__(self, store: Store, authority: Authority, records: Callable[[], Sequence[Record]]) -> None:
        self._store = store
        self._authority = authority
        self._records = records

    def document(self) -> bytes | None:
        """The document as it is, unchecked: whoever polls sees whether it changed.

        Raises:
            InputError: ``state.read``.
            UnreachableError: the store cannot be reached.
        """
        return self._store.read(DOCUMENT)

    def in_force(self) -> AdmittedPolicy:
        """The policy in force.

        Raises:
            InputError: ``policy.none``: none was ever applied.
            IntegrityError: ``policy.unrecorded``, ``policy.document``, ``policy.missing``: the store does not hold
                what the log says was applied. A document that is merely older is passed over, with a warning.
            RefusedError: ``policy.signatures``, ``policy.service``, ``policy.serial``: a policy that was applied had
                no right to be.
            UnreachableError: the store, or the log, cannot be reached.
        """
        policy = self.follow(self.document(), None)
        if policy is None:
            raise InputError(
                "policy.none",
                "no policy is in force",
                remedy="write one with `ensconce policy write`, or put one into force with `ensconce policy apply`",
            )
        return policy

    def follow(self, document: bytes | None, known: AdmittedPolicy | None) -> AdmittedPolicy | None:
        """The policy in force according to the log, from the one that is known on; None when none was ever applied.

        Args:
            document: the document, read before this call, so that the log is at least as new.
            known: the policy that was in force when the caller last looked, if he did: then a document that is older
                than the log's last entry is not passed over.

        Raises:
            IntegrityError: as :meth:`in_force`; ``policy.rollback``: the document is older, or the log has lost the
                known policy.
            EnsconceError: as :meth:`in_force`.
        """
        records = list(self._records())
        policy = known
        if known is not None:
            served = [n for n, record in enumerate(records) if record.sha256 == known.policy.sha256]
            if not served:
                raise _rollback("the log no longer has the policy in force", known.policy.sha256, "no such entry")
            del records[: served[0] + 1]
        for record in records:
            if record.replaces is not None and record.replaces != _sha256(policy):
                _log.warning("policy.applied of serial %d came second to another, and has no effect", record.serial)
                continue
            policy = self._authority.admit(self._put_by(record), policy)
        self._check_document(document, policy, strict=known is not None)
        return policy

    def apply(self, signed: SignedPolicy, record: Callable[[AdmittedPolicy, str], object]) -> AdmittedPolicy:
        """Put a policy into force; the very one in force is made the document again, unrecorded.

        A policy that was in force before is put by again with its signatures, should the store have lost them; then it
        is refused, unless it is in force.

        Args:
            signed: the policy with its signatures.
            record: writes the log's ``policy.applied``, with the fingerprint of the policy that it takes the place of,
                empty where there is none; the policy takes effect only after it returns.

        Raises:
            RefusedError: ``policy.serial`` (also where another policy was applied at the same moment),
                ``policy.service``, ``policy.signatures``.
            EnsconceError: as :meth:`in_force`, or whatever ``record`` raises; then nothing has changed.
        """
        with self._store.locked(DOCUMENT) as slot:
            # Whatever the document says: to apply a policy is the remedy for one that was changed.
            self._put_back(signed)
            current = self.follow(None, None)
            admitted = self._authority.admit(signed, current)
            document = admitted.signed.to_document()
            if current is None or current.policy.sha256 != admitted.policy.sha256:
                with self._store.locked(_put_by_name(admitted.policy.sha256)) as put_by:
                    put_by.write(document)
                record(admitted, _sha256(current))
                if _sha256(self.follow(None, None)) != admitted.policy.sha256:
                    raise RefusedError(
                        "policy.serial",
                        "another policy was applied at the same moment, and is in force",
                        found=f"serial: {admitted.policy.serial}",
                        remedy="see which with `ensconce policy show`; raise the serial, and sign the policy anew",
                    )
            slot.write(document)
        return admitted

    def _put_back(self, signed: SignedPolicy) -> None:
        for record in self._records():
            if record.sha256 != signed.policy.sha256:
                continue
            with self._store.locked(_put_by_name(record.sha256)) as slot:
                try:
                    kept = self._put_by(record)
                except IntegrityError:
                    kept = replace(signed, signatures=())
                if not set(signed.signers) <= set(kept.signers):
                    slot.write(replace(signed, signatures=kept.signatures + signed.signatures).to_document())

    def _put_by(self, record: Record) -> SignedPolicy:
        document = self._store.read(_put_by_name(record.sha256))
        if document is None:
            raise IntegrityError(
                "policy.missing",
                "a policy that was applied is not in the store",
                rule=f"the log's policy.applied: serial {record.serial}, sha256 {record.sha256}",
                remedy=_APPLY_AGAIN,
            )
        try:
            signed = SignedPolicy.from_document(document)
        except IntegrityError as error:
            raise error.altered(rule=f"serial {record.serial}, sha256 {record.sha256}", remedy=_APPLY_AGAIN) from error
        if (signed.policy.serial, signed.policy.sha256) != (record.serial, record.sha256):
            raise IntegrityError(
                "policy.document",
                "a stored policy is not the one that was applied",
                found=f"serial {signed.policy.serial}, sha256 {signed.policy.sha256}",
                rule=f"the log's policy.applied: serial {record.serial}, sha256 {record.sha256}",
                remedy=_APPLY_AGAIN,
            )
        return signed

    def _check_document(self, document: bytes | None, policy: AdmittedPolicy | None, strict: bool) -> None:
        if document is None:
            return
        stored = SignedPolicy.from_document(document).policy
        if policy is not None and stored.sha256 == policy.policy.sha256:
            return
        found = f"serial {stored.serial}, sha256 {stored.sha256}"
        rule = "the log has no policy.applied"
        if policy is not None:
            rule = f"the log's last policy.applied: serial {policy.policy.serial}, sha256 {policy.policy.sha256}"
            if stored.serial < policy.policy.serial:
                if strict:
                    raise _rollback("an older policy was put back", found, rule)
                # A crash between the record and the document looks like this, too.
                _log.warning("the stored policy is older than the log's last policy.applied, which counts (%s)", found)
                return
        raise IntegrityError(
            "policy.unrecorded",
            "the stored policy was never applied",
            found=found,
            rule=rule,
            remedy="apply the policy that you mean with `ensconce policy apply`, and find out who changed the store",
        )


def _sha256(policy: AdmittedPolicy | None) -> str:
    return "" if policy is None else policy.policy.sha256


def _put_by_name(sha256: str) -> str:
    return f"policies/{sha256}"


def _rollback(problem: str, found: str, rule: str) -> IntegrityError:
    return IntegrityError(
        "policy.rollback",
        problem,
        found=found,
        rule=rule,
        remedy="apply the policy that you mean with `ensconce policy apply`, and find out who changed the store",
    )
