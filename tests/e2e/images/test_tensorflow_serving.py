"""The image for TensorFlow Serving, as far as that goes without Google's program: one of its name stands in for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from containers import ASKED_FOR, DOMAIN, build, enclave_build, run, staged_by, staged_in, words

TARGET = "tensorflow-serving-gramine"

pytestmark = [
    *ASKED_FOR,
    pytest.mark.skipif("GRAMINE_BASE" not in os.environ, reason="GRAMINE_BASE names no base with Gramine"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with a program of that name and nothing else."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc")
    folder = tmp_path_factory.mktemp("program")
    (folder / "program.c").write_text("int main(void) { return 0; }")
    subprocess.run(["gcc", "-o", folder / "tensorflow_model_server", folder / "program.c"], check=True, timeout=60)
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY tensorflow_model_server /usr/bin/tensorflow_model_server\n")
    name = "localhost/ensconce-test/program:test"
    buildah = [*words("BUILDAH", "buildah"), "build", "--quiet", "--timestamp", "0", "--tag", name, str(folder)]
    subprocess.run(buildah, check=True, timeout=300, capture_output=True)
    return name


@pytest.fixture(scope="module")
def built(once: dict[str, str], program: str) -> dict[str, str]:
    return build("localhost/ensconce-test", TARGET, TENSORFLOW_SERVING=program)


@pytest.fixture
def owner(image: Callable[[str], str], tmp_path: Path) -> Path:
    """An owner whose engine it is, with a sealed SavedModel."""
    tmp_path.chmod(0o777)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(bytes(10_000))
    options = ("-v", f"{tmp_path}:/here")
    run(image("provisioning"), *("init", "/here/owner", "--domain", DOMAIN, "--model", "digits"), options=options)
    deployment = tmp_path / "owner" / "ensconce.yaml"
    text = deployment.read_text()
    for old, new in (
        ("kind: simulated", "kind: gramine"),
        ("engine: openvino", "engine: tensorflow-serving\n  versions: {specific: [1]}"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    deployment.write_text(text)
    sealing = ("--name", "digits", "--version", "1", "--owner", "/here/owner")
    run(image("provisioning"), "model", "seal", "/here/model", *sealing, options=options)
    return tmp_path / "owner"


def test_owners_build_in_it_what_it_holds(
    built: dict[str, str],
    image: Callable[[str], str],
    contents: Callable[[str], Path],
    owner: Path,
) -> None:
    assert set(built) == {TARGET}
    measured = enclave_build(image(TARGET), owner)
    assert staged_in(contents(TARGET)) == staged_by(owner)
    # The key of ssl.cfg is new, and nothing that is measured.
    assert enclave_build(image(TARGET), owner) == measured
    shown = run(image(TARGET), "enclave", "show", "/owner/bundle/enclave/server.sig", options=("-v", f"{owner}:/owner"))
    assert measured in shown.stdout
