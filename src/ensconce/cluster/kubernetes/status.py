"""How the replicas of a deployment are: what the cluster says of each, and what the replica itself proves.

The two are kept apart. Pod, node, readiness and the measurement that was meant to run are the cluster's words. Verdict,
measurement, certificate and requests come over a connection that the policy accepted, or there are none.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import httpx
from cryptography import x509

from ensconce.addresses import Address
from ensconce.appraisal.appraiser import Appraiser
from ensconce.client.attested import connect_tls
from ensconce.client.rest import http_client
from ensconce.cluster.kubernetes import kubectl
from ensconce.errors import EnsconceError, EvidenceError, InputError, UnreachableError
from ensconce.evidence.report import SgxReport
from ensconce.times import utc_text

__all__ = [
    "MEASUREMENT",
    "METRICS",
    "Client",
    "Proved",
    "Replica",
    "Way",
    "directly",
    "prove",
    "read_pods",
    "through_kubectl",
]

MEASUREMENT = "ensconce/mr-enclave"
DOMAIN = "ensconce/domain"
METRICS = "ensconce/metrics-path"

_REQUESTS = ":tensorflow:serving:request_count{"
_MAX_PAGE = 4 * 1024 * 1024
_AT_ONCE = 8
_PATH = re.compile(r"/[A-Za-z0-9._/-]{1,200}")
_MAX_DIGITS = 18


@dataclass(frozen=True, kw_only=True)
class Replica:
    """What the cluster says of one replica.

    Attributes:
        pod: name of the pod.
        namespace: of the pod.
        node: on which node it is; None before it is on one.
        phase: Kubernetes' word for where it is in its life; ``Terminating`` when it is to go.
        ready: kubelet found it ready.
        restarts: of its container.
        address: of the pod.
        ports: by name.
        domain: the service's name.
        measurement: MRENCLAVE that is meant to run there.
        metrics_path: where it tells metrics.
    """

    pod: str
    namespace: str
    node: str | None
    phase: str
    ready: bool
    restarts: int
    address: str | None
    ports: dict[str, int]
    domain: str | None
    measurement: str | None
    metrics_path: str | None


@dataclass(frozen=True, kw_only=True)
class Proved:
    """What a replica has proved, or why it has not.

    Attributes:
        error: why it was not accepted or not reached; None when it was accepted.
        replica: names its key.
        identity: the policy's name for it.
        measurement: MRENCLAVE in its evidence.
        root: whose platform it is on.
        status: of the platform, in Intel's words.
        not_after: end of its certificate.
        requests: that it has counted since its start, all models and codes together; None where it tells no metrics.
    """

    error: EnsconceError | None = None
    replica: str | None = None
    identity: str | None = None
    measurement: str | None = None
    root: str | None = None
    status: str | None = None
    not_after: str | None = None
    requests: int | None = None

    def to_json_object(self) -> dict[str, Any]:
        """As ``--json`` shows it."""
        fields = {name: value for name, value in vars(self).items() if name != "error"}
        return {"accepted": self.error is None, **fields, "error": self.error.fields() if self.error else None}


@dataclass(frozen=True)
class Client:
    """Who judges.

    Attributes:
        appraiser: under the client's policy.
        authority: the owner's.
    """

    appraiser: Appraiser
    authority: x509.Certificate


Way = Callable[[Replica, tuple[int, ...]], AbstractContextManager[dict[int, Address]]]
"""Opens a way to some ports of a replica's pod; gives an address for each port."""


def read_pods(pods: Iterable[dict[str, Any]]) -> list[Replica]:
    """The replicas among pods, by name.

    Raises:
        InputError: ``kubectl.pods``: a pod is not what Kubernetes writes.
    """
    try:
        found = [_replica(pod) for pod in pods]
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise InputError("kubectl.pods", "a pod lacks what every pod has", found=type(error).__name__) from error
    return sorted((each for each in found if each.domain is not None), key=lambda each: each.pod)


def _replica(pod: dict[str, Any]) -> Replica:
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
    notes = meta.get("annotations", {})
    container: dict[str, Any] = next((each for each in spec["containers"] if each["name"] == "replica"), {})
    metrics = _text(notes.get(METRICS))
    if metrics is not None and not _PATH.fullmatch(metrics):
        raise ValueError(METRICS)
    address = _text(status.get("podIP"))
    states = [each for each in status.get("containerStatuses", []) if each["name"] == "replica"]
    return Replica(
        pod=_text(meta["name"]) or "",
        namespace=_text(meta["namespace"]) or "",
        node=_text(spec.get("nodeName")),
        phase="Terminating" if "deletionTimestamp" in meta else _text(status.get("phase")) or "Unknown",
        ready=any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", [])),
        restarts=sum(int(each.get("restartCount", 0)) for each in states),
        address=None if not address else str(ipaddress.ip_address(address)),
        ports={each["name"]: _port(each["containerPort"]) for each in container.get("ports", [])},
        domain=_text(notes.get(DOMAIN)),
        measurement=_text(notes.get(MEASUREMENT)),
        metrics_path=metrics,
    )


