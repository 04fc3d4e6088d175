"""Who may look: a token that is exchanged for a cookie, and the names under which the listener is reached."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections import deque
from collections.abc import Callable, Collection
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Final

from cryptography import x509

from ensconce.addresses import Address
from ensconce.errors import InputError
from ensconce.files import read_bounded

__all__ = ["Gate", "is_named", "load_token", "names_in", "new_token"]

_SESSIONS: Final = 16
_LASTS_S: Final = 12 * 3600
_PORT: Final = re.compile(r":[0-9]+\Z")
_MIN_TOKEN, _MAX_TOKEN = 32, 512
_MAX_COOKIE: Final = 4096
_WRONG: Final = 20
_WRONG_S: Final = 60.0


def new_token() -> str:
    """256 random bits, in characters that a URL may have."""
    return secrets.token_urlsafe(32)


def load_token(path: Path) -> str:
    """The token in a file: one line.

    Raises:
        InputError: ``file.*``; ``dashboard.token``: it is empty, short, or not one line of printable ASCII; or others
            may read it.
    """
    mode = path.stat().st_mode if path.exists() else 0
    text = read_bounded(path, _MAX_TOKEN + 2).decode("ascii", "replace").strip()
    if mode & 0o077:
        raise InputError(
            "dashboard.token", f"others may read {path}", found=f"mode {mode & 0o777:o}", remedy=f"chmod 600 {path}"
        )
    if not _MIN_TOKEN <= len(text) <= _MAX_TOKEN or not all(33 <= ord(each) <= 126 for each in text):
        raise InputError(
            "dashboard.token",
            f"{path} has no token",
            found=f"{len(text)} characters",
            rule=f"{_MIN_TOKEN} to {_MAX_TOKEN} printable characters of ASCII without spaces, hard to guess",
            remedy=f"make one: (umask 077; openssl rand -hex 32 > {path})",
        )
    return text


def is_named(host: str, listener: Address, names: Collection[str] | None = None) -> bool:
    """Whether a Host header field names the listener, and nothing that merely resolves to it (DNS rebinding).

    Args:
        host: as sent, RFC 9110 section 7.2.
        listener: where it listens. A wildcard address is named by any IP address: those cannot be rebound.
        names: with TLS, what the certificate is for: whoever uses another name was warned by the browser. None without.
    """
    try:
        # The scheme's own port is left out by browsers.
        named = Address.parse(host if _PORT.search(host) else f"{host}:{80 if names is None else 443}")
    except InputError:
        return False
    if named.port != listener.port:
        return False
    if named.host == listener.host or (names is not None and _covers(names, named.host)):
        return True
    try:
        at = ipaddress.ip_address(listener.host)
    except ValueError:
        return False
    if at.is_loopback and named.host == "localhost":
        return True
    try:
        ipaddress.ip_address(named.host)
    except ValueError:
        return False
    return at.is_unspecified


def names_in(certificate_pem: bytes) -> frozenset[str]:
    """DNS names and IP addresses that the first of these certificates is for (RFC 5280 section 4.2.1.6).

    Raises:
        InputError: ``dashboard.certificate``: it cannot be read, or its names cannot.
    """
    try:
        leaf = x509.load_pem_x509_certificates(certificate_pem)[0]
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    except ValueError as error:
        raise InputError(
            "dashboard.certificate",
            "the names in the dashboard's certificate cannot be read",
            found=str(error)[:200],
            rule="subject alternative names as RFC 5280 section 4.2.1.6 has them",
            remedy="have it issued again",
        ) from None
    dns, addresses = names.get_values_for_type(x509.DNSName), names.get_values_for_type(x509.IPAddress)
    return frozenset([*(each.lower() for each in dns), *map(str, addresses)])


def _covers(names: Collection[str], host: str) -> bool:
    """RFC 9525 section 6.3: a wildcard stands for the whole of the first label."""
    return host in names or ("." in host and f"*.{host.partition('.')[2]}" in names)


class Gate:
    """Gives cookies for the token, and knows them again. For one thread.

    Args:
        token: the secret.
        once: whether it is good for one exchange alone.
        port: of the listener; cookies do not know ports, so their name has it.
        now: seconds, of a monotonic clock.
        secure: whether TLS is spoken.
    """

    def __init__(self, token: str, *, once: bool, port: int, now: Callable[[], float], secure: bool = False) -> None:
        self._token: bytes | None = _digest(token)
        self._once, self._now, self._secure = once, now, secure
        self._name = f"ensconce-dashboard-{port}"
        # Digests, so that a comparison says nothing of the value.
        self._sessions: deque[tuple[bytes, float]] = deque(maxlen=_SESSIONS)
        self._wrong: deque[float] = deque(maxlen=_WRONG)

    @property
    def waits(self) -> bool:
        """Whether so many tokens were wrong within a minute that none is looked at for now."""
        return len(self._wrong) == _WRONG and self._now() - self._wrong[0] < _WRONG_S

    def exchange(self, token: str) -> str | None:
        """The Set-Cookie field for a token; None when it is not the one, or was used, or the gate waits."""
        if self.waits:
            return None
        if self._token is None or not hmac.compare_digest(_digest(token), self._token):
            self._wrong.append(self._now())
            return None
        if self._once:
            self._token = None
        session = new_token()
        self._sessions.append((_digest(session), self._now() + _LASTS_S))
        flags = "; Secure" if self._secure else ""
        return f"{self._name}={session}; Path=/; Max-Age={_LASTS_S}; HttpOnly; SameSite=Strict{flags}"

    def admits(self, cookies: str) -> bool:
        """Whether a Cookie field has a session's value.

        Args:
            cookies: the field as sent, or "".
        """
        if len(cookies) > _MAX_COOKIE:
            return False
        try:
            morsel = SimpleCookie(cookies).get(self._name)
        except CookieError:
            return False
        if morsel is None:
            return False
        given, now, good = _digest(morsel.value), self._now(), False
        for session, ends in self._sessions:
            good |= hmac.compare_digest(given, session) and now < ends
        return good


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
