"""The host: applies what ``ensconce kubernetes render`` prints for a copy of the owner's bundle, and nothing else."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from .cluster import Cluster
from .gateway import Gateway
from .machine import ADDRESS, MachineError
from .owner import DOMAIN

NAMESPACE = "ensconce"
NAME = "digits"
VENDOR = "http://10.96.0.77:8081"
GRPC = f"{ADDRESS}:8500"
_VENDOR = "simulated-vendor"
_STORE = 9000


class Host:
    """The host's side of the service ``digits``.

    Args:
        cluster: where it runs.
        gateway: what does as its routes say.
        image: the servers' image.
        store: the folder that its object storage serves: the owner's bundle.
    """

    def __init__(self, cluster: Cluster, gateway: Gateway, image: str, store: Path) -> None:
        self.cluster = cluster
        self.gateway = gateway
        self.folder = cluster.machine.folder / "host"
        self.folder.mkdir()
        self._image = image
        self._store = store

    def serve_store(self) -> None:
        """Serve ciphertext over HTTP, as object storage does."""
        address = ("--bind", ADDRESS, "--directory", str(self._store))
        self.cluster.machine.spawn("store", [sys.executable, "-m", "http.server", str(_STORE), *address])

    def take(self, name: str) -> Path:
        """A copy of the bundle as it is now."""
        copy = self.folder / name
        shutil.copytree(self._store, copy)
        return copy

    def render(self, bundle: Path, *, replicas: int, **more: Any) -> list[dict[str, Any]]:
        """The objects for a bundle; ``more`` is added to the values."""
        values = self.folder / "host.yaml"
        values.write_text(
            json.dumps(
                {
                    "image": self._image,
                    "name": NAME,
                    "namespace": NAMESPACE,
                    "replicas": replicas,
                    "models": {"url": f"http://{ADDRESS}:{_STORE}/models"},
                    "vendor": {"url": VENDOR, "serve": True, "address": VENDOR.split("/")[2].split(":")[0]},
                    "resources": {"cpu": "50m", "memory": "1Gi"},
                    "ingressFrom": [{"cidr": f"{ADDRESS}/32"}],
                    "probes": {"startSeconds": 600, "drainSeconds": 5},
                    **more,
                }
            )
        )
        render: list[str | Path] = [
            sys.executable,
            "-m",
            "ensconce",
            "kubernetes",
            "render",
            bundle,
            "--values",
            values,
        ]
        printed = self.cluster.machine.run(render).stdout.decode()
        return [each for each in yaml.safe_load_all(printed) if each]

    def start_vendor(self, bundle: Path) -> None:
        """Apply the part that is the simulated vendor, and wait until it is there."""
        wanted = ("Namespace", "ServiceAccount")
        objects = self.render(bundle, replicas=2)
        parts = [each for each in objects if each["kind"] in wanted or _VENDOR in each["metadata"]["name"]]
        self.cluster.apply(parts)
        self._rolled_out(f"{NAME}-{_VENDOR}")

    def apply(self, bundle: Path, replicas: int, **more: Any) -> None:
        """Apply all of it, and wait for the rollout's end."""
        self.begin(bundle, replicas, **more)
        self.settle(replicas)

    def begin(self, bundle: Path, replicas: int, **more: Any) -> None:
        """Apply all of it, and wait for nothing; raises :class:`MachineError` when the API server refuses it."""
        self.cluster.apply(self.render(bundle, replicas=replicas, **more))

    def begin_with(self, image: str, bundle: Path, replicas: int) -> None:
        """Apply the replicas' Deployment alone, with another image."""
        objects = self.render(bundle, replicas=replicas, image=image)
        self.cluster.apply(
            [each for each in objects if each["kind"] == "Deployment" and each["metadata"]["name"] == NAME]
        )

    def settle(self, replicas: int) -> None:
        """Wait for the rollout's end: so many replicas, ready and known to the gateway, and no other is left."""
        self._rolled_out(NAME)
        self.routed(replicas)
        self.cluster.wait(lambda: len(self._all_pods()) == replicas, "the old replicas to be gone")

    def scale(self, replicas: int) -> None:
        """``kubectl scale``, and wait for it."""
        self.cluster.kubectl("scale", f"--namespace={NAMESPACE}", f"deployment/{NAME}", f"--replicas={replicas}")
        self.routed(replicas)

    def hand_over(self, replicas: int) -> None:
        """Give the number of replicas to another field manager than kubectl, so that an apply without it keeps it."""
        meta = {"name": NAME, "namespace": NAMESPACE}
        number = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {"replicas": replicas}}
        self.cluster.apply([number], "--field-manager=handover", "--validate=false")

    def delete(self, pod: str) -> None:
        """Let a pod go at once: no preStop, SIGTERM, and two seconds later SIGKILL."""
        self.cluster.kubectl(
            "delete", "pod", pod, f"--namespace={NAMESPACE}", "--grace-period=0", "--force", "--wait=false"
        )

    def crash(self, pod: dict[str, Any]) -> None:
        """Kill every process of a pod's replica with SIGKILL, as the kernel does when memory runs out."""
        container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        self.cluster.machine.run(["ctr", "--namespace=k8s.io", "task", "kill", "--all", "--signal=SIGKILL", container])

    def restarts(self) -> int:
        """How often kubelet has started a replica anew, in pods that are there."""
        return sum(each["restartCount"] for pod in self.pods() for each in pod["status"].get("containerStatuses", []))

    def pods(self) -> list[dict[str, Any]]:
        """The replicas' pods that have not been told to go."""
        return [pod for pod in self._all_pods() if "deletionTimestamp" not in pod["metadata"]]

    def _all_pods(self) -> list[dict[str, Any]]:
        labels = "app.kubernetes.io/component=replica"
        return self.cluster.get("pods", f"--namespace={NAMESPACE}", f"--selector={labels}")

    def ready(self) -> int:
        """How many of them are ready."""
        return sum(
            each["type"] == "Ready" and each["status"] == "True"
            for pod in self.pods()
            for each in pod["status"].get("conditions", [])
        )

    def status(self, client: Path, *options: str) -> str:
        """What ``ensconce kubernetes status`` prints for a client with ``policy.yaml`` and ``ca.pem`` in his folder."""
        return self._judge(client, "kubernetes", "status", "--name", NAME, *options)

    def verify(self, address: str, client: Path) -> str:
        """What ``ensconce verify`` prints for him of whoever answers at an address; fails when it is refused."""
        return self._judge(client, "verify", address, "--server-name", DOMAIN, "--json")

    def _judge(self, client: Path, *command: str) -> str:
        judged = ("--policy", client / "policy.yaml", "--ca", client / "ca.pem", "--pccs", VENDOR)
        run = [sys.executable, "-m", "ensconce", *command, *judged]
        return self.cluster.machine.run(run, env=self.cluster.kubectl_environment).stdout.decode()

    def get(self, path: str, address: str, authority: Path) -> str:
        """What REST at an address answers, to somebody who knows the service's name and the owner's authority."""
        place = f"{DOMAIN}:8501"
        where = ["--resolve", f"{place}:{address}", "--cacert", authority, f"https://{place}{path}"]
        return self.cluster.machine.run(["curl", "--silent", "--show-error", "--fail", *where]).stdout.decode()

    def routed(self, replicas: int) -> None:
        """Wait until so many replicas are ready, and the gateway sends connections to exactly them."""
        self.cluster.wait(lambda: self.ready() == replicas, f"{replicas} ready replicas")
        self.cluster.wait(lambda: len(self.gateway.endpoints(DOMAIN)) == 2 * replicas, f"{replicas} endpoints")

    def last_words(self) -> str:
        """What the replicas' containers said that have ended, in pods that are there."""
        said = ""
        for pod in self.pods():
            if any(each["restartCount"] for each in pod["status"].get("containerStatuses", [])):
                where = (f"--namespace={NAMESPACE}", "--previous", "--container=replica", pod["metadata"]["name"])
                said += self.cluster.machine.run(self.cluster.command("logs", *where), check=False).stdout.decode()
        return said

    def _rolled_out(self, name: str) -> None:
        status = ("rollout", "status", f"--namespace={NAMESPACE}", f"deployment/{name}", "--timeout=590s")
        try:
            self.cluster.kubectl(*status)
        except MachineError as error:
            pods = self.cluster.kubectl("describe", "pods", f"--namespace={NAMESPACE}")
            raise MachineError(f"{error}\n{pods[-3000:]}") from error
