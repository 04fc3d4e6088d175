"""Sigstore bundles of a statement: signed by an identity, with a certificate of minutes, and held by a public log.

The library of that name (extra ``sigstore``) verifies them from what is in them alone: the certificate's chain and its
timestamp of a certificate log, the signature, the entry in the transparency log with its inclusion proof and signed
checkpoint, and that the log saw it while the certificate was good. Whom a bundle has to be from is given by identity
and issuer, both in full (https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509

from ensconce.audit.entry import canonical
from ensconce.errors import EnsconceError, EvidenceError, InputError
from ensconce.files import read_bounded
from ensconce.publication.dsse import PAYLOAD_TYPE
from ensconce.trail import held

if TYPE_CHECKING:
    from sigstore.models import Bundle, TrustedRoot
    from sigstore.verify import Verifier

__all__ = ["MAX_BUNDLE", "SigstoreIdentity", "SigstoreTrust", "identity_in", "missing"]

MAX_BUNDLE = 1 << 18
"""Longest bundle in bytes, as canonical JSON."""

_MAX_ROOT = 1 << 20
_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")


@dataclass(frozen=True)
class SigstoreIdentity:
    """Who signed, as an identity provider has it.

    Attributes:
        identity: of the certificate's subjectAltName: an email address, or the URI of a workflow.
        issuer: the identity provider, its URL.
    """

    identity: str
    issuer: str

    def __post_init__(self) -> None:
        if not (0 < len(self.identity) <= 400 and 0 < len(self.issuer) <= 400 and str(self).isprintable()):
            raise InputError(
                "published.publisher",
                "this is no identity with its issuer",
                found=ascii(str(self))[:200],
                rule="an email address or a workflow's URI, and the URL of its identity provider",
            )

    def __str__(self) -> str:
        return f"{self.identity} ({self.issuer})"


@dataclass(frozen=True)
class SigstoreTrust:
    """Identities that are believed, under the root of one Sigstore instance. Safe to share between threads.

    Attributes:
        identities: whose bundles are believed; at least one.
        root: the instance, for people: Sigstore's public one, or a file.
        verifier: the library's, with the instance's trusted root.
    """

    identities: tuple[SigstoreIdentity, ...]
    root: str
    verifier: Verifier

    @classmethod
    def load(cls, identities: Sequence[SigstoreIdentity], root_file: Path | None = None) -> SigstoreTrust:
        """Trust identities under Sigstore's public instance, or under another one. Nothing is fetched.

        Args:
            identities: at least one.
            root_file: the trusted root of an instance of one's own, JSON; without, the public instance's, as the
                library's cache of this user has it, else as it came with the library.

        Raises:
            InputError: ``published.sigstore_missing``: the library is not installed; ``published.trust_root``.
        """
        try:
            from sigstore.models import ClientTrustConfig, TrustedRoot
        except ImportError as error:
            raise missing() from error
        if root_file is not None:
            data = read_bounded(root_file, _MAX_ROOT)
            root = f"a root of one's own, not Sigstore's: {root_file}, SHA-256 {hashlib.sha256(data).hexdigest()}"
            return cls.under(identities, root, lambda: TrustedRoot.from_file(str(root_file)))
        public = "Sigstore's public instance"
        # It warns that it fetches nothing, each time; that is what is asked of it.
        logging.getLogger("sigstore._internal.tuf").setLevel(logging.ERROR)
        return cls.under(identities, public, lambda: ClientTrustConfig.production(offline=True).trusted_root)

    @classmethod
    def under(cls, identities: Sequence[SigstoreIdentity], root: str, load: Callable[[], TrustedRoot]) -> SigstoreTrust:
        """Trust identities under the trusted root that ``load`` gives; raises as :meth:`load`."""
        from sigstore.verify import Verifier

        try:
            verifier = Verifier(trusted_root=load())
        except Exception as error:
            raise InputError(
                "published.trust_root",
                "this is no trusted root of a Sigstore instance",
                found=f"{root[:200]}: {_told(error)}",
                rule="JSON, application/vnd.dev.sigstore.trustedroot+json",
                remedy="get the file from whoever runs the instance",
            ) from None
        return cls(tuple(identities), root, verifier)

    def signer(self, bundle: Mapping[str, Any], payload: bytes) -> SigstoreIdentity:
        """Who of the identities signed ``payload``, as a bundle proves.

        Args:
            bundle: JSON, as :func:`ensconce.strict_json.loads` gave it.
            payload: the statement that it has to be about, to the byte.

        Raises:
            EvidenceError: ``published.sigstore``: it does not verify, or is about something else;
                ``published.identity``: its certificate is somebody else's.
        """
        parsed = _parsed(bundle)
        claimed = _names(parsed)
        identity = next((each for each in self.identities if (each.identity, each.issuer) in claimed), None)
        trusted = ", ".join(map(str, self.identities))
        if identity is None:
            raise EvidenceError(
                "published.identity",
                "nobody whom you trust has signed this",
                found=", ".join(f"{name} ({issuer})" for name, issuer in claimed)[:300]
                or "a certificate without a name",
                rule=f"signed by {trusted[:400]}",
                remedy="get it again from its publisher, and the publisher's identity from a source that you trust",
            )
        found = self._verified(parsed, identity)
        if found != (PAYLOAD_TYPE, payload):
            raise _unverified("it is about something else than this list")
        held("published.identity", "publisher's identity", found=str(identity), rule=f"one of {trusted}")
        held(
            "published.sigstore", "certificate, and entry in the transparency log", found=_where(parsed), rule=self.root
        )
        return identity

    def _verified(self, bundle: Bundle, identity: SigstoreIdentity) -> tuple[str, bytes]:
        from sigstore.verify import policy

        wanted = policy.Identity(identity=identity.identity, issuer=identity.issuer)
        try:
            return self.verifier.verify_dsse(bundle, wanted)
        except Exception as error:
            # Not only the library's own: what strangers put into certificates fails in many ways, and each is a no.
            raise _unverified(_told(error), self.root) from None


def identity_in(bundle: Mapping[str, Any]) -> SigstoreIdentity:
    """Whom a bundle names as its signer; nothing of it is verified.

    Raises:
        EvidenceError: ``published.sigstore``: it is none, or does not name exactly one.
    """
    parsed = _parsed(bundle)
    names = _names(parsed)
    if len(names) != 1:
        raise _unverified("its certificate does not name one identity and its issuer")
    return SigstoreIdentity(*names[0])


def missing() -> InputError:
    """The error where the library is not installed."""
    return InputError(
        "published.sigstore_missing",
        "identities need the library of Sigstore, which is not installed",
        remedy="pip install 'ensconce[sigstore]'; or go by a key (--publisher)",
    )


def _parsed(bundle: Mapping[str, Any]) -> Bundle:
    try:
        from sigstore.models import Bundle
    except ImportError as error:
        raise missing() from error
    data = canonical(bundle)
    if len(data) > MAX_BUNDLE:
        raise _unverified("it is too long", f"at most {MAX_BUNDLE} bytes")
    try:
        return Bundle.from_json(data)
    except Exception as error:
        raise _unverified(_told(error)) from None


def _names(bundle: Bundle) -> list[tuple[str, str]]:
    """Names in the certificate, each with their issuer, as the library's own policy reads them."""
    try:
        extensions = bundle.signing_certificate.extensions
        san = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [*san.get_values_for_type(x509.RFC822Name), *san.get_values_for_type(x509.UniformResourceIdentifier)]
        issuer = extensions.get_extension_for_oid(_ISSUER).value
        assert isinstance(issuer, x509.UnrecognizedExtension)
        return [(name, issuer.value.decode()) for name in names]
    except x509.ExtensionNotFound:
        return []
    except Exception as error:
        raise _unverified(_told(error)) from None


def _where(bundle: Bundle) -> str:
    entry = bundle.log_entry._inner
    return f"entry {entry.log_index} of the log {entry.log_id.key_id.hex()[:16]}"


def _told(error: Exception) -> str:
    # A validation error repeats the whole of what was given.
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def _unverified(found: str, rule: str | None = None) -> EnsconceError:
    return EvidenceError(
        "published.sigstore",
        "the Sigstore bundle does not prove who signed this",
        found=found,
        rule=rule,
        remedy="get it again from its publisher; if all bundles fail, the trusted root here may be older than the log "
        "that they are in: python -m sigstore plumbing update-trust-root",
    )
