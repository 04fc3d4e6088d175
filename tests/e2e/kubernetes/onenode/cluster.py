"""A genuine Kubernetes of one node: started, asked, stopped."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import configuration
from .certificates import Authority, write_service_account_keys
from .images import write_image
from .machine import ADDRESS, HOSTNAME, Machine, MachineError, Program
from .programs import Programs

_MASTERS = "system:masters"
_FOLDER = Path("/etc/kubernetes")


class Cluster:
    """The cluster in ``machine``. ``start`` returns when the node is Ready and its images are there."""

    def __init__(self, machine: Machine, programs: Programs) -> None:
        self.machine = machine
        self._programs = programs
        self._files = machine.folder / "files"

    def start(self) -> None:
        """Certificates, programs, images; raises :class:`MachineError` with the end of a log when one does not run."""
        self._write_files()
        etcd = self._spawn("etcd", "etcd")
        containerd = self._spawn("containerd", "containerd")
        self.wait(lambda: self._answers(etcd, ["etcdctl", "endpoint", "health"]), "etcd")
        apiserver = self._spawn("kube-apiserver", self._programs["kube-apiserver"])
        self.wait(lambda: self._answers(containerd, ["ctr", "version"]), "containerd")
        pause = self.machine.folder / "pause.tar"
        write_image(pause, configuration.PAUSE, {"/pause": self._programs.built / "pause"}, ["/pause"])
        self.load_image(pause)
        ready = self.command("get", "--raw", "/readyz")
        self.wait(lambda: self._answers(apiserver, ready), "kube-apiserver")
        for name in ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"):
            self._spawn(name, self._programs[name])
        self.wait(self._node_ready, "the node")
        self.wait(
            lambda: self.machine.run(self.command("get", "serviceaccount", "default"), check=False).returncode == 0,
            "accounts",
        )

    def load_image(self, archive: Path) -> None:
        """Put an image from an archive where the kubelet finds it."""
        self.machine.run(["ctr", "--connect-timeout=600s", "--namespace=k8s.io", "images", "import", archive])

    def kubectl(self, *arguments: str, stdin: str = "", timeout: float = 600) -> str:
        """What kubectl prints, as an administrator; raises :class:`MachineError` when it refuses."""
        return self.machine.run(self.command(*arguments), stdin=stdin.encode(), timeout=timeout).stdout.decode()

    def apply(self, objects: str | Sequence[Mapping[str, Any]]) -> str:
        """Apply objects (YAML, or mappings) on the server's side."""
        text = (
            objects
            if isinstance(objects, str)
            else json.dumps({"apiVersion": "v1", "kind": "List", "items": [*objects]})
        )
        return self.kubectl("apply", "--server-side", "--filename=-", stdin=text)

    def apply_folder(self, folder: Path) -> str:
        """Apply every file of a folder."""
        return self.kubectl("apply", "--server-side", f"--filename={folder}")

    def get(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        """Objects of a kind."""
        items: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, "--output=json", *arguments))["items"]
        return items

    def watch(self, kind: str) -> subprocess.Popen[bytes]:
        """A process that prints every event of a kind in any namespace, as JSON, until the machine ends."""
        options = ("--all-namespaces", "--watch", "--output-watch-events", "--output=json")
        command = self.machine.inside(self.command("get", kind, *options))
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def wait(self, reached: Callable[[], object], what: str, seconds: float = 600) -> None:
        """Poll until something is so; raises :class:`MachineError` when a program ends or the time is over."""
        deadline = time.monotonic() + seconds
        while not self._try(reached):
            if ended := next((each for each in self.machine.programs if each.process.poll()), None):
                raise MachineError(f"{ended.name} ended ({ended.process.returncode}):\n{ended.end_of_log()}")
            if time.monotonic() > deadline:
                raise MachineError(f"still waiting for {what} after {seconds:.0f} s; logs are in {self.machine.logs}")
            time.sleep(0.2)

    def _try(self, reached: Callable[[], object]) -> object:
        # kubectl gives up on a handshake after ten seconds; so long may everything stand still on a busy machine.
        with contextlib.suppress(MachineError):
            return reached()
        return False

    def command(self, *arguments: str) -> list[str]:
        """kubectl's command line, as an administrator; for :meth:`Machine.run`."""
        return [self._programs["kubectl"], f"--kubeconfig={_FOLDER / 'admin.kubeconfig'}", *arguments]

    def _spawn(self, name: str, program: str) -> Program:
        return self.machine.spawn(name, [program, *configuration.arguments(name, _FOLDER)])

    def _answers(self, program: Program, question: Sequence[str]) -> bool:
        return self.machine.run(question, check=False).returncode == 0

    def _node_ready(self) -> bool:
        conditions = [each for node in self.get("node") for each in node["status"].get("conditions", [])]
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def _write_files(self) -> None:
        """Write what the programs read and put it into the machine's own folders."""
        self._files.mkdir()
        authority = Authority(self._files)
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        authority.issue("apiserver", "kube-apiserver", served=[*names, ADDRESS, "10.96.0.1"])
        authority.issue("apiserver-kubelet-client", "kube-apiserver-kubelet-client", [_MASTERS])
        authority.issue("kubelet-server", f"system:node:{HOSTNAME}", ["system:nodes"], served=[HOSTNAME, ADDRESS])
        for file, name, groups in (
            ("admin", "admin", [_MASTERS]),
            ("kubelet", f"system:node:{HOSTNAME}", ["system:nodes"]),
            ("kube-controller-manager", "system:kube-controller-manager", []),
            ("kube-scheduler", "system:kube-scheduler", []),
            ("kube-proxy", "system:kube-proxy", []),
        ):
            authority.kubeconfig(file, configuration.API, name, groups)
        write_service_account_keys(self._files)
        (self._files / "containerd.toml").write_text(configuration.containerd(self._programs.plugins))
        (self._files / "kubelet.yaml").write_text(configuration.kubelet(_FOLDER, self.machine.cgroup))
        (self._files / "kube-proxy.yaml").write_text(configuration.kube_proxy(_FOLDER))
        (self._files / "network.conflist").write_text(configuration.network())
        self.machine.run(["sh", "-c", f"cp {self._files}/* {_FOLDER}/"])
        self.machine.run(
            ["sh", "-c", f"mkdir /etc/cni/net.d && mv {_FOLDER}/network.conflist /etc/cni/net.d/10-onenode.conflist"]
        )
