"""A gateway that does what Gateways and TLSRoutes say, with a real Nginx.

What a controller such as NGINX Gateway Fabric makes of them: TLS is passed through by server name, and ends in the pod.

It takes what the story needs: listeners of protocol TLS and mode Passthrough, routes of one rule with one Service.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cluster import Cluster
from .machine import MachineError

_TEMPLATE = """
{load}
user root;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log notice;
worker_processes 2;
worker_shutdown_timeout 5m;
events {{ worker_connections 4096; }}
stream {{
  log_format passed escape=json
    '{{"time":$msec,"sni":"$ssl_preread_server_name","upstream":"$upstream_addr","status":$status}}';
  access_log {folder}/access.log passed;
  proxy_connect_timeout 2s;
  proxy_next_upstream on;
  proxy_timeout 1h;
  tcp_nodelay on;
  map_hash_bucket_size 256;
{servers}}}
"""


_KINDS = ("gateways", "tlsroutes", "services", "endpointslices")
_Key = tuple[str, str, str]
"""Kind, namespace, name."""


@dataclass(frozen=True, order=True)
class Route:
    """A server name at a port of the gateway, and the endpoints that are ready behind it."""

    port: int
    name: str
    endpoints: tuple[str, ...]


class Gateway:
    """Nginx in the machine, told anew whenever a route or an endpoint changes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._machine = cluster.machine
        self.folder = cluster.machine.folder / "gateway"
        self.routes: list[Route] = []
        self.reloads = 0
        self._objects: dict[str, dict[_Key, dict[str, Any]]] = {kind: {} for kind in _KINDS}
        self._changed = threading.Condition()
        self._failure: Exception | None = None

    def start(self) -> None:
        """Watch, and start Nginx; raises :class:`MachineError` when it does not take its configuration."""
        self.folder.mkdir()
        module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
        self._load = f"load_module {module};" if module.exists() else ""
        self._write()
        self._machine.run(["nginx", "-t", "-c", self.folder / "nginx.conf"])
        self._machine.spawn("nginx", ["nginx", "-c", str(self.folder / "nginx.conf")])
        for kind in _KINDS:
            threading.Thread(target=self._watch, args=(kind,), daemon=True).start()
        threading.Thread(target=self._apply, daemon=True).start()

    def endpoints(self, name: str) -> set[str]:
        """Where connections to a server name go now; raises what broke the watch."""
        if self._failure:
            raise AssertionError("nginx did not take its configuration") from self._failure
        return {endpoint for route in self.routes if route.name == name for endpoint in route.endpoints}

    def _watch(self, kind: str) -> None:
        """Know every object of a kind. A connection that breaks is made anew; nothing is forgotten meanwhile."""
        while True:
            with contextlib.suppress(MachineError):
                self._replace(kind, self._cluster.get(kind, "--all-namespaces"))
                watch = self._cluster.watch(kind)
                assert watch.stdout is not None
                output = watch.stdout.fileno()
                for event in _documents(iter(lambda end=output: os.read(end, 1 << 16).decode(), "")):  # type: ignore[misc]
                    self._note(kind, event["object"], gone=event["type"] == "DELETED")
                watch.wait()
            if not self._machine.running:
                return

    def _replace(self, kind: str, objects: list[dict[str, Any]]) -> None:
        with self._changed:
            self._objects[kind] = {_key(each): each for each in objects}
            self._changed.notify()

    def _note(self, kind: str, thing: dict[str, Any], *, gone: bool) -> None:
        with self._changed:
            if gone:
                self._objects[kind].pop(_key(thing), None)
            else:
                self._objects[kind][_key(thing)] = thing
            self._changed.notify()

    def _apply(self) -> None:
        while True:
            with self._changed:
                # What changed while Nginx was told has been notified already, and is only seen by looking.
                while (routes := self._wanted()) == self.routes:
                    self._changed.wait()
            self.routes = routes
            self._write()
            try:
                self._machine.run(["nginx", "-s", "reload", "-c", self.folder / "nginx.conf"])
                self.reloads += 1
            except MachineError as error:
                self._failure = error
                return

    def _wanted(self) -> list[Route]:
        return _routes({key: each for things in self._objects.values() for key, each in things.items()})

    def _write(self) -> None:
        servers = "".join(_server(port, [each for each in self.routes if each.port == port]) for port in self._ports())
        (self.folder / "nginx.conf").write_text(_TEMPLATE.format(load=self._load, folder=self.folder, servers=servers))

    def _ports(self) -> list[int]:
        return sorted({each.port for each in self.routes})


