"""Our serving stack on a model in one of Gramine's encrypted mounts, whose key Gramine's own library fetched.

A replica opens what `ensconce model seal` wrote by itself (docs/decisions/0032); Gramine opens the same files.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.policy import Identity
from ensconce.appraisal.policy_identity import WireV1
from ensconce.times import unix_now

sys.path.insert(0, str(Path(__file__).parent))
from gramine_world import with_program

DIGITS = Path(__file__).parents[3] / "examples" / "digits"
LIBRARY = "libsecret_prov_attest.so"
PROGRAM = """
import asyncio, json, signal, sys, time
from pathlib import Path
from ensconce.enclave import early
libraries = early.Libraries(Path(early.INDEX))
libraries.start()
sys.meta_path.insert(0, libraries)
from ensconce.serving.engines.openvino import OpenVinoServable
from ensconce.serving.manager import ModelManager
from ensconce.serving.server import ModelServer
begin = time.time()
folder = Path("/models/NAME/1")
files = {path.name: memoryview(bytearray(path.read_bytes())) for path in folder.iterdir()}
took = time.time() - begin
manager = ModelManager()
manager.add("NAME", 1, OpenVinoServable(files, threads=2))
async def serve():
    server = ModelServer(manager, grpc_address="127.0.0.1:0", rest_address="127.0.0.1:0",
        private_key_pem=KEY, certificate_chain_pem=CHAIN)
    ports = await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    Path("ready.json.part").write_text(json.dumps({"rest": ports.rest, "read_s": took,
        "bytes": sum(map(len, files.values()))}))
    Path("ready.json.part").rename("ready.json")
    await stop.wait()
    await server.stop(5)
asyncio.run(serve())
"""


def test_predictions_of_a_model_that_gramine_decrypts(owner: Any, gramine: Path) -> None:
    server = start(owner, gramine, DIGITS / "openvino", "digits")
    server.ready()
    sample = np.load(DIGITS / "heldout.npz")
    images, labels = sample["images"][:4, ..., None], sample["labels"][:4]
    answer = server.rest("POST", "/v1/models/digits:predict", {"instances": images.tolist()})
    assert [row["classes"] for row in answer["predictions"]] == labels.tolist()
    server.stop()
    assert server.child.returncode == 0, server.errors()
    assert [entry.fields["wire"] for entry in owner.audit.entries() if entry.event == "key.released"] == ["v1"]


def test_what_the_policy_refuses_does_not_start(owner: Any, gramine: Path) -> None:
    server = start(owner, gramine, DIGITS / "openvino", "digits", mr_enclave=bytes(31) + b"\1")
    server.child.wait(60)
    assert server.child.returncode == 1
    assert not (server.folder / "ready.json").exists()


def start(owner: Any, gramine: Path, model: Path, name: str, **accepted: Any) -> Any:
    """Seal a model, and start our serving stack on a mount with its files."""
    owner.seal(model, name)
    identity = owner.build(name)
    folder = owner.folder()
    library = next(gramine.parent.rglob(LIBRARY))
    shutil.copyfile(library, folder / "enclave" / LIBRARY)
    (folder / "enclave" / "ca.pem").write_bytes(owner.authority.certificate_pem)
    manifest = folder / "enclave" / "server.manifest"
    manifest.write_text(_with_a_mount(manifest.read_text(), _program(owner, name), owner.server.port, name))
    owner.attest(folder)
    # Hashes what this test has added.
    subprocess.run(["gramine-manifest", manifest, folder / "checked.manifest"], check=True, cwd=folder, timeout=60)
    shutil.copyfile(folder / "checked.manifest", manifest)

    stack = Identity(
        name="stack",
        mr_enclave=accepted.get("mr_enclave", identity.mr_enclave),
        receives=(f"model/{name}",),
        wire_v1=WireV1(secret=f"model/{name}/1", form="raw"),
    )
    old = owner.server.appraiser
    owner.server.appraiser = Appraiser(replace(old.policy, identities=(stack,)), old.collateral, unix_now)
    return owner.start(folder)


def _program(owner: Any, name: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    certificate = owner.authority.issue_server(key.public_key(), "digits.example.test", now=unix_now())
    text = PROGRAM.replace("NAME", name).replace("KEY", repr(pem))
    return text.replace("CHAIN", repr(certificate))


def _with_a_mount(text: str, program: str, port: int, name: str) -> str:
    """The manifest that was built, for another program, with Gramine's library and an encrypted mount."""
    variables = {
        "LD_PRELOAD": f"/enclave/{LIBRARY}",
        "SECRET_PROVISION_CONSTRUCTOR": "1",
        "SECRET_PROVISION_SET_KEY": name,
        "SECRET_PROVISION_CA_CHAIN_PATH": "/enclave/ca.pem",
        "SECRET_PROVISION_SERVERS": f"provisioning.example.test:{port}",
    }
    lines = "".join(f"loader.env.{key} = {json.dumps(value)}\n" for key, value in variables.items())
    mount = f'{{ type = "encrypted", path = "/models/{name}", uri = "file:models/{name}", key_name = "{name}" }}'
    text = with_program(text, program)
    for before, after in (
        ("loader.log_level", f"{lines}loader.log_level"),
        ("fs.mounts = [\n", f"fs.mounts = [\n  {mount},\n"),
        ('  "file:models/",\n', ""),
        ("sgx.trusted_files = [\n", f'sgx.trusted_files = [\n  "file:enclave/{LIBRARY}",\n  "file:enclave/ca.pem",\n'),
    ):
        assert before in text, before
        text = text.replace(before, after, 1)
    return text
