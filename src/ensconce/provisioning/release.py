"""Acts on a judgement: reads keys, issues the certificate, writes the log; only then is there an answer.

What cannot be recorded is not released: when the log fails, so does the answer (invariant I6).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography import x509

from ensconce.audit.log import AuditLog
from ensconce.errors import EnsconceError, InputError, RefusedError
from ensconce.keys.keystore import Keystore
from ensconce.provisioning.judgement import Judged
from ensconce.provisioning.messages import ErrorFields, Grant, ModelVersion, RefusedKey, encode
from ensconce.ratls.authority import CertificateAuthority

__all__ = ["Release"]


@dataclass(frozen=True)
class Release:
    """Answers judged requests out of the owner's keystore.

    Attributes:
        keystore: where keys are.
        authority: issues serving certificates.
        audit: where every release and every refusal goes first.
        domain: the service's name.
        now: the clock, seconds since 1970.
        lifetime: of serving certificates, in seconds.
    """

    keystore: Keystore
    authority: CertificateAuthority
    audit: AuditLog
    domain: str
    now: Callable[[], int]
    lifetime: int

    def grant(self, judged: Judged, models: Sequence[ModelVersion], peer: str) -> bytes:
        """The framed answer to a judged request, recorded already.

        Args:
            judged: who asks.
            models: whose keys are asked for; none means that a certificate is all that is wanted.
            peer: the other side's address, for the log.

        Returns:
            A grant, encoded.

        Raises:
            RefusedError: the identity may receive nothing, or none of the keys can be given; not recorded yet.
            EnsconceError: the keystore or the log fails.
        """
        identity = judged.acceptance.identity
        if not identity.receives:
            raise RefusedError(
                "policy.receives",
                "the policy gives this enclave nothing, so it gets no certificate either",
                found=f"identity {identity.name!r}",
                rule="receives: []",
                remedy="name what it may receive, such as model/<name>",
            )
        secrets: dict[str, bytes] = {}
        refused: list[tuple[str, EnsconceError]] = []
        for model in models:
            try:
                secrets[model.key_id] = self._key(judged, model.key_id)
            except RefusedError as error:
                refused.append((model.key_id, error))
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
        for key_id, reason in refused:
            self.refuse(reason, peer, judged, key_id)
        self._record(judged, sorted(secrets), chain, peer)
        return answer

    def refuse(
        self,
        error: EnsconceError,
        peer: str,
        judged: Judged | None = None,
        key_id: str | None = None,
        suppressed: int = 0,
    ) -> None:
        """Record a refusal.

        Args:
            error: why.
            peer: the other side's address.
            judged: who asked, when that is known for certain.
            key_id: the one key that it is about.
            suppressed: refusals of its sort that were not recorded since the last one, because there were too many.

        Raises:
            EnsconceError: the log fails.
        """
        fields: dict[str, str | int] = dict(error.fields())
        if key_id is not None:
            fields["key_id"] = key_id
        if suppressed:
            fields["suppressed"] = suppressed
        if judged is not None:
            fields |= _identity(judged)
        self.audit.append("key.refused", peer=peer, **fields)

    def _key(self, judged: Judged, key_id: str) -> bytes:
        # First the policy, so that nobody learns from an answer which keys exist.
        identity = judged.acceptance.identity
        if not identity.may_receive(key_id):
            raise RefusedError(
                "policy.receives",
                "the policy does not give this key to this enclave",
                found=f"{key_id} for identity {identity.name!r}",
                rule=f"receives: [{', '.join(identity.receives)}]",
                remedy="name the model under receives:, or do not ask for it",
            )
        try:
            return self.keystore.get(key_id)
        except InputError as error:
            if error.check != "key.unknown":
                raise
            raise RefusedError(**error.fields()) from None

    def _record(self, judged: Judged, key_ids: list[str], chain: bytes, peer: str) -> None:
        verdict = judged.acceptance.verdict
        certificate = x509.load_pem_x509_certificate(chain)
        self.audit.append(
            "key.released",
            peer=peer,
            key_ids=key_ids,
            **_identity(judged),
            isv_prod_id=judged.acceptance.report.isv_prod_id,
            isv_svn=judged.acceptance.report.isv_svn,
            root=verdict.root,
            tcb_status=verdict.status.value,
            advisory_ids=list(verdict.advisory_ids),
            policy_sha256=judged.acceptance.policy_sha256,
            tls_key_sha256=hashlib.sha256(judged.request.spki_der).hexdigest(),
            certificate_serial=f"{certificate.serial_number:x}",
            certificate_until=int(certificate.not_valid_after_utc.timestamp()),
        )


def _identity(judged: Judged) -> dict[str, str]:
    return {
        "identity": judged.acceptance.identity.name,
        "mr_enclave": judged.acceptance.report.mr_enclave.hex(),
        "mr_signer": judged.acceptance.report.mr_signer.hex(),
    }
