"""What Prometheus and its adapter do for an autoscaler, in small: replicas are asked how long requests waited for their
batch, as the reference says, and the API server is told the mean of each, as it asks for custom metrics.

Run as ``python -m onenode.adapter TASK``, a JSON file.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
import re
import ssl
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .cluster import Cluster
from .machine import ADDRESS

PORT = 8444
WINDOW_S = 15.0
"""Over which the mean is taken; a minute in the reference, which is longer than a test should take."""
_SCRAPE_S = 1.0
_GROUP = "custom.metrics.k8s.io"
_VERSION = "v1beta2"
_NAME = "custom-metrics"
_NAMESPACE = "kube-system"
_SERIES = re.compile(r"^ensconce_serving_queue_seconds_(sum|count)\{.*\} ([0-9.e+-]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Task:
    """Whom to ask, and as what to serve.

    Attributes:
        pods: a command that prints the replicas' pods as JSON.
        authority: the owner's, who signs replicas' certificates.
        server_name: the service's.
        port: of the replicas' REST.
        metric: what the autoscaler calls it.
        certificate, key: the adapter's own.
        clients: the authority of whom it answers.
    """

    pods: list[str]
    authority: str
    server_name: str
    port: int
    metric: str
    certificate: str
    key: str
    clients: str


class Means:
    """Seconds that requests waited at each replica, on average over the window; 0.0 where there was none."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._seen: dict[str, deque[tuple[float, float, float]]] = {}

    def follow(self) -> None:
        """Ask every replica again and again."""
        while True:
            printed = subprocess.run(self._task.pods, capture_output=True, check=False).stdout
            pods = json.loads(printed or b'{"items": []}')["items"]
            ready = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods if _ready(pod)}
            for name in self._seen.keys() - ready.keys():
                del self._seen[name]
            for name, address in ready.items():
                self._note(name, self._page(address))
            time.sleep(_SCRAPE_S)

    def now(self) -> dict[str, float]:
        """The mean of each replica that has been asked twice."""
        return {name: _mean(seen) for name, seen in list(self._seen.items()) if len(seen) > 1}

    def _page(self, address: str) -> str:
        rest = f"{self._task.server_name}:{self._task.port}"
        where = ["--resolve", f"{rest}:{address}", "--cacert", self._task.authority, f"https://{rest}/metrics"]
        command = ["curl", "--silent", "--show-error", "--fail", "--max-time", "2", *where]
        return subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True).stdout

    def _note(self, name: str, page: str) -> None:
        totals = {"sum": 0.0, "count": 0.0}
        for kind, number in _SERIES.findall(page):
            totals[kind] += float(number)
        now = time.monotonic()
        seen = self._seen.setdefault(name, deque())
        if page:
            seen.append((now, totals["sum"], totals["count"]))
        while len(seen) > 2 and seen[0][0] < now - WINDOW_S:
            seen.popleft()


def _ready(pod: dict[str, Any]) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", []))


def _mean(seen: deque[tuple[float, float, float]]) -> float:
    (_, sum_before, count_before), (_, sum_now, count_now) = seen[0], seen[-1]
    return (sum_now - sum_before) / max(count_now - count_before, 1e-9)


def start(cluster: Cluster, task: Task) -> None:
    """Run it on the node, behind a Service, and have the API server pass its group's requests on to it."""
    file = cluster.machine.folder / "adapter.json"
    file.write_text(json.dumps(dataclasses.asdict(task)))
    path = {"PYTHONPATH": str(Path(__file__).parents[1])}
    cluster.machine.spawn("adapter", [sys.executable, "-m", "onenode.adapter", str(file)], path)
    where = {"name": _NAME, "namespace": _NAMESPACE}
    slice_name = {**where, "labels": {"kubernetes.io/service-name": _NAME}}
    spec = {
        "group": _GROUP,
        "version": _VERSION,
        "service": {**where, "port": 443},
        "caBundle": base64.b64encode(Path(task.clients).read_bytes()).decode(),
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
    }
    service = {"ports": [{"name": "https", "port": 443, "targetPort": PORT}]}
    endpoints = {
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": PORT}],
        "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": True}}],
    }
    meta = {"name": f"{_VERSION}.{_GROUP}"}
    cluster.apply(
        [
            {"apiVersion": "v1", "kind": "Service", "metadata": where, "spec": service},
            {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": slice_name, **endpoints},
            {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": meta, "spec": spec},
        ]
    )
    cluster.kubectl("wait", "--for=condition=Available", f"apiservice/{_VERSION}.{_GROUP}", "--timeout=60s")


def _handler(task: Task, means: Means) -> type[BaseHTTPRequestHandler]:
    root = f"/apis/{_GROUP}/{_VERSION}"
    asked = re.compile(rf"{re.escape(root)}/namespaces/([a-z0-9-]+)/pods/(?:\*|%2A)/{task.metric}(\?.*)?")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            match = asked.fullmatch(self.path)
            if match:
                self._answer(200, _values(task.metric, match[1], means.now()))
            elif self.path.partition("?")[0] == root:
                resource = {"name": f"pods/{task.metric}", "singularName": "", "namespaced": True}
                resource |= {"kind": "MetricValueList", "verbs": ["get"]}
                self._answer(200, {**_LIST, "groupVersion": f"{_GROUP}/{_VERSION}", "resources": [resource]})
            else:
                self._answer(404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404})

        def _answer(self, code: int, value: dict[str, Any]) -> None:
            body = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


_LIST = {"kind": "APIResourceList", "apiVersion": "v1"}


def _values(metric: str, namespace: str, means: dict[str, float]) -> dict[str, Any]:
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    items = [
        {
            "describedObject": {"kind": "Pod", "namespace": namespace, "name": name, "apiVersion": "/v1"},
            "metric": {"name": metric, "selector": None},
            "timestamp": now,
            "value": f"{round(mean * 1e6)}u",
        }
        for name, mean in sorted(means.items())
    ]
    return {"kind": "MetricValueList", "apiVersion": f"{_GROUP}/{_VERSION}", "metadata": {}, "items": items}


def main(file: str) -> None:
    """Serve until the machine ends."""
    task = Task(**json.loads(Path(file).read_text()))
    means = Means(task)
    threading.Thread(target=means.follow, daemon=True).start()
    server = ThreadingHTTPServer((ADDRESS, PORT), _handler(task, means))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(task.certificate, task.key)
    # Only the API server, which has asked already whether its client may know.
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(task.clients)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
