"""What the programs of the node are told, in files and arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .machine import ADDRESS, HOSTNAME

API = f"https://{ADDRESS}:6443"
PODS = "10.244.0.0/24"
SERVICES = "10.96.0.0/16"
ETCD = "http://127.0.0.1:2379"
CONTAINERD = "/run/containerd/containerd.sock"
PAUSE = "onenode.test/pause:1"
FRONT_PROXY = "front-proxy-client"
_DOMAIN = "cluster.local"


def containerd(plugins: Path) -> str:
    """containerd's configuration: the bridge plugin's network, our pause image, nothing that needs rights of a host."""
    return f"""
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # An OOM score below one's own takes CAP_SYS_RESOURCE, which a machine in a machine may lack.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "/etc/cni/net.d"
"""


def network() -> str:
    """The pods' network: a bridge, and an address of the range for each."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return json.dumps({"cniVersion": "1.0.0", "name": "onenode", "plugins": plugins})


def kubelet(folder: Path, cgroup: str) -> str:
    """The kubelet's configuration; certificates lie in ``folder``."""
    return _object(
        "kubelet.config.k8s.io/v1beta1",
        "KubeletConfiguration",
        address=ADDRESS,
        authentication={
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(folder / "ca.crt")},
        },
        authorization={"mode": "Webhook"},
        cgroupDriver="cgroupfs",
        cgroupRoot=cgroup,
        clusterDomain=_DOMAIN,
        containerRuntimeEndpoint=f"unix://{CONTAINERD}",
        # Disks of others' machines are full to all degrees; this node's own use is small.
        evictionHard={"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        imageGCHighThresholdPercent=100,
        imageGCLowThresholdPercent=99,
        failCgroupV1=False,
        failSwapOn=False,
        healthzBindAddress="127.0.0.1",
        nodeStatusUpdateFrequency="5s",
        resolvConf="",
        syncFrequency="5s",
        tlsCertFile=str(folder / "kubelet-server.crt"),
        tlsPrivateKeyFile=str(folder / "kubelet-server.key"),
    )


def kube_proxy(folder: Path) -> str:
    """kube-proxy's configuration: Services by nftables; no limits of the kernel's changed."""
    return _object(
        "kubeproxy.config.k8s.io/v1alpha1",
        "KubeProxyConfiguration",
        bindAddress=ADDRESS,
        clientConnection={"kubeconfig": str(folder / "kube-proxy.kubeconfig")},
        clusterCIDR=PODS,
        conntrack={"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        healthzBindAddress="127.0.0.1:10256",
        metricsBindAddress="127.0.0.1:10249",
        hostnameOverride=HOSTNAME,
        mode="nftables",
        nftables={"minSyncPeriod": "100ms", "syncPeriod": "30s"},
    )


def arguments(name: str, folder: Path) -> list[str]:
    """A program's arguments; its certificates and files lie in ``folder``."""
    return [f"--{option}" if value is True else f"--{option}={value}" for option, value in _OPTIONS[name](folder)]


def _etcd(_folder: Path) -> list[tuple[str, Any]]:
    return [
        ("name", "onenode"),
        ("data-dir", "/var/lib/etcd"),
        ("listen-client-urls", ETCD),
        ("advertise-client-urls", ETCD),
        ("listen-peer-urls", "http://127.0.0.1:2380"),
        ("initial-advertise-peer-urls", "http://127.0.0.1:2380"),
        ("initial-cluster", "onenode=http://127.0.0.1:2380"),
    ]


def _apiserver(folder: Path) -> list[tuple[str, Any]]:
    return [
        ("advertise-address", ADDRESS),
        ("bind-address", ADDRESS),
        ("etcd-servers", ETCD),
        ("authorization-mode", "Node,RBAC"),
        ("enable-admission-plugins", "NodeRestriction"),
        ("client-ca-file", folder / "ca.crt"),
        ("tls-cert-file", folder / "apiserver.crt"),
        ("tls-private-key-file", folder / "apiserver.key"),
        ("kubelet-certificate-authority", folder / "ca.crt"),
        ("kubelet-client-certificate", folder / "apiserver-kubelet-client.crt"),
        ("kubelet-client-key", folder / "apiserver-kubelet-client.key"),
        ("kubelet-preferred-address-types", "InternalIP"),
        # For what the API server passes on to others, such as custom metrics.
        ("proxy-client-cert-file", folder / "front-proxy.crt"),
        ("proxy-client-key-file", folder / "front-proxy.key"),
        ("requestheader-client-ca-file", folder / "ca.crt"),
        ("requestheader-allowed-names", FRONT_PROXY),
        ("requestheader-username-headers", "X-Remote-User"),
        ("requestheader-group-headers", "X-Remote-Group"),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
        ("service-account-issuer", f"https://kubernetes.default.svc.{_DOMAIN}"),
        ("service-account-key-file", folder / "service-accounts.pub"),
        ("service-account-signing-key-file", folder / "service-accounts.key"),
        ("service-cluster-ip-range", SERVICES),
    ]


def _controller_manager(folder: Path) -> list[tuple[str, Any]]:
    return [
        ("bind-address", "127.0.0.1"),
        ("kubeconfig", folder / "kube-controller-manager.kubeconfig"),
        ("authentication-kubeconfig", folder / "kube-controller-manager.kubeconfig"),
        ("authorization-kubeconfig", folder / "kube-controller-manager.kubeconfig"),
        # A machine may stand still for a while and then go on; that is no reason to give its pods up.
        ("node-monitor-grace-period", "15m"),
        ("root-ca-file", folder / "ca.crt"),
        ("service-account-private-key-file", folder / "service-accounts.key"),
        ("use-service-account-credentials", True),
        # Every 15 s otherwise, which a test would only wait for.
        ("horizontal-pod-autoscaler-sync-period", "5s"),
        ("leader-elect", "false"),
    ]


def _scheduler(folder: Path) -> list[tuple[str, Any]]:
    return [
        ("bind-address", "127.0.0.1"),
        ("kubeconfig", folder / "kube-scheduler.kubeconfig"),
        ("authentication-kubeconfig", folder / "kube-scheduler.kubeconfig"),
        ("authorization-kubeconfig", folder / "kube-scheduler.kubeconfig"),
        ("leader-elect", "false"),
    ]


def _kubelet(folder: Path) -> list[tuple[str, Any]]:
    return [
        ("config", folder / "kubelet.yaml"),
        ("kubeconfig", folder / "kubelet.kubeconfig"),
        ("hostname-override", HOSTNAME),
        ("node-ip", ADDRESS),
    ]


def _kube_proxy(folder: Path) -> list[tuple[str, Any]]:
    return [("config", folder / "kube-proxy.yaml")]


def _containerd(folder: Path) -> list[tuple[str, Any]]:
    return [("config", folder / "containerd.toml")]


_OPTIONS = {
    "etcd": _etcd,
    "kube-apiserver": _apiserver,
    "kube-controller-manager": _controller_manager,
    "kube-scheduler": _scheduler,
    "kubelet": _kubelet,
    "kube-proxy": _kube_proxy,
    "containerd": _containerd,
}


def _object(version: str, kind: str, **fields: Any) -> str:
    return json.dumps({"apiVersion": version, "kind": kind, **fields})
