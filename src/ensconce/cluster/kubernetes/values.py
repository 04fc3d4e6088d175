"""What may be said about a deployment on Kubernetes; the chart's ``values.yaml`` has the same fields."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from ensconce.addresses import Address
from ensconce.enclave.config import Domain, IpAddress
from ensconce.strict import StrictModel

__all__ = [
    "MAX_REPLICAS",
    "Autoscaling",
    "EgressPeer",
    "EnclaveFiles",
    "GatewayRef",
    "IngressPeer",
    "Models",
    "Ports",
    "Probes",
    "Provisioning",
    "Resources",
    "Route",
    "Scheduling",
    "Sgx",
    "Toleration",
    "Values",
    "Vendor",
]

MAX_REPLICAS = 3000
"""Pods that Kubernetes is meant to bear in one namespace (sig-scalability, ``configs-and-limits/thresholds.md``)."""


def _cidr(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError("an IP network, such as 10.0.0.0/8") from None


Cidr = Annotated[str, AfterValidator(_cidr)]
Name = Annotated[str, Field(pattern="^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
"""A name with room for a suffix in the 63 characters of a label (RFC 1123)."""
LabelValue = Annotated[str, Field(pattern="^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$")]
LabelKey = Annotated[str, Field(pattern="^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=16)]
Quantity = Annotated[str, Field(pattern="^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
FileName = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9._-]{0,99}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Image = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,500}$")]
HttpUrl = Annotated[str, Field(pattern="^https?://[^/?#@]+(/[^?#]*)?$", max_length=500)]
_Text = Annotated[str, Field(max_length=500)]
Seconds = Annotated[int, Field(ge=1, le=3600)]


class _Part(StrictModel):
    # Helm's own way of writing names.
    model_config = ConfigDict(alias_generator=to_camel)


class IngressPeer(_Part):
    """Who may connect to the replicas: pods by labels, here or in another namespace, or addresses."""

    namespace: Name | None = None
    pod_labels: Labels | None = None
    cidr: Cidr | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> IngressPeer:
        if (self.cidr is None) == (self.namespace is None and self.pod_labels is None):
            raise ValueError("either cidr, or namespace and podLabels, are given")
        return self


class EgressPeer(IngressPeer):
    """Where replicas may connect to, beside the provisioning server."""

    port: Port


class Ports(_Part):
    """Of the pods. The first two are measured: where the enclave listens; TensorFlow Serving has no REST there."""

    grpc: Port
    rest: Port | None = None
    health: Port = 8502


class EnclaveFiles(_Part):
    """The owner's public files for her enclave, for a ConfigMap.

    Attributes:
        measurement: MRENCLAVE in hexadecimal, as her signature says.
        files: text by name in ``enclave/``: the signed manifest, and what it names beside the image.
        binary_files: likewise, in base64: the signature, and TensorFlow Serving's encrypted ``ssl.cfg``.
    """

    measurement: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    files: Annotated[dict[FileName, Annotated[str, Field(max_length=1 << 20)]], Field(max_length=32)]
    binary_files: Annotated[dict[FileName, Annotated[str, Field(max_length=1 << 20)]], Field(max_length=32)]


class Models(_Part):
    """Where the ciphertext is: fetched by an init container, or on a volume.

    Attributes:
        versions: which, as ``NAME/VERSION``.
        url: what ``ensconce model pull`` takes.
        image: whose ``ensconce`` fetches, where the server's own lacks the package for the URL's scheme.
        cidrs: networks that the store is in, when that is not a single address.
        owner_key: ``owner.pub``, PEM; verifies what is fetched.
        claim: name of a PersistentVolumeClaim that holds a bundle's ``models/``.
    """

    versions: Annotated[list[Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]*/[1-9][0-9]*$")]], Field(max_length=64)]
    url: Annotated[str, Field(pattern="^[a-z0-9]+://[^?#@]+$", max_length=500)] | None = None
    image: Image | None = None
    cidrs: Annotated[list[Cidr], Field(max_length=64, default_factory=list)]
    owner_key: Annotated[str, Field(max_length=4096)] | None = None
    claim: Name | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Models:
        if (self.url is None) == (self.claim is None):
            raise ValueError("either url or claim is given")
        if self.image is not None and self.url is None:
            raise ValueError("image is for a url")
        if self.url is not None and (not self.versions or self.owner_key is None):
            raise ValueError("a url is fetched from by versions, and with ownerKey")
        return self


class Provisioning(_Part):
    """Where the replicas look for the owner's server: measured.

    Attributes:
        servers: as ``HOST:PORT``.
        nameservers: whom an enclave under Gramine asks for names; it never looks at the pod's.
    """

    servers: Annotated[list[str], Field(min_length=1, max_length=8)]
    nameservers: Annotated[list[IpAddress], Field(max_length=3, default_factory=list)]


class Vendor(_Part):
    """The vendor of the simulated platform.

    Attributes:
        url: where it is.
        serve: whether to run it here, for tests and demonstrations.
        address: the cluster IP that its Service shall have, where no DNS resolves its name.
    """

    url: HttpUrl
    serve: bool = False
    address: IpAddress | None = None


class Sgx(_Part):
    """What a device plugin gives.

    Attributes:
        plugin: whose names: ``intel`` (sgx.intel.com/...), ``azure`` (kubernetes.azure.com/sgx_epc_mem_in_MiB) or
            ``alibaba`` (alibabacloud.com/sgx_epc_MiB).
        epc_mebibytes: enclave memory; the scheduler counts it, no kernel holds a pod to it yet.
        quote_provider: image of Intel's AESM, which runs beside each replica; the socket is in a volume of the pod.
        pccs: networks and port where AESM fetches certificates.
        group: that may open the devices, where the runtime does not give them to the pod's user.
    """

    plugin: Literal["intel", "azure", "alibaba"] = "intel"
    epc_mebibytes: Annotated[int, Field(ge=64, le=1 << 20)]
    quote_provider: Image
    pccs: Annotated[list[EgressPeer], Field(max_length=8, default_factory=list)]
    group: Annotated[int, Field(ge=1, le=65535)] | None = None


class Resources(_Part):
    """Of one replica, outside the enclave's own memory."""

    cpu: Quantity = "1"
    memory: Quantity = "2Gi"


