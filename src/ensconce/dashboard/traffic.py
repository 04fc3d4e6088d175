"""Which metrics of replicas and of provisioning servers are read, and what is drawn of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ensconce.dashboard.history import Measure, gauge, quantile, rate

__all__ = ["ANSWERED", "LABELS", "MEASURES", "READ", "REFUSALS", "RELEASES", "SERVER_FIELDS", "of_models"]

_LATENCY: Final = ":tensorflow:serving:request_latency"
_REQUESTS: Final = ":tensorflow:serving:request_count"
_QUEUE: Final = "ensconce_serving_queue_seconds"
_INSIDE: Final = "ensconce_serving_requests"
ANSWERED: Final = f"{_LATENCY}_count"
RELEASES: Final = "ensconce_provisioning_releases_total"
REFUSALS: Final = "ensconce_provisioning_refusals_total"
SERVER_FIELDS: Final = tuple(
    f"ensconce_provisioning_{name}"
    for name in (
        "policy_serial",
        "policy_refused_total",
        "collateral_refused",
        "revocations_left_out",
        "collateral_expiry_timestamp_seconds",
    )
)
READ: Final = frozenset(
    {
        *(_REQUESTS, f"{_LATENCY}_bucket", ANSWERED, f"{_QUEUE}_bucket", _INSIDE),
        *(RELEASES, REFUSALS),
        *SERVER_FIELDS,
    }
)
"""Names of all that is read; other metrics are passed over."""

LABELS: Final = frozenset({"API", "check", "le", "status"})
"""Names of the labels that are looked at."""


def of_models(labels: Mapping[str, str]) -> bool:
    """Whether it is about inference: questions for a model's state, such as the dashboard's own, name no API."""
    return labels.get("API", "") != ""


def _failed(labels: Mapping[str, str]) -> bool:
    return labels.get("status") != "OK"


MEASURES: Final[Mapping[str, Measure]] = {
    "answered": rate(ANSWERED, of_models, beside=_INSIDE),
    "failed": rate(_REQUESTS, _failed, beside=_INSIDE),
    "latency half": quantile(_LATENCY, 0.5, of_models),
    "latency 99 %": quantile(_LATENCY, 0.99, of_models),
    "queue half": quantile(_QUEUE, 0.5),
    "queue 99 %": quantile(_QUEUE, 0.99),
    "inside": gauge(_INSIDE),
    "released": rate(RELEASES, beside=SERVER_FIELDS[0]),
    "refused": rate(REFUSALS, beside=SERVER_FIELDS[0]),
}
"""What is drawn, by name. Latency in microseconds, as TensorFlow Serving has it; queues in seconds."""
