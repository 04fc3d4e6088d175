"""Looks at a replica as any client would: it proves itself on the connection that is then asked."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote, unquote

import httpx

from ensconce import strict_json
from ensconce.addresses import Address
from ensconce.client.leaf import Accepted
from ensconce.client.service import Service
from ensconce.client.transport import open_transport
from ensconce.dashboard.exposition import MAX_PAGE, Reading, parse_metrics
from ensconce.dashboard.traffic import LABELS, READ
from ensconce.errors import EnsconceError, InputError, UnreachableError
from ensconce.web import get_over

__all__ = ["Find", "Place", "Seen", "Version", "look_at", "no_answer"]

_MODEL: Final = re.compile(r"/v1/models/([^/:{}]{1,300})")
_MAX_MODELS: Final = 32
_MAX_VERSIONS: Final = 50
_MAX_JSON: Final = 512 * 1024
_MAX_TEXT: Final = 200
_TIME_S: Final = 8.0
"""For all that an accepted replica is asked at one look."""


@dataclass(frozen=True)
class Place:
    """Where a replica is meant to be.

    Attributes:
        name: what the host calls it.
        address: of its REST API; None while it has none.
        state: what the host says of it, if it says anything.
    """

    name: str
    address: Address | None
    state: str = ""


Find = Callable[[], Sequence[Place]]
"""Says where replicas are now. Raises EnsconceError."""


@dataclass(frozen=True)
class Version:
    """A version of a model, as the replica tells it."""

    model: str
    version: str
    state: str
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a look at a place showed.

    Attributes:
        place: where.
        accepted: why it was accepted; None when it was not.
        error: why it was not.
        reading: its metrics; None when it tells none.
        versions: of its models.
    """

    place: Place
    accepted: Accepted | None = None
    error: EnsconceError | None = None
    reading: Reading | None = None
    versions: tuple[Version, ...] = field(default=())


def look_at(place: Place, service: Service, metrics_path: str) -> Seen:
    """Connect, judge, and ask what an accepted replica tells.

    Args:
        place: where.
        service: whom to believe; its targets are not used.
        metrics_path: where replicas tell metrics, if they do.
    """
    if place.address is None:
        missing = UnreachableError(
            "dashboard.place", "it does not listen", remedy="read the host's logs if this stays so"
        )
        return Seen(place=place, error=missing)
    try:
        transport = open_transport(replace(service, targets=(place.address,)), connections=1)
    except EnsconceError as error:
        return Seen(place=place, error=error)
    deadline = time.monotonic() + _TIME_S
    with httpx.Client(transport=transport, base_url=f"http://{service.server_name}", trust_env=False) as client:
        accepted = next(iter(transport.pool.replicas.values()), None)
        if accepted is None:
            lost = UnreachableError("dashboard.lost", "the connection was lost again", remedy="see the next look")
            return Seen(place=place, error=lost)
        try:
            reading = parse_metrics(get_over(client, metrics_path, MAX_PAGE, no_answer, deadline), READ, LABELS)
        except EnsconceError:
            reading = None
        return Seen(place=place, accepted=accepted, reading=reading, versions=_versions(client, deadline))


def no_answer(problem: str, found: str) -> UnreachableError:
    """A source of the page that is asked and does not tell: ``dashboard.source``."""
    return UnreachableError("dashboard.source", problem, found=found)


def _versions(client: httpx.Client, deadline: float) -> tuple[Version, ...]:
    found: list[Version] = []
    for model in _models(client, deadline):
        answer = _object(client, f"/v1/models/{quote(model, safe='')}", deadline)
        told = answer.get("model_version_status")
        for each in told[:_MAX_VERSIONS] if isinstance(told, list) else []:
            if isinstance(each, dict):
                status = each.get("status")
                problem = status.get("error_message", "") if isinstance(status, dict) else ""
                found.append(Version(model, _text(each.get("version")), _text(each.get("state")), _text(problem)))
    return tuple(found)


def _models(client: httpx.Client, deadline: float) -> list[str]:
    """Names of models, from the API's own description."""
    paths = _object(client, "/openapi.json", deadline).get("paths")
    names: dict[str, None] = {}
    for path in paths if isinstance(paths, dict) else ():
        if (match := _MODEL.match(path)) is not None:
            names[unquote(match[1])[:_MAX_TEXT]] = None
    return list(names)[:_MAX_MODELS]


def _object(client: httpx.Client, path: str, deadline: float) -> dict[str, Any]:
    try:
        value = strict_json.loads(get_over(client, path, _MAX_JSON, no_answer, deadline))
    except (UnreachableError, InputError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return str(value)[:_MAX_TEXT] if isinstance(value, str | int) else ""
