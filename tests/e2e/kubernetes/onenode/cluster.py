"""A genuine Kubernetes of one node: started, asked, stopped."""

from __future__ import annotations

import json
import os
import re
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
# What kubectl says when nobody answered it; whatever else it complains of, waiting does not mend.
_NO_ANSWER = re.compile(
    "Unable to connect to the server|The connection to the server .* was refused|TLS handshake timeout|etcdserver: "
)


class NoAnswerError(MachineError):
    """The cluster did not answer; it may, a moment later."""


class Cluster:
    """The cluster in ``machine``. ``start`` returns when the node is Ready and its images are there."""

    def __init__(self, machine: Machine, programs: Programs) -> None:
        self.machine = machine
        self._programs = programs
        self.files = machine.folder / "files"

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
        """What kubectl prints, as an administrator.

        Raises:
            NoAnswerError: nobody answered.
            MachineError: it refuses.
        """
        try:
            return self.machine.run(self.command(*arguments), stdin=stdin.encode(), timeout=timeout).stdout.decode()
        except MachineError as error:
            if _NO_ANSWER.search(str(error)):
                raise NoAnswerError(str(error)) from error
            raise

    def apply(self, objects: Sequence[Mapping[str, Any]], *options: str) -> str:
        """Apply objects on the server's side."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [*objects]})
        return self.kubectl("apply", "--server-side", "--filename=-", *options, stdin=text)

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

    def wait(self, reached: Callable[[], object], what: str, seconds: float = 300, pause: float = 0.3) -> None:
        """Poll until something is so. That the cluster does not answer is waited through, and told in the end.

        Raises:
            MachineError: ``reached`` raises it, a program has ended, or the time is over.
        """
        deadline, unanswered = time.monotonic() + seconds, ""
        while True:
            try:
                if reached():
                    return
                unanswered = ""
            except NoAnswerError as error:
                unanswered = f"\nlast, nobody answered: {error}"
            if ended := next((each for each in self.machine.programs if each.process.poll() is not None), None):
                raise MachineError(f"{ended.name} ended ({ended.process.returncode}):\n{ended.end_of_log()}")
            if time.monotonic() > deadline:
                logs = f"logs are in {self.machine.logs}"
                raise MachineError(f"still waiting for {what} after {seconds:.0f} s; {logs}{unanswered}")
            time.sleep(pause)

    def command(self, *arguments: str) -> list[str]:
        """kubectl's command line, as an administrator; for :meth:`Machine.run`."""
        return [self._programs["kubectl"], f"--kubeconfig={_FOLDER / 'admin.kubeconfig'}", *arguments]

    @property
    def kubectl_environment(self) -> dict[str, str]:
        """The environment of a program that runs kubectl itself, as an administrator."""
        return {
            "PATH": f"{Path(self._programs['kubectl']).parent}:{os.environ['PATH']}",
            "KUBECONFIG": str(_FOLDER / "admin.kubeconfig"),
        }

    def _spawn(self, name: str, program: str) -> Program:
        return self.machine.spawn(name, [program, *configuration.arguments(name, _FOLDER)])

    def _answers(self, program: Program, question: Sequence[str]) -> bool:
        return self.machine.run(question, check=False).returncode == 0

    def _node_ready(self) -> bool:
        conditions = [each for node in self.get("node") for each in node["status"].get("conditions", [])]
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def _write_files(self) -> None:
        """Write what the programs read and put it into the machine's own folders."""
        self.files.mkdir()
        authority = Authority(self.files)
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        authority.issue("apiserver", "kube-apiserver", served=[*names, ADDRESS, "10.96.0.1"])
        authority.issue("apiserver-kubelet-client", "kube-apiserver-kubelet-client", [_MASTERS])
        authority.issue("front-proxy", configuration.FRONT_PROXY)
        authority.issue("custom-metrics", "custom-metrics", served=["custom-metrics.kube-system.svc"])
        authority.issue("kubelet-server", f"system:node:{HOSTNAME}", ["system:nodes"], served=[HOSTNAME, ADDRESS])
        for file, name, groups in (
            ("admin", "admin", [_MASTERS]),
            ("kubelet", f"system:node:{HOSTNAME}", ["system:nodes"]),
            ("kube-controller-manager", "system:kube-controller-manager", []),
            ("kube-scheduler", "system:kube-scheduler", []),
            ("kube-proxy", "system:kube-proxy", []),
        ):
            authority.kubeconfig(file, configuration.API, name, groups)
        write_service_account_keys(self.files)
        (self.files / "containerd.toml").write_text(configuration.containerd(self._programs.plugins))
        (self.files / "kubelet.yaml").write_text(configuration.kubelet(_FOLDER, self.machine.cgroup))
        (self.files / "kube-proxy.yaml").write_text(configuration.kube_proxy(_FOLDER))
        (self.files / "network.conflist").write_text(configuration.network())
        self.machine.run(["sh", "-c", f"cp {self.files}/* {_FOLDER}/"])
        self.machine.run(
            ["sh", "-c", f"mkdir /etc/cni/net.d && mv {_FOLDER}/network.conflist /etc/cni/net.d/10-onenode.conflist"]
        )
