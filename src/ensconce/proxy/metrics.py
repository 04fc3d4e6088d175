"""What the proxy counts, for Prometheus: nothing of what clients send or get is in it."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ensconce.errors import EnsconceError
from ensconce.proxy.upstream import Upstream

__all__ = ["Metrics"]

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one proxy; ``registry`` has them for whoever serves them.

    Args:
        upstreams: by protocol, ``grpc`` and ``rest``; what they have now is told as it is asked for.
    """

    def __init__(self, upstreams: Mapping[str, Upstream[object]]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._calls = Counter(
            "ensconce_proxy_calls_total",
            "Calls that ended, by their status.",
            ["protocol", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "ensconce_proxy_call_seconds",
            "From a call's header fields to its end.",
            ["protocol"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._refused = Counter(
            "ensconce_proxy_refused_total",
            "Calls that were not passed on, by the check that failed.",
            ["protocol", "check"],
            registry=self.registry,
        )
        self._of_replicas = Counter(
            "ensconce_proxy_replica_calls_total",
            "Calls by the replica.",
            ["protocol", "replica"],
            registry=self.registry,
        )
        self._seen: dict[str, set[str]] = {protocol: set() for protocol in upstreams}
        self._upstreams = upstreams
        self.registry.register(_Now(upstreams))

    def ended(self, protocol: str, status: str, seconds: float, replica: str, reason: EnsconceError | None) -> None:
        """Count a call.

        Args:
            protocol: ``grpc`` or ``rest``.
            status: the code's name, or HTTP's number.
            seconds: that it took.
            replica: where it went, or "".
            reason: why it was not passed on.
        """
        self._calls.labels(protocol, status).inc()
        self._seconds.labels(protocol).observe(seconds)
        if reason is not None:
            self._refused.labels(protocol, reason.check).inc()
        if replica:
            seen = self._seen[protocol]
            if replica not in seen:
                # Replicas come and go for as long as the proxy runs: those that are gone are told no more.
                for gone in seen - set(self._upstreams[protocol].replicas):
                    self._of_replicas.remove(protocol, gone)
                    seen.discard(gone)
                seen.add(replica)
            self._of_replicas.labels(protocol, replica).inc()


class _Now(Collector):
    """What there is at the moment."""

    def __init__(self, upstreams: Mapping[str, Upstream[object]]) -> None:
        self._upstreams = upstreams

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering does not collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The gauges."""
        ready = GaugeMetricFamily("ensconce_proxy_replicas", "Accepted replicas.", labels=["protocol"])
        connections = GaugeMetricFamily(
            "ensconce_proxy_connections", "Attested connections in the pool.", labels=["protocol", "replica"]
        )
        ends = GaugeMetricFamily(
            "ensconce_proxy_valid_until_seconds",
            "When the certificate or the collateral of a replica ends, seconds since 1970.",
            labels=["protocol", "replica"],
        )
        failures = GaugeMetricFamily(
            "ensconce_proxy_failing_addresses",
            "Addresses where the latest attempt to connect failed, by check.",
            labels=["protocol", "check"],
        )
        for protocol, upstream in self._upstreams.items():
            replicas = upstream.replicas
            ready.add_metric([protocol], len(replicas))
            for replica, number in Counts(seat.replica_id for seat in upstream.seats).items():
                connections.add_metric([protocol, replica], number)
            for replica, accepted in replicas.items():
                ends.add_metric([protocol, replica], accepted.valid_until)
            checks = [error.check for error in upstream.failures().values()]
            for check in sorted(set(checks)):
                failures.add_metric([protocol, check], checks.count(check))
        yield from (ready, connections, ends, failures)
