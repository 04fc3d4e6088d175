"""What the provisioning server counts, for Prometheus: a registry of its own, and nothing of a stranger's in labels."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

__all__ = ["Metrics", "Wire"]

Wire = Literal["v1", "v2", "none"]
"""Which protocol a connection speaks; ``none`` before that is known."""

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_CHECK = re.compile(r"[a-z0-9_]{1,32}(?:\.[a-z0-9_]{1,32}){0,4}")


class Metrics:
    """Counters of one server; ``registry`` has them for whoever serves them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.connections = Gauge(
            "ensconce_provisioning_connections",
            "Connections, by what they are doing.",
            ["state"],
            registry=self.registry,
        )
        self.turned_away = Counter(
            "ensconce_provisioning_turned_away_total",
            "Connections that ended for want of a place or for coming too often, before they were heard.",
            ["reason"],
            registry=self.registry,
        )
        self.handshakes = Counter(
            "ensconce_provisioning_handshakes_total", "TLS handshakes, by outcome.", ["outcome"], registry=self.registry
        )
        self.releases = Counter(
            "ensconce_provisioning_releases_total", "Requests that were granted.", ["wire"], registry=self.registry
        )
        self.refusals = Counter(
            "ensconce_provisioning_refusals_total",
            "Requests and connections that were refused, by the check that failed.",
            ["check", "wire"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "ensconce_provisioning_seconds",
            "Time of one step for one connection, waiting for its turn included.",
            ["step"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.policy_serial = Gauge(
            "ensconce_provisioning_policy_serial", "Serial number of the policy in force.", registry=self.registry
        )
        self.policy_refused = Counter(
            "ensconce_provisioning_policy_refused_total",
            "Policies that were offered and not taken.",
            registry=self.registry,
        )
        self.collateral_expiry = Gauge(
            "ensconce_provisioning_collateral_expiry_timestamp_seconds",
            "Earliest end of all collateral behind the last accepted evidence, seconds since 1970.",
            registry=self.registry,
        )
        self.collateral_refused = Gauge(
            "ensconce_provisioning_collateral_refused",
            "Answers of the PCCS that were not taken since the start: not genuine, or older than known.",
            registry=self.registry,
        )
        self.revocations_left_out = Gauge(
            "ensconce_provisioning_revocations_left_out",
            "Certificates that were revoked once, are refused here for good, and are not in the newest list.",
            registry=self.registry,
        )
        self.log_size = Gauge(
            "ensconce_provisioning_log_entries", "Entries under the log's signed head.", registry=self.registry
        )

    @contextlib.contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Count the time of a step that succeeds, waiting for its turn included.

        Args:
            step: ``handshake``, ``collateral``, ``verification``, ``release`` (keys and certificate), ``log``.
        """
        began = time.perf_counter()
        yield
        self.seconds.labels(step).observe(time.perf_counter() - began)

    def refused(self, check: str, wire: Wire) -> None:
        """Something was refused."""
        self.refusals.labels(check if _CHECK.fullmatch(check) else "other", wire).inc()
