"""Answers requests: the page for whoever has the cookie, the two ways to get one, and two files."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from importlib import resources
from typing import Final
from urllib.parse import parse_qs

from ensconce.addresses import Address
from ensconce.dashboard.auth import Gate, is_named
from ensconce.dashboard.elements import message
from ensconce.dashboard.page import about
from ensconce.dashboard.watcher import Snapshot, Watcher
from ensconce.markup import tag
from ensconce.serving.http1.limits import Http1Limits
from ensconce.serving.http1.messages import HttpError, Request, Response

__all__ = ["LIMITS", "App", "refused"]

LIMITS: Final = Http1Limits(connections=64, body_bytes=2048, server_bytes=1024 * 1024)

_HTML: Final = "text/html; charset=utf-8"
_HEADERS: Final = (
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
)
_FILES: Final = {
    "/static/dashboard.css": "text/css; charset=utf-8",
    "/static/dashboard.js": "text/javascript; charset=utf-8",
}


@dataclass
class App:
    """The application; its attributes are what :mod:`ensconce.dashboard.program` puts together.

    Attributes:
        name: of the service.
        watcher: has what is shown.
        gate: knows who may look.
        listener: where it is reached, with its port.
        with_form: whether the token is typed into a form; otherwise it came in an address.
        now: seconds since 1970.
        names: that the certificate is for; None without TLS.
    """

    name: str
    watcher: Watcher
    gate: Gate
    listener: Address
    with_form: bool
    now: Callable[[], int]
    names: Collection[str] | None = None
    _files: dict[str, bytes] = field(init=False)
    _written: bytes = field(init=False, default=b"")
    _written_of: Snapshot | None = field(init=False, default=None)
    _written_at: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        static = resources.files("ensconce.dashboard").joinpath("static")
        self._files = {path: static.joinpath(path.rpartition("/")[2]).read_bytes() for path in _FILES}

    def answer(self, request: Request) -> Response:
        """The answer to a request.

        Raises:
            HttpError: it is refused.
        """
        if not is_named(request.fields.get("host", ""), self.listener, self.names):
            raise HttpError(421, f"This is {self.listener}, and answers under no other name")
        path, _, query = request.target.partition("?")
        if path == "/enter":
            return self._enter(request, query)
        if request.method not in ("GET", "HEAD"):
            raise HttpError(405, "Only GET is answered here")
        if request.target in _FILES:
            return Response(200, self._files[request.target], _FILES[request.target], _HEADERS)
        if not self.gate.admits(request.fields.get("cookie", "")):
            return self._sign_in(401)
        if request.target == "/":
            return Response(200, self._page(), _HTML, _HEADERS)
        raise HttpError(404, "There is one page: /")

    def _page(self) -> bytes:
        # However many look, it is written once for a moment.
        snapshot, now = self.watcher.snapshot, self.now()
        if snapshot is not self._written_of or now != self._written_at:
            self._written = about(self.name, snapshot, self.watcher.sources, now)
            self._written_of, self._written_at = snapshot, now
        return self._written

    def _enter(self, request: Request, query: str) -> Response:
        given = query
        if self.with_form:
            if request.method == "GET":
                return self._sign_in(200)
            given = request.body.decode("latin-1")
        if request.method != ("POST" if self.with_form else "GET"):
            raise HttpError(405, "That is not how one enters")
        if self.gate.waits:
            raise HttpError(429, "Too many tokens were wrong: none is looked at for a minute")
        try:
            fields = parse_qs(given, max_num_fields=4)
        except ValueError:
            fields = {}
        cookie = self.gate.exchange(fields.get("token", [""])[0].strip())
        if cookie is None:
            return self._sign_in(403, "That token is wrong, or was used before. ")
        return Response(303, headers=(("location", "/"), ("set-cookie", cookie), *_HEADERS))

    def _sign_in(self, status: int, before: str = "") -> Response:
        if not self.with_form:
            text = "Open the address that `ensconce dashboard` printed. It works once; start it again for another."
            return Response(status, message("Not signed in", before + text), _HTML, _HEADERS)
        form = tag(
            "form",
            tag("label", "Token", for_="token"),
            tag(
                "input",
                id="token",
                name="token",
                type="password",
                autocomplete="off",
                maxlength="512",
                required="required",
                autofocus="autofocus",
            ),
            tag("button", "Sign in", type="submit"),
            method="post",
            action="/enter",
        )
        return Response(
            status, message("Sign in", before + "The token is in the file of --token-file.", form), _HTML, _HEADERS
        )


def refused(error: HttpError) -> Response:
    """The answer to what is refused."""
    return Response(error.status, message(f"Error {error.status}", error.problem), _HTML, _HEADERS)
