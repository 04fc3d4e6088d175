"""The images themselves: built twice, and looked into. Minutes and other programs, so `make images-test` alone."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from containers import ASKED_FOR, TARGETS, enclave_build, podman, run, staged_by, staged_in

pytestmark = ASKED_FOR
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{60}")


def described(name: str) -> dict[str, Any]:
    """An image's own description: layers, configuration, history, all that its digest is made of."""
    (image,) = json.loads(podman("image", "inspect", name).stdout)
    # Whatever else builds in this storage at the same time leaves names of steps in comments, and in nothing else.
    for step in image["History"]:
        step.pop("comment", None)
    return {part: image[part] for part in ("Architecture", "Config", "Created", "History", "Os", "RootFS")}


@pytest.mark.parametrize("target", TARGETS)
def test_the_same_inputs_give_the_same_images(once: dict[str, str], again: dict[str, str], target: str) -> None:
    assert set(once) == set(again) == set(TARGETS)
    first, second = (described(f"localhost/{name}/{target}:test") for name in ("ensconce-test", "ensconce-test-again"))
    assert first == second


def test_the_same_inputs_give_the_same_measurement(
    again: dict[str, str], measured: str, owner: Path, kind: str
) -> None:
    assert enclave_build(f"localhost/ensconce-test-again/enclave-{kind}:test", owner) == measured


@pytest.mark.parametrize("target", TARGETS)
def test_it_runs_with_no_rights(image: Callable[[str], str], target: str) -> None:
    assert run(image(target), "--version").stdout.startswith("ensconce ")
    program = "import os; print(os.getuid(), os.getgid(), os.access('/', os.W_OK), os.access('/run/ensconce', os.W_OK))"
    said = run(image(target), "-c", program, options=("--entrypoint", "python3"))
    assert said.stdout.split() == ["10001", "10001", "False", "True"]


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_in_it_that_should_not_be(contents: Callable[[str], Path], target: str) -> None:
    with tarfile.open(contents(target)) as archive:
        for entry in archive:
            name = "/" + entry.name
            assert "openvino_telemetry" not in name
            assert not re.search(r"/(unlock\.key|keystore|signing|\.git|\.cache|pip-[0-9.]*\.whl)$", name), name
            assert not name.startswith(("/context/", "/dist/", "/source/", "/opt/staged/", "/opt/skeleton/"))
            assert not re.match(r"/(tmp|var/tmp|root)/.", name) or name.startswith(("/root/.bashrc", "/root/.profile"))
            if name.startswith(("/opt/ensconce/", "/usr/share/ensconce/")):
                assert (entry.uid, entry.gid) == (0, 0), name
                assert entry.issym() or not entry.mode & 0o6022, name
                assert "/site-packages/pip/" not in name
                if entry.isfile() and entry.size < 1 << 20:
                    stream = archive.extractfile(entry)
                    assert stream is not None
                    assert not PRIVATE_KEY.search(stream.read()), name
            elif name == "/run/ensconce":
                assert entry.mode & 0o7777 == 0o1777


@pytest.mark.parametrize("target", TARGETS)
def test_its_bill_of_materials_is_whole(contents: Callable[[str], Path], target: str) -> None:
    with tarfile.open(contents(target)) as archive:
        stream = archive.extractfile("usr/share/ensconce/sbom.spdx.json")
        assert stream is not None
        bill = json.load(stream)
        installed = {
            match[1].lower().replace("_", "-")
            for match in (
                re.search(r"/site-packages/([^/]+)-[^/-]+\.dist-info/METADATA$", name) for name in archive.getnames()
            )
            if match
        }
    listed = {package["name"].lower() for package in bill["packages"]}
    assert installed <= listed
    assert "openvino-telemetry" not in listed
    assert ("openvino" in listed) == ("-" in target)
    assert ("openvino" in installed) == target.startswith("enclave-")
    assert any(package["name"] in ("libc6", "libc-bin") for package in bill["packages"])


def test_labels(once: dict[str, str], image: Callable[[str], str]) -> None:
    for target in TARGETS:
        (found,) = json.loads(podman("image", "inspect", image(target)).stdout)
        assert found["Labels"]["org.opencontainers.image.title"] == f"ensconce-{target}"
        assert re.match(r"[0-9a-f]{40}(-dirty)?$", found["Labels"]["org.opencontainers.image.revision"])
        assert found["User"] == "10001:10001"


def test_the_servers_tree_is_what_the_enclave_was_measured_of(
    contents: Callable[[str], Path], measured: str, owner: Path, kind: str
) -> None:
    assert measured
    assert staged_in(contents(f"server-{kind}")) == staged_by(owner)
