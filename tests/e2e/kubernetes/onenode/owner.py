"""The owner and her folder: the real commands, run in the machine, beside the cluster."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from .machine import ADDRESS, Machine, Program

DOMAIN = "digits.example.test"
MODEL = "digits"
EXAMPLE = Path(__file__).parents[4] / "examples" / "digits"
LISTEN = {"grpc": "0.0.0.0:8500", "rest": "0.0.0.0:8501"}


class Owner:
    """An owner of the digits model, whose provisioning server is at the node's address, outside the cluster.

    Args:
        machine: where her commands run.
        image: the image in which she builds her enclaves: its system is that of the servers' image.
        vendor: URL of the simulated vendor.
    """

    def __init__(self, machine: Machine, image: str, vendor: str) -> None:
        self._machine = machine
        self._image = image
        self._vendor = vendor
        self.folder = machine.folder / "owner"
        self._env = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(machine.folder),
            "ENSCONCE_SIMULATED_HOME": "/nonexistent",
            "NO_COLOR": "1",
        }
        self._builds = 0

    @property
    def bundle(self) -> Path:
        """What the host gets."""
        return self.folder / "bundle"

    def command(self, *arguments: str | Path, timeout: float = 600) -> str:
        """What ``ensconce ARGUMENTS`` prints; raises :class:`MachineError` when it fails."""
        done = self._machine.run([sys.executable, "-m", "ensconce", *arguments], env=self._env, timeout=timeout)
        return done.stdout.decode()

    def init(self) -> None:
        """Make the folder, with replicas that listen where the cluster looks for them, and tell metrics."""
        collateral = self._vendor.removeprefix("http://")
        places = ("--provisioning", f"{ADDRESS}:4433", "--pccs", collateral)
        self.command("init", self.folder, "--domain", DOMAIN, "--model", MODEL, *places)
        self.change_deployment(enclave={"listen": LISTEN}, serving={"metrics_path": "/metrics"})

    def change_deployment(self, **fields: Any) -> None:
        """Change fields of ``ensconce.yaml``."""
        file = self.folder / "ensconce.yaml"
        deployment = yaml.safe_load(file.read_text())
        for name, value in fields.items():
            deployment[name] = {**deployment.get(name, {}), **value} if isinstance(value, dict) else value
        file.write_text(yaml.safe_dump(deployment))

    def seal(self, version: int) -> None:
        """Seal the example as one version of the model."""
        source = ("model", "seal", EXAMPLE / "openvino")
        self.command(*source, "--name", MODEL, "--version", str(version), "--owner", self.folder)

    def build_enclave(self) -> str:
        """Build the enclave, in the image whose files it will find where it runs; gives its MRENCLAVE."""
        self._builds += 1
        # The image's program is nobody in particular, with 10001 for a number.
        self._machine.run(["chown", "-R", "10001:10001", self.folder])
        self._machine.run(
            [
                *("ctr", "--connect-timeout=600s", "--namespace=k8s.io", "run", "--rm"),
                f"--mount=type=bind,src={self.folder},dst=/owner,options=rbind:rw",
                "--mount=type=tmpfs,src=tmpfs,dst=/run/ensconce,options=mode=1777",
                *(self._image, f"enclave-build-{self._builds}"),
                *("ensconce", "enclave", "build", "--owner", "/owner", "--json"),
            ]
        )
        self._machine.run(["chown", "-R", "0:0", self.folder])
        return self.measurement

    @property
    def measurement(self) -> str:
        """The MRENCLAVE of what was built last, from its signature."""
        from ensconce.evidence.sigstruct import parse_sigstruct

        return parse_sigstruct((self.bundle / "enclave" / "server.sig").read_bytes()).mr_enclave.hex()

    def write_policy(self) -> None:
        """The first policy: this enclave, on the machines of this vendor."""
        root = self.command("simulated", "root", self._vendor).strip()
        self.command("policy", "write", "--owner", self.folder, "--root", root)

    def change_policy(self, measurements: dict[str, str]) -> Path:
        """Put a policy into force that accepts these measurements, by name; gives its file, for clients."""
        policy = yaml.safe_load(self.command("policy", "show", "--owner", self.folder))
        policy["serial"] = policy.get("serial", 1) + 1
        policy["identities"] = [
            {"name": name, "mr_enclave": measurement, "receives": [f"model/{MODEL}"]}
            for name, measurement in measurements.items()
        ]
        file = self.folder / f"policy-{policy['serial']}.yaml"
        file.write_text(json.dumps(policy, default=str))
        self.command("policy", "sign", file, "--owner", self.folder)
        self.command("policy", "apply", file, "--owner", self.folder)
        return file

    def serve(self) -> Program:
        """Start the provisioning server."""
        command = [sys.executable, "-m", "ensconce", "provision", "serve", "--owner", str(self.folder)]
        return self._machine.spawn("provisioning", command, self._env)

    def log(self) -> list[dict[str, Any]]:
        """The entries of her log."""
        shown = json.loads(self.command("audit", "show", "--owner", self.folder, "--json"))
        entries: list[dict[str, Any]] = shown["entries"]
        return entries
