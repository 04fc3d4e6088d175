"""Has a Sigstore instance sign a statement: a key of minutes, certified for an identity, and the log that keeps it.

All of it is the library's (extra ``sigstore``), which speaks to the instance's certificate authority and log. What they
get, the statement and the identity, is public from then on.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ensconce.errors import EnsconceError, InputError, UnreachableError
from ensconce.files import read_bounded
from ensconce.publication.sigstore import SigstoreIdentity, SigstoreTrust, identity_in, missing

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig
    from sigstore.oidc import IdentityToken

__all__ = ["SigstoreSigner"]

_MAX_CONFIG = 1 << 20
# For certificate, log and timestamps together; who logs in with a browser takes the time he needs.
_SECONDS = 60.0
T = TypeVar("T")


class SigstoreSigner:
    """Signs statements as whoever runs this: in CI as the workflow, else as who logs in with a browser.

    Args:
        config_file: JSON, the client trust configuration of an instance of one's own; Sigstore's public instance,
            whose configuration is fetched, when absent.
        tell: is told, before anything is signed, as whom.

    Raises:
        InputError: ``published.sigstore_missing``; ``publish.instance``; ``file.*``.
        UnreachableError: ``publish.sigstore``: the instance, or its identity provider, does not answer, or refuses.
    """

    def __init__(self, config_file: Path | None, tell: Callable[[str], None]) -> None:
        try:
            import sigstore.oidc  # noqa: F401
            from sigstore.models import ClientTrustConfig
        except ImportError as error:
            raise missing() from error
        self._config: ClientTrustConfig = (
            _asked(lambda: _soon(ClientTrustConfig.production)) if config_file is None else _read(config_file)
        )
        self._root = "Sigstore's public instance" if config_file is None else f"the instance in {config_file}"
        self._token = _asked(lambda: _token(self._config))
        tell(
            f"signing as {self._token.identity} ({self._token.federated_issuer}) at {self._root}; "
            "the list and this identity will be public in its log, for ever"
        )

    def sign(self, statement: bytes) -> dict[str, Any]:
        """The bundle of an in-toto statement, as JSON; it was verified once more.

        Raises:
            UnreachableError: ``publish.sigstore``.
            EvidenceError: ``published.sigstore``: what came back does not verify.
        """
        from sigstore.dsse import Statement
        from sigstore.sign import SigningContext

        def sign() -> str:
            with SigningContext.from_trust_config(self._config).signer(self._token) as signer:
                return signer.sign_dsse(Statement(statement)).to_json()

        bundle: dict[str, Any] = json.loads(_asked(lambda: _soon(sign)))
        self.identity = identity_in(bundle)
        SigstoreTrust.under([self.identity], self._root, lambda: self._config.trusted_root).signer(bundle, statement)
        return bundle

    identity: SigstoreIdentity
    """Whom the last bundle's certificate names: what clients have to trust."""


def _read(path: Path) -> ClientTrustConfig:
    from sigstore.models import ClientTrustConfig

    data = read_bounded(path, _MAX_CONFIG)
    try:
        return ClientTrustConfig.from_json(data.decode())
    except Exception as error:
        raise InputError(
            "publish.instance",
            "this is no client trust configuration of a Sigstore instance",
            found=f"{path}: {type(error).__name__}",
            rule="JSON, application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            remedy="get the file from whoever runs the instance",
        ) from None


def _token(config: ClientTrustConfig) -> IdentityToken:
    from sigstore.oidc import IdentityToken, Issuer, detect_credential

    ambient = detect_credential()
    if ambient is not None:
        return IdentityToken(ambient)
    return Issuer(config.signing_config.get_oidc_url()).identity_token()


def _soon(ask: Callable[[], T]) -> T:
    """What is asked, within a minute; the library itself waits for ever for an instance that says nothing."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(ask())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="sigstore", daemon=True).start()
    try:
        return done.result(_SECONDS)
    except TimeoutError:
        raise TimeoutError(f"no answer within {_SECONDS:g} seconds") from None


def _asked(ask: Callable[[], T]) -> T:
    """What the library does over the network; its errors have no common kind, and never hold the token."""
    try:
        return ask()
    except EnsconceError:
        raise
    except Exception as error:
        cause = error.__cause__ or error.__context__
        told = " from ".join(f"{type(each).__name__}: {' '.join(str(each).split())}" for each in (error, cause) if each)
        raise UnreachableError(
            "publish.sigstore",
            "Sigstore has not signed the list; nothing was published",
            found=told[:400],
            remedy="try again; or publish without --sigstore, for clients that go by the key",
        ) from None
