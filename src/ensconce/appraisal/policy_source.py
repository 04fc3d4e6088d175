"""What a running server asks for its policy: always one, never an unverified one."""

from __future__ import annotations

import threading

from ensconce.appraisal.policy_authority import AdmittedPolicy
from ensconce.appraisal.policy_store import PolicyStore
from ensconce.errors import IntegrityError, RefusedError

__all__ = ["PolicySource"]


class PolicySource:
    """The policy in force, as of the last look. Safe to share between threads; a look may take a while.

    Args:
        policies: where policies are kept.

    Raises:
        EnsconceError: as :meth:`PolicyStore.in_force`: a server does not begin without a policy.
    """

    def __init__(self, policies: PolicyStore) -> None:
        self._policies = policies
        self._looking = threading.Lock()
        # Before the log is read: what changes in between is looked at again.
        self._seen = policies.document()
        self._current = policies.in_force()
        self._said = ""

    def current(self) -> AdmittedPolicy:
        """The policy to judge by now."""
        return self._current

    def refresh(self) -> AdmittedPolicy | None:
        """Look whether there is another policy; to be called every second or so.

        The log is asked each time: whoever can write the store might hold back the document, or put an older one there
        before anybody has seen the new one, and then a policy that was applied would never be taken.

        Returns:
            The new policy, which is :meth:`current` from now on; None when nothing has changed.

        Raises:
            IntegrityError: ``policy.rollback``, ``policy.unrecorded``, ``policy.document``, ``policy.missing``;
                ``audit.*``.
            RefusedError: ``policy.signatures``, ``policy.service``, ``policy.serial``. These two kinds are raised once
                for each change, so the caller can record them; the current policy stays.
            InputError, UnreachableError: the store or the log cannot be read now; raised for every look that fails.
        """
        with self._looking:
            document = self._policies.document()
            changed = document != self._seen
            try:
                policy = self._policies.follow(document if changed else None, self._current)
            except (IntegrityError, RefusedError) as error:
                said, self._said, self._seen = self._said, str(error), document
                if changed or self._said != said:
                    raise
                return None
            self._said, self._seen = "", document
            if policy is None or policy.policy.sha256 == self._current.policy.sha256:
                return None
            self._current = policy
            return policy
