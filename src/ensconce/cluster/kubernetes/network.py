"""What connects: Services, NetworkPolicies, and the way in for clients, which nobody on it can read."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from ensconce.addresses import Address
from ensconce.cluster.kubernetes.naming import metadata, replica_labels, selector
from ensconce.cluster.kubernetes.values import EgressPeer, IngressPeer, Values

__all__ = ["policy", "routes", "service", "vendor_policy", "vendor_service"]

Object = dict[str, Any]

_SCHEME_PORTS = {"http": 80, "https": 443}
# Where every cluster's DNS is, and ports below and above which CoreDNS may be.
_DNS: Object = {
    "to": [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
        }
    ],
    "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
}


def service(values: Values) -> Object:
    """The Service of the replicas; health has no place in it."""
    ports = [{"name": name, "port": port, "targetPort": name, "protocol": "TCP"} for name, port in _apis(values)]
    spec = {"type": "ClusterIP", "selector": replica_labels(values), "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata(values), "spec": spec}


def _apis(values: Values) -> list[tuple[str, int]]:
    """What replicas serve, and on which of their ports."""
    apis = (("grpc", values.ports.grpc), ("rest", values.ports.rest))
    return [(name, port) for name, port in apis if port is not None]


def policy(values: Values) -> Object:
    """Replicas are connected to by the gateway, and connect to the provisioning server; and what comes with them.

    A policy is about pods, not about containers: what an init container or a neighbour in the pod must reach, the
    replica's container may reach as well. It is the enclave's measured code that decides whom it talks to.
    """
    apis = dict(_apis(values))
    ingress = [{"from": _clients(values), "ports": _ports(*apis.values())}]
    if values.metrics_from:
        ingress.append({"from": [_peer(each) for each in values.metrics_from], "ports": _ports(apis["rest"])})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(values),
        "spec": {
            "podSelector": {"matchLabels": replica_labels(values)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": _egress(values),
        },
    }


def _clients(values: Values) -> list[Object]:
    """Who may connect: as the values say, else the pods of the gateway that the route is for."""
    if values.ingress_from:
        return [_peer(each) for each in values.ingress_from]
    match values.route.kind:
        case "ingress":
            return [_in_namespace("ingress-nginx")]
        case "tlsroute":
            gateway = values.route.gateway
            name = values.name if gateway is None else gateway.name
            pods = {"podSelector": {"matchLabels": {"gateway.networking.k8s.io/gateway-name": name}}}
            return [pods if gateway is None else {**_in_namespace(gateway.namespace), **pods}]
    return [{"podSelector": {}}]


def _in_namespace(name: str) -> Object:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _egress(values: Values) -> list[Object]:
    rules = [_to_address(values, *Address.parse(server)) for server in values.provisioning.servers]
    nameservers = values.provisioning.nameservers
    if nameservers:
        rules.append({**_DNS, "to": [{"ipBlock": {"cidr": _single(address)}} for address in nameservers]})
    # An address in the policy is no pod's: where the cluster's own DNS is asked, it must be named as such.
    names = bool(nameservers)
    if values.vendor is not None:
        host, port = _host_and_port(values.vendor.url)
        if values.vendor.serve:
            pods = {"podSelector": {"matchLabels": selector(values, "simulated-vendor")}}
            rules.append({"to": [pods], "ports": _ports(port)})
        elif values.address_of(host) is not None:
            rules.append(_to_address(values, host, port))
        names |= values.address_of(host) is None
    if values.models.url is not None and not values.models.url.startswith("file:"):
        host, port = _host_and_port(values.models.url)
        address = values.address_of(host)
        cidrs = values.models.cidrs or ([] if address is None else [_single(address)])
        if cidrs:
            rules.append({"to": [{"ipBlock": {"cidr": cidr}} for cidr in cidrs], "ports": _ports(port)})
        names |= address is None
    peers = [*values.egress_to, *(values.sgx.pccs if values.sgx is not None else ())]
    rules += [{"to": [_peer(each)], "ports": _ports(each.port)} for each in peers]
    return [*rules, _DNS] if names else rules


def _to_address(values: Values, host: str, port: int) -> Object:
    address = values.address_of(host)
    assert address is not None  # the values are checked for that
    return {"to": [{"ipBlock": {"cidr": _single(address)}}], "ports": _ports(port)}


def _single(address: str) -> str:
    return str(ipaddress.ip_network(address))


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    # Object storage is behind HTTPS, whatever fsspec calls it.
    return parts.hostname or "", parts.port or _SCHEME_PORTS.get(parts.scheme, 443)


def _peer(peer: IngressPeer | EgressPeer) -> Object:
    if peer.cidr is not None:
        return {"ipBlock": {"cidr": peer.cidr}}
    made: Object = {}
    if peer.namespace is not None:
        made |= _in_namespace(peer.namespace)
    if peer.pod_labels is not None:
        made["podSelector"] = {"matchLabels": dict(sorted(peer.pod_labels.items()))} if peer.pod_labels else {}
    return made


def _ports(*numbers: int) -> list[Object]:
    return [{"protocol": "TCP", "port": number} for number in numbers]


def routes(values: Values) -> list[Object]:
    """The way in: a Gateway and two TLSRoutes, or an Ingress, or nothing."""
    match values.route.kind:
        case "tlsroute":
            made = [] if values.route.gateway is not None else [_gateway(values)]
            return made + [_tls_route(values, api, port) for api, port in _apis(values)]
        case "ingress":
            return [_ingress(values)]
    return []


def _gateway(values: Values) -> Object:
    route = values.route
    listeners = [
        {
            "name": name,
            "hostname": values.domain,
            "port": port,
            "protocol": "TLS",
            "tls": {"mode": "Passthrough"},
            "allowedRoutes": {"namespaces": {"from": "Same"}, "kinds": [{"kind": "TLSRoute"}]},
        }
        for name, port in (("grpc", route.grpc_port), ("rest", route.rest_port))
        if port is not None
    ]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": metadata(values, "", "gateway"),
        "spec": {"gatewayClassName": route.class_name, "listeners": listeners},
    }


def _tls_route(values: Values, api: str, port: int) -> Object:
    gateway = values.route.gateway
    parent: Object = {"name": values.name if gateway is None else gateway.name, "sectionName": api}
    if gateway is not None:
        parent["namespace"] = gateway.namespace
    return {
        "apiVersion": f"gateway.networking.k8s.io/{values.route.api_version}",
        "kind": "TLSRoute",
        "metadata": metadata(values, api, "gateway"),
        "spec": {
            "parentRefs": [parent],
            "hostnames": [values.domain],
            "rules": [{"backendRefs": [{"name": values.name, "port": port}]}],
        },
    }


def _ingress(values: Values) -> Object:
    # Passed through by name alone, before any path is known: one name leads to one port, and gRPC has it.
    backend = {"service": {"name": values.name, "port": {"name": "grpc"}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    annotations = {"nginx.ingress.kubernetes.io/ssl-passthrough": "true"}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {**metadata(values, "", "gateway"), "annotations": annotations},
        "spec": {
            "ingressClassName": values.route.class_name,
            "rules": [{"host": values.domain, "http": {"paths": paths}}],
        },
    }


def vendor_service(values: Values) -> Object:
    """Where the simulated vendor is found."""
    assert values.vendor is not None
    _, port = _host_and_port(values.vendor.url)
    spec: Object = {
        "type": "ClusterIP",
        "selector": selector(values, "simulated-vendor"),
        "ports": [{"name": "http", "port": port, "targetPort": "http", "protocol": "TCP"}],
    }
    if values.vendor.address is not None:
        spec["clusterIP"] = values.vendor.address
    meta = metadata(values, "simulated-vendor", "simulated-vendor")
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


def vendor_policy(values: Values) -> Object:
    """The simulated vendor connects to nobody; machines and verifiers connect to it from wherever they are."""
    assert values.vendor is not None
    _, port = _host_and_port(values.vendor.url)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(values, "simulated-vendor", "simulated-vendor"),
        "spec": {
            "podSelector": {"matchLabels": selector(values, "simulated-vendor")},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": _ports(port)}],
            "egress": [],
        },
    }
