"""The demo, whole, through both gateways: every step, every refusal for its own reason, nothing left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ensconce.gateway.nginx_program import Nginx, find_nginx

EXPECTED = {
    "changed code": ["launcher.trusted_file", "policy.mr_enclave"],
    "changed argument": ["launcher.measurement", "policy.mr_enclave"],
    "flipped bit": ["encfile.node_mac"],
    "old version": ["key.retired"],
    "replay": ["ratls.pubkey_hash", "provisioning.channel_binding"],
    "simulated": ["policy.root"],
    "debug enclave": ["policy.debug"],
    "other measurement": ["policy.mr_enclave"],
    "impostor": ["provisioning.server_certificate"],
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("nginx", ["as it is here", "broken"])
def test_the_demo(tmp_path: Path, environment: dict[str, str], nginx: str) -> None:
    gateway = "nginx" if isinstance(find_nginx(), Nginx) else "embedded"
    if nginx == "broken":
        # No PATH hides an nginx in /usr/sbin, but the first one found is the one that is tried.
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "nginx").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "bin" / "nginx").chmod(0o755)
        environment["PATH"] = f"{tmp_path / 'bin'}:{environment['PATH']}"
        gateway = "embedded"
    (tmp_path / "tmp").mkdir()
    environment["TMPDIR"] = str(tmp_path / "tmp")
    done = subprocess.run(
        [sys.executable, "-m", "ensconce", "demo", "--json"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    result = json.loads(done.stdout)
    assert result["ok"]
    assert result["gateway"].startswith(gateway)
    assert {attack["name"]: [stop["check"] for stop in attack["stopped"]] for attack in result["attacks"]} == EXPECTED
    first, second = result["client"]
    assert first["images"] == 360
    assert first["accuracy"] >= 0.98
    assert len(first["per_replica"]) == 2
    assert len(second["per_replica"]) == 3
    assert sum(second["per_replica"].values()) == 360
    assert result["host_view"]["hits"] == []
    assert result["host_view"]["control_hits"] > 1000
    assert list((tmp_path / "tmp").iterdir()) == []
