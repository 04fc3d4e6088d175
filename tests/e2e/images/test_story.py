"""The story in containers without a network: from the owner's policy to a prediction, and an end."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from containers import ASKED_FOR, DOMAIN, owners_files, podman, run, until

from ensconce.evidence.sigstruct import parse_sigstruct
from ensconce.platform.simulated.launcher import Launchable
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import make_quote
from ensconce.times import unix_now

sys.path.insert(0, str(Path(__file__).parents[2] / "interop" / "gramine"))
from gramine_attestation import AttestationFiles

pytestmark = ASKED_FOR


@pytest.fixture
def vendor(image: Callable[[str], str], machine: Callable[..., str], tmp_path: Path) -> tuple[str, Path]:
    """The simulated vendor, at 127.0.0.1:8081 of the network that all share: its container, and where its secret is."""
    tmp_path.chmod(0o777)
    serve = ("simulated", "serve", "--listen", "127.0.0.1:8081", "--home", "/vendors/home")
    return machine(image("server-simulated"), *serve, options=("-v", f"{tmp_path}:/vendors")), tmp_path / "home"


@pytest.fixture
def started(
    image: Callable[[str], str], kind: str, owner: Path, measured: str, tmp_path: Path
) -> Iterator[Callable[[Path], tuple[str | Path, ...]]]:
    """What a replica's container needs beside its arguments, given where the vendor's secret is.

    Without SGX, ``gramine-direct`` takes the place of ``gramine-sgx``, and quotes of a simulated CPU come from a file
    system in the place of Gramine's own files: two lines in a manifest that is not the one that was signed.
    """
    with contextlib.ExitStack() as mounted:

        def options(home: Path) -> tuple[str | Path, ...]:
            if kind == "simulated":
                return owners_files(owner)
            enclave, attestation = owner / "bundle" / "enclave", tmp_path / "attestation"
            signed = parse_sigstruct((enclave / "server.sig").read_bytes())
            running = Launchable(enclave, (), {}, enclave, signed.mr_enclave, signed)
            cpu = SimulatedVendor.open(home, unix_now())
            attestation.mkdir()
            files = AttestationFiles(
                attestation / "files", lambda data: make_quote(cpu, running.report(cpu.cpu_svn, data))
            )
            mounted.callback(files.close)
            text = (enclave / "server.manifest").read_text()
            mounts = "".join(
                f'{{ path = "/dev/attestation/{name}", uri = "file:enclave/attestation/files/{name}" }}, '
                for name in ("user_report_data", "quote")
            )
            for old, more in (("fs.mounts = [", mounts), ("sgx.allowed_files = [", '"file:enclave/attestation/",')):
                assert text.count(old) == 1
                text = text.replace(old, f"{old}\n{more}")
            (tmp_path / "server.manifest").write_text(text)
            (tmp_path / "direct").write_text('#!/bin/sh\nexec gramine-direct "$@"\n')
            (tmp_path / "direct").chmod(0o755)
            program = run(
                image("server-gramine"), "-f", "/usr/local/bin/gramine-sgx", options=("--entrypoint=readlink",)
            )
            inside = "/opt/ensconce/enclave"
            return (
                *owners_files(owner, "hosts", "nsswitch.conf", "resolv.conf"),
                *("-v", f"{tmp_path / 'server.manifest'}:{inside}/server.manifest:ro"),
                *(
                    "-v",
                    f"{attestation}:{inside}/attestation",
                    "-v",
                    f"{tmp_path / 'direct'}:{program.stdout.strip()}:ro",
                ),
                # The file system is root's alone; and gramine-direct, unlike gramine-sgx, asks for a personality.
                *("--user=0", "--security-opt=seccomp=unconfined"),
            )

        yield options


def test_the_story(
    image: Callable[[str], str],
    machine: Callable[..., str],
    vendor: tuple[str, Path],
    started: Callable[[Path], tuple[str | Path, ...]],
    measured: str,
    kind: str,
    owner: Path,
    tmp_path: Path,
) -> None:
    container, home = vendor
    beside = (f"--network=container:{container}",)
    np.save(tmp_path / "images.npy", np.zeros((3, 8, 8, 1), np.float32))
    ours = ("-v", f"{owner}:/owner", "-v", f"{tmp_path / 'images.npy'}:/images.npy:ro")

    def answers(*arguments: str) -> bool:
        done = run(image("client"), *arguments, options=(*beside, *ours), check=False)
        said.append(done.stdout + done.stderr)
        return bool(done.returncode == 0)

    said: list[str] = []
    until(lambda: answers("simulated", "root", "http://127.0.0.1:8081"), 60)
    root = said[-1].strip()
    policy = ("policy", "write", "--replace", "--owner", "/owner", "--root", root)
    run(image("provisioning"), *policy, options=(*beside, *ours))
    machine(image("provisioning"), "provision", "serve", "--owner", "/owner", options=ours)
    where = ("--vendor", "http://127.0.0.1:8081") if kind == "simulated" else ()
    server = ("replica", "run", "/opt/ensconce", "--platform", kind, *where)
    replica = machine(image(f"server-{kind}"), *server, options=started(home))
    attested = ("--server-name", DOMAIN, "--policy", "/owner/policy.yaml", "--ca", "/owner/ca.pem", "--json")
    attested += ("--pccs", "http://127.0.0.1:8081")
    try:
        until(lambda: answers("verify", "127.0.0.1:8500", *attested), 120)
    except BaseException:
        print(podman("logs", replica, check=False), said[-1])  # noqa: T201
        raise
    assert measured in said[-1]
    assert answers("predict", "127.0.0.1:8500", *attested, "--model", "digits", "--input", "/images.npy"), said[-1]
    assert len(json.loads(said[-1])["outputs"]["classes"]) == 3
    assert podman("stop", "--time", "30", replica).returncode == 0
    assert podman("inspect", "--format", "{{.State.ExitCode}}", replica).stdout.strip() == "0"


@pytest.mark.parametrize("kind", ["simulated"], indirect=True)
def test_another_file_in_the_image_starts_nothing(
    image: Callable[[str], str], vendor: tuple[str, Path], measured: str, owner: Path, tmp_path: Path
) -> None:
    assert measured
    changed = tmp_path / "codecs.pyc"
    changed.write_bytes(b"another")
    inside = next((owner / "bundle" / "enclave" / "image" / "lib").glob("python3.*/codecs.pyc"))
    path = f"/opt/ensconce/enclave/{inside.relative_to(owner / 'bundle' / 'enclave')}"
    server = ("replica", "run", "/opt/ensconce", "--platform", "simulated", "--vendor", "http://127.0.0.1:8081")
    options = (f"--network=container:{vendor[0]}", *owners_files(owner), "-v", f"{changed}:{path}:ro")
    refused = run(image("server-simulated"), *server, options=options, check=False)
    assert refused.returncode == 6
    assert "launcher.trusted_file" in refused.stderr