class Probes(_Part):
    """Times of a replica's life.

    Attributes:
        start_seconds: until it must have been attested and have loaded its models; enclaves start slowly.
        drain_seconds: between the pod's leaving the Service and SIGTERM, for every gateway to hear of it.
    """

    start_seconds: Seconds = 300
    drain_seconds: Annotated[int, Field(ge=1, le=300)] = 10


class GatewayRef(_Part):
    """A Gateway that is there already, with a TLS listener in mode Passthrough for each API."""

    name: Name
    namespace: Name


class Route(_Part):
    """How clients' connections come in, unread.

    Attributes:
        kind: ``tlsroute`` (Gateway API), ``ingress`` (ingress-nginx with ssl-passthrough; gRPC only), or ``none``.
        api_version: of TLSRoute: ``v1`` since Gateway API 1.5.
        class_name: of the Gateway or the Ingress.
        gateway: one that is there already; without it, one is made.
        grpc_port: of the Gateway's listener for gRPC.
        rest_port: of the one for REST, where replicas have it.
    """

    kind: Literal["tlsroute", "ingress", "none"] = "tlsroute"
    api_version: Literal["v1", "v1alpha3", "v1alpha2"] = "v1"
    class_name: Name = "nginx"
    gateway: GatewayRef | None = None
    grpc_port: Port
    rest_port: Port | None = None

    @model_validator(mode="after")
    def _two_ports(self) -> Route:
        if self.grpc_port == self.rest_port:
            raise ValueError("grpcPort and restPort are two ports")
        return self