def _text(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _port(value: object) -> int:
    if type(value) is not int or not 0 < value < 65536:
        raise ValueError("not a port")
    return value


@contextlib.contextmanager
def directly(replica: Replica, ports: tuple[int, ...]) -> Iterator[dict[int, Address]]:
    """To the pod's own address, from where that is reached: a node, or another pod.

    Raises:
        UnreachableError: ``kubernetes.address``: it has none.
    """
    if replica.address is None:
        raise UnreachableError(
            "kubernetes.address", f"the pod {replica.pod} has no address", remedy="wait until it runs on a node"
        )
    yield {port: Address(replica.address, port) for port in ports}


@contextlib.contextmanager
def through_kubectl(replica: Replica, ports: tuple[int, ...]) -> Iterator[dict[int, Address]]:
    """Through the API server and kubelet, from wherever kubectl works; they see the ciphertext of TLS."""
    with kubectl.forwarded(replica.namespace, replica.pod, ports) as local:
        yield {port: Address("127.0.0.1", local[port]) for port in ports}


def prove(replicas: list[Replica], client: Client, way: Way) -> list[Proved | None]:
    """Verify each replica that is ready, a few at a time; None for one that is not.

    A replica makes its own key, so pods that prove the same one are one replica with others that pass its words on.
    """

    def one(replica: Replica) -> Proved | None:
        if not replica.ready or replica.domain is None or "grpc" not in replica.ports:
            return None
        try:
            return _prove(replica, replica.domain, client, way)
        except EnsconceError as error:
            return Proved(error=error)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return _apart(list(pool.map(one, replicas)))


def _apart(proved: list[Proved | None]) -> list[Proved | None]:
    """The same, but that those are refused which prove what another one has proved as well."""
    seen = Counter(each.replica for each in proved if each is not None and each.replica is not None)
    relayed = EvidenceError(
        "kubernetes.relayed",
        "another pod has proved the same: one replica answers for several",
        rule="each replica makes a key of its own",
        remedy="ask whoever runs the cluster where these pods' connections go",
    )
    return [Proved(error=relayed) if each is not None and seen[each.replica or ""] > 1 else each for each in proved]


def _prove(replica: Replica, domain: str, client: Client, way: Way) -> Proved:
    grpc, rest = replica.ports["grpc"], replica.ports.get("rest")
    metrics = replica.metrics_path if rest is not None else None
    ports = (grpc,) if metrics is None or rest is None else (grpc, rest)
    with way(replica, ports) as addresses:
        with connect_tls(
            addresses[grpc], domain, client.appraiser, authority=client.authority, alpn="h2"
        ) as connection:
            acceptance = connection.acceptance
            report = acceptance.report
            proved = Proved(
                replica=connection.replica_id,
                identity=acceptance.identity.name,
                measurement=report.mr_enclave.hex() if isinstance(report, SgxReport) else None,
                root=acceptance.verdict.root,
                status=acceptance.verdict.status.value,
                not_after=utc_text(connection.accepted.certificate.not_valid_after_utc.timestamp()),
            )
        if metrics is None or rest is None:
            return proved
        return replace(proved, requests=_requests(addresses[rest], domain, client, metrics))


def _requests(address: Address, domain: str, client: Client, path: str) -> int | None:
    """The requests that the replica has counted; over a connection that was accepted, as the one before."""
    with http_client(address, domain, client.appraiser, authority=client.authority) as http:
        try:
            with http.stream("GET", path) as answer:
                page = b""
                for part in answer.iter_bytes():
                    page += part
                    if len(page) > _MAX_PAGE:
                        return None
        except httpx.HTTPError:
            return None
    if answer.status_code != 200:
        return None
    counts = [
        line.rpartition(" ")[2] for line in page.decode(errors="replace").splitlines() if line.startswith(_REQUESTS)
    ]
    return sum(int(count) for count in counts if count.isascii() and count.isdecimal() and len(count) <= _MAX_DIGITS)
