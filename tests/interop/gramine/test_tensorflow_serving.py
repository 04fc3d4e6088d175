"""The rendering for TensorFlow Serving, under Gramine, with a program of its name that shows what it was given.

Google's own program is not to be had everywhere; what it would be given is what counts here: fixed arguments, a key
over Gramine's own protocol before ``main``, the model's folder and ``ssl.cfg`` in the clear inside and nowhere else.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.policy import Identity, Policy
from ensconce.appraisal.policy_identity import WireV1
from ensconce.enclave.lint import lint_text
from ensconce.enclave.measure import measure_built
from ensconce.enclave.sign import new_signing_key
from ensconce.enclave.tensorflow_serving import TensorFlowServingSpec
from ensconce.enclave.tensorflow_serving_build import build_tensorflow_serving
from ensconce.models.seal import seal
from ensconce.times import unix_now

sys.path.insert(0, str(Path(__file__).parent))
from gramine_world import passes_gramine_manifest

NAME = "provisioning.example.test"
SSL = b'server_key: "secret"\n'
MODEL = bytes(range(256)) * 40
PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
static void show(const char* path) {
    FILE* file = fopen(path, "rb");
    int byte;
    printf("%s ", path);
    if (!file) { perror("cannot open"); exit(3); }
    while ((byte = fgetc(file)) != EOF) printf("%02x", byte);
    printf("\n");
}
int main(int argc, char** argv) {
    for (int i = 0; i < argc; i++) printf("argv %s\n", argv[i]);
    printf("env %s\n", getenv("LD_PRELOAD"));
    show("/enclave/ssl.cfg");
    show("/models/resnet/3/saved_model.pb");
    show("/etc/hosts");
    return getenv("HOST_CHOSE_THIS") ? 4 : 0;
}
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc")
    path = tmp_path / "tensorflow_model_server"
    (tmp_path / "program.c").write_text(PROGRAM)
    subprocess.run(["gcc", "-O1", "-o", path, tmp_path / "program.c"], check=True, timeout=60)
    return path


def test_googles_program_gets_its_key_and_reads_what_only_that_opens(owner: Any, program: Path, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(MODEL)
    seal(
        tmp_path / "saved",
        owner.bundle / "models",
        name="resnet",
        version=3,
        engine="tensorflow",
        keystore=owner.keystore,
        signing_key=owner.key,
        now=unix_now,
    )
    spec = TensorFlowServingSpec(
        domain="resnet.example.test",
        model="resnet",
        version=3,
        provisioning_servers=(f"127.0.0.1:{owner.server.port}",),
        provisioning_server_name=NAME,
        ca_pem=owner.authority.certificate_pem.decode(),
        threads=2,
    )
    identity = build_tensorflow_serving(
        owner.bundle,
        spec,
        program,
        new_signing_key(),
        wrap_key=owner.keystore.get("model/resnet/3"),
        ssl_config=SSL,
        now=unix_now,
    )
    passes_gramine_manifest(owner.bundle)
    built = owner.bundle / "enclave" / "server.manifest.sgx"
    assert not [each for each in lint_text(built.read_bytes()) if each.severity == "refuse"]
    assert measure_built(built).mr_enclave == identity.mr_enclave
    assert SSL not in (owner.bundle / "enclave" / "ssl.cfg").read_bytes()

    accepted = Identity(
        name="TensorFlow Serving",
        mr_enclave=identity.mr_enclave,
        receives=("model/resnet",),
        wire_v1=WireV1(secret="model/resnet/3", form="raw"),
    )
    refusing = owner.server.appraiser
    rules = refusing.policy
    policy = Policy(roots=rules.roots, tcb_statuses=rules.tcb_statuses, identities=(accepted,))
    owner.server.appraiser = Appraiser(policy, refusing.collateral, unix_now)

    folder = owner.folder()
    owner.attest(folder)
    started = owner.start(folder)
    started.child.wait(60)
    said = (folder / "out").read_text()
    assert started.child.returncode == 0, said + started.errors()
    lines = said.splitlines()
    assert "argv --ssl_config_file=/enclave/ssl.cfg" in lines
    assert "env /enclave/image/gramine/libsecret_prov_attest.so" in lines
    assert f"/enclave/ssl.cfg {SSL.hex()}" in lines
    assert f"/models/resnet/3/saved_model.pb {MODEL.hex()}" in lines

    # What the policy refuses gets no key, and never reaches main.
    owner.server.appraiser = refusing
    refused = owner.start(folder)
    refused.child.wait(60)
    assert refused.child.returncode == 1
    assert "argv" not in (folder / "out").read_text()