def _server(port: int, routes: list[Route]) -> str:
    """A port's server: the name that a client asks for chooses the pool; a name without endpoints has none."""
    pools = {f"pool_{port}_{number}": route for number, route in enumerate(routes) if route.endpoints}
    names = "".join(f'    "{route.name}" {pool};\n' for pool, route in pools.items())
    upstreams = "".join(
        f"  upstream {pool} {{\n    zone {pool} 256k;\n    least_conn;\n"
        + "".join(f"    server {endpoint} max_fails=1 fail_timeout=2s;\n" for endpoint in route.endpoints)
        + "  }\n"
        for pool, route in pools.items()
    )
    return (
        f'{upstreams}  map $ssl_preread_server_name $pool_{port} {{\n    default "";\n{names}  }}\n'
        f"  server {{\n    listen {port} so_keepalive=60s:20s:3;\n    ssl_preread on;\n"
        f"    proxy_pass $pool_{port};\n  }}\n"
    )


def _routes(objects: dict[_Key, dict[str, Any]]) -> list[Route]:
    routes = []
    for (kind, namespace, _), route in objects.items():
        if kind != "TLSRoute":
            continue
        backend = route["spec"]["rules"][0]["backendRefs"][0]
        endpoints = _endpoints(objects, backend.get("namespace", namespace), backend["name"], backend["port"])
        for parent in route["spec"]["parentRefs"]:
            gateway = objects.get(("Gateway", parent.get("namespace", namespace), parent["name"]))
            for listener in gateway["spec"]["listeners"] if gateway else []:
                if listener["protocol"] != "TLS" or listener["tls"]["mode"] != "Passthrough":
                    continue
                if parent.get("sectionName", listener["name"]) == listener["name"]:
                    routes += [Route(listener["port"], name, endpoints) for name in route["spec"]["hostnames"]]
    return sorted(routes)


def _key(thing: dict[str, Any]) -> _Key:
    return thing["kind"], thing["metadata"]["namespace"], thing["metadata"]["name"]


def _endpoints(objects: dict[_Key, dict[str, Any]], namespace: str, service: str, port: int) -> tuple[str, ...]:
    """``address:port`` of every ready endpoint of a Service's port."""
    found = objects.get(("Service", namespace, service))
    names = {each.get("name", "") for each in found["spec"]["ports"] if each["port"] == port} if found else set()
    return tuple(
        sorted(
            f"{address}:{each['port']}"
            for (kind, where, _), part in objects.items()
            if kind == "EndpointSlice" and where == namespace
            if part["metadata"].get("labels", {}).get("kubernetes.io/service-name") == service
            for each in part.get("ports") or []
            if each.get("name", "") in names
            for endpoint in part.get("endpoints") or []
            if endpoint["conditions"].get("ready", True)
            for address in endpoint["addresses"]
        )
    )


def _documents(pieces: Iterator[str]) -> Iterator[dict[str, Any]]:
    """JSON documents, one after the other, as they are complete."""
    decoder, text = json.JSONDecoder(), ""
    for piece in pieces:
        text += piece
        while text := text.lstrip():
            try:
                document, end = decoder.raw_decode(text)
            except json.JSONDecodeError:
                break
            text = text[end:]
            yield document
