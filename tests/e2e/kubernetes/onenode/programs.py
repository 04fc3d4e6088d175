"""Where the programs of a cluster are, or why there can be none here."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

BUILT = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl", "pause")
_PACKAGES = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "conntrack": "conntrack",
    "nsenter": "util-linux",
    "nginx": "libnginx-mod-stream",
    "curl": "curl",
}
_PLUGINS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))


class NoProgramsError(Exception):
    """What is missing here, and what would put it there."""


@dataclass(frozen=True)
class Programs:
    """Paths of everything that a node runs; ``api`` is the folder of the Gateway API's definitions."""

    built: Path
    plugins: Path
    api: Path

    def __getitem__(self, name: str) -> str:
        return str(self.built / name)


def cache() -> Path:
    """The folder of the programs that ``make cluster-programs`` builds."""
    if given := os.environ.get("ENSCONCE_KUBERNETES_PROGRAMS"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ensconce-kubernetes"


def find_programs() -> Programs:
    """All of them; raises :class:`NoProgramsError` with everything that is missing."""
    if os.geteuid() != 0:
        raise NoProgramsError("a node needs root: it makes namespaces, mounts and control groups")
    built = cache()
    if missing := [name for name in BUILT if not (built / name).is_file()]:
        raise NoProgramsError(f"no {', '.join(missing)} in {built}: make cluster-programs builds them")
    packages = {package for name, package in _PACKAGES.items() if shutil.which(name) is None}
    plugins = next((folder for folder in _PLUGINS if (folder / "bridge").is_file()), None)
    if plugins is None:
        packages.add("containernetworking-plugins")
    if packages:
        raise NoProgramsError(f"missing here: apt install {' '.join(sorted(packages))}")
    assert plugins is not None
    return Programs(built, plugins, built / "gateway-api")