class Autoscaling(_Part):
    """More replicas when requests wait.

    Attributes:
        max_replicas: at most.
        queue_milliseconds: how long a request may wait for its batch, on average over the replicas.
        metric: the name under which a metrics adapter tells that time, in seconds, for each pod.
    """

    max_replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)]
    queue_milliseconds: Annotated[int, Field(ge=1, le=60_000)] = 20
    metric: Annotated[str, Field(pattern="^[a-z][a-z0-9_]{0,100}$")] = "ensconce_queue_seconds"


class Toleration(_Part):
    """A taint that replicas put up with, whatever its value."""

    key: LabelKey
    effect: Literal["NoSchedule", "NoExecute", "PreferNoSchedule"] = "NoSchedule"


class Scheduling(_Part):
    """Which nodes."""

    node_selector: Annotated[Labels, Field(default_factory=dict)]
    tolerations: Annotated[list[Toleration], Field(max_length=16, default_factory=list)]


class Values(_Part):
    """All of it; :mod:`ensconce.cluster.kubernetes.bundle` fills what the owner's bundle says."""

    name: Name
    namespace: Name
    create_namespace: bool = True
    image: Image
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    platform: Literal["simulated", "gramine"]
    engine: Literal["openvino", "tensorflow-serving"]
    domain: Domain
    metrics_path: Annotated[str, Field(pattern="^/[A-Za-z0-9._/-]{1,200}$")] | None = None
    replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)]
    spare: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] = 0
    ports: Ports
    enclave: EnclaveFiles
    models: Models
    provisioning: Provisioning
    hosts: Annotated[dict[Domain, IpAddress], Field(max_length=64, default_factory=dict)]
    vendor: Vendor | None = None
    sgx: Sgx | None = None
    resources: Resources = Resources()
    probes: Probes = Probes()
    route: Route
    ingress_from: Annotated[list[IngressPeer], Field(max_length=16, default_factory=list)]
    egress_to: Annotated[list[EgressPeer], Field(max_length=16, default_factory=list)]
    metrics_from: Annotated[list[IngressPeer], Field(max_length=16, default_factory=list)]
    autoscaling: Autoscaling | None = None
    scheduling: Annotated[Scheduling, Field(default_factory=lambda: Scheduling.model_validate({}))]
    service_account_annotations: Annotated[dict[LabelKey, _Text], Field(max_length=8, default_factory=dict)]

    @model_validator(mode="after")
    def _fits_together(self) -> Values:
        if (self.platform == "simulated") != (self.vendor is not None):
            raise ValueError("vendor is for platform simulated, and that needs one")
        if (self.platform == "gramine") != (self.sgx is not None):
            raise ValueError("sgx is for platform gramine, and that needs it")
        if (self.engine == "tensorflow-serving") != (self.ports.rest is None):
            raise ValueError("ports.rest is for engine openvino, and that needs it")
        if (self.ports.rest is None) != (self.route.rest_port is None):
            raise ValueError("route.restPort is for replicas with REST, and those need one")
        if self.metrics_from and self.ports.rest is None:
            raise ValueError("metricsFrom is for replicas with REST")
        if self.replicas + self.spare > MAX_REPLICAS:
            raise ValueError(f"replicas and spare together are at most {MAX_REPLICAS}")
        if self.autoscaling is not None and self.autoscaling.max_replicas < self.replicas + self.spare:
            raise ValueError("autoscaling.maxReplicas is below replicas and spare together")
        for server in self.provisioning.servers:
            if self.address_of(Address.parse(server).host) is None:
                raise ValueError(
                    f"hosts has no address for {server}: the NetworkPolicy lets replicas reach it by address alone"
                )
        return self

    def address_of(self, host: str) -> str | None:
        """The IP address of a host: itself, or what ``hosts`` says; None where DNS would have to tell."""
        try:
            return str(ipaddress.ip_address(host))
        except ValueError:
            return self.hosts.get(host)
