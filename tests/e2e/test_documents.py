"""Every shell block of every document is run by a test; a block in a document that nobody runs is an error."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import typer
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from ensconce.cli.main import app
from ensconce.cluster.deployment import Deployment
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.policy import policy_store, write_policy
from ensconce.demo.data import digits_folder
from ensconce.demo.stage import processes_below
from ensconce.enclave.build import SIGSTRUCT, EnclaveIdentity
from ensconce.enclave.sign import sign_manifest
from ensconce.evidence.report import SgxReport
from ensconce.platform.manifest import parse_manifest
from ensconce.platform.simulated.control import PlatformControl
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import QuoteRecipe, make_quote
from ensconce.publication.file import parse_published

REPOSITORY = Path(__file__).parents[2]
RUN_ELSEWHERE = {
    "README.md": {"make demo\n", "make test\n"},  # the demo has a test of its own; the tests are being run
    "docs/tutorial.md": None,  # tests/e2e/test_tutorial.py runs all of it
}


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.M | re.S)


# A failure in the middle must not leave servers behind, nor wait for them to let go of the output.
CLEAN = "trap 'test ! -d host/run || ensconce down --host host; kill $(jobs -p) 2>/dev/null || true' ERR\n"


def run(script: str, folder: Path, environment: dict[str, str], timeout: int = 100) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", CLEAN + script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_no_shell_block_is_left_unrun() -> None:
    here = {
        "docs/from-the-graphene-tutorial.md",
        "docs/how-to/back-up-and-recover.md",
        "docs/how-to/carry-collateral.md",
        "docs/how-to/change-a-policy.md",
        "docs/how-to/encrypt-files.md",
        "docs/how-to/publish-measurements.md",
        "docs/how-to/measure-load.md",
        "docs/how-to/proxy.md",
        "docs/how-to/serve-plain-models.md",
        "docs/how-to/verify-a-quote.md",
    }
    for document in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]:
        name = document.relative_to(REPOSITORY).as_posix()
        found = blocks(document, "sh")
        if found and name not in here:
            assert name in RUN_ELSEWHERE, f"{name} has commands that no test runs"
            expected = RUN_ELSEWHERE[name]
            assert expected is None or set(found) == expected


def test_links_lead_somewhere() -> None:
    for document in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]:
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
            if "://" not in link:
                assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_encrypt_files(tmp_path: Path, environment: dict[str, str]) -> None:
    run("\n".join(blocks(REPOSITORY / "docs/how-to/encrypt-files.md", "sh")), tmp_path, environment)
    assert (tmp_path / "contract.txt").read_text() == "a contract\n"
    assert b"a contract" not in (tmp_path / "sealed" / "contract.txt").read_bytes()


def test_serve_plain_models(tmp_path: Path, environment: dict[str, str], find_port: Callable[[], int]) -> None:
    environment |= {"MODEL": str(digits_folder() / "openvino"), "GRPC": str(find_port()), "REST": str(find_port())}
    said = run("\n".join(blocks(REPOSITORY / "docs/how-to/serve-plain-models.md", "sh")), tmp_path, environment)
    assert said.count('"state":"AVAILABLE"') == 1
    assert said.count('{"predictions":') == 2
    assert ':tensorflow:serving:request_count{model_name="digits",status="OK"} 2' in said


def test_measure_load(tmp_path: Path, environment: dict[str, str], find_port: Callable[[], int]) -> None:
    environment |= {"MODEL": str(digits_folder() / "openvino"), "GRPC": str(find_port()), "REST": str(find_port())}
    said = run("\n".join(blocks(REPOSITORY / "docs/how-to/measure-load.md", "sh")), tmp_path, environment)
    assert "200 answered, 0 failed" in said
    assert "100 answered, 0 failed" in said
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["requests"]["answered"] == found["requests"]["sent"] > 100
    assert "<svg" in (tmp_path / "report.html").read_text()


def test_back_up_and_recover(tmp_path: Path, environment: dict[str, str]) -> None:
    run("ensconce init owner --domain digits.example.test --model digits", tmp_path, environment)
    said = run("\n".join(blocks(REPOSITORY / "docs/how-to/back-up-and-recover.md", "sh")), tmp_path, environment)
    assert "share-3-of-3.txt" in said
    assert "signing/owner" in said


def test_publish_measurements(tmp_path: Path, environment: dict[str, str], signing_key: RSAPrivateKey) -> None:
    run("ensconce init owner --domain digits.example.test --model digits", tmp_path, environment)
    manifest = b'[libos]\nentrypoint = "a"\n[sgx]\nenclave_size = "256M"\nmax_threads = 4\nisvprodid = 1\nisvsvn = 1\n'
    signed = sign_manifest(parse_manifest(manifest), bytes(32), signing_key, date=date(2026, 11, 23))
    owner = OwnerFolder.open(tmp_path / "owner")
    (owner.bundle / SIGSTRUCT).parent.mkdir()
    (owner.bundle / SIGSTRUCT).write_bytes(signed)
    environment |= {"MR_ENCLAVE": "00" * 32}
    run("\n".join(blocks(REPOSITORY / "docs/how-to/publish-measurements.md", "sh")), tmp_path, environment)
    published = parse_published((owner.path / "published.json").read_bytes(), [owner.public_key()]).measurements
    assert (published.serial, published.enclaves) == (3, ())
    assert published.withdrawn[0].reason == "replaced by release 2"


def test_carry_collateral(tmp_path: Path, environment: dict[str, str], sound_report: Callable[..., SgxReport]) -> None:
    home, socket = tmp_path / "vendor", tmp_path / "platform.sock"
    daemon = subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "ensconce.platform.simulated.daemon"),
            *("--home", str(home), "--socket", str(socket)),
        ]
    )
    try:
        control = PlatformControl(socket)
        control.wait(20)
        vendor = SimulatedVendor.load(home)
        for name, recipe in (("replica", QuoteRecipe()), ("other", QuoteRecipe(ca="processor"))):
            (tmp_path / f"{name}.quote").write_bytes(make_quote(vendor, sound_report(vendor), recipe))
        environment |= {"ENSCONCE_PCCS": control.status().pccs, "ROOT": str(home / "root.pem")}
        said = run("\n".join(blocks(REPOSITORY / "docs/how-to/carry-collateral.md", "sh")), tmp_path, environment)
    finally:
        daemon.terminate()
        daemon.wait(20)
    assert said.count("is good until") == 2
    assert "Genuine for a simulated platform" in said


def test_change_a_policy(tmp_path: Path, environment: dict[str, str], deployment: Callable[..., Deployment]) -> None:
    owner = OwnerFolder.create(tmp_path / "owner", deployment())
    code = EnclaveIdentity(mr_enclave=b"\x11" * 32, mr_signer=bytes(32), isv_prod_id=1, isv_svn=1)
    write_policy(owner, code, "intel")
    said = run("\n".join(blocks(REPOSITORY / "docs/how-to/change-a-policy.md", "sh")), tmp_path, environment)
    assert "+ tcb_statuses: SWHardeningNeeded until 2027-03-31" in said
    in_force = policy_store(owner).in_force()
    assert in_force.policy.serial == 3
    assert len(in_force.signers) == 3


def test_verify_a_quote(tmp_path: Path, environment: dict[str, str], vectors: Path) -> None:
    rows = json.loads((vectors / "quotes" / "index.json").read_text())
    row = next(row for row in rows if row["outcome"] == "accept" and row["type"] == "SGX v3")
    shutil.copy(vectors / "quotes" / row["file"], tmp_path / "quote.bin")
    shutil.copy(vectors / "quotes" / row["collateral"], tmp_path / "collateral.json")
    environment["AT"] = str(row["valid_at"])
    said = run("\n".join(blocks(REPOSITORY / "docs/how-to/verify-a-quote.md", "sh")), tmp_path, environment)
    assert row["measurement"] in said
    assert f'"status": "{row["expected_status"]}"' in said


@dataclass(frozen=True)
class Followed:
    """The page for those who come from Graphene's tutorial, followed to its end.

    Attributes:
        folder: where.
        said: on standard output, by all of it.
        client: what TensorFlow Serving's own client said of the enclaves; None where there is no TensorFlow.
    """

    folder: Path
    said: str
    client: str | None


EXAMPLE = (
    '"$PYTHON" examples/client/classify_images.py 127.0.0.1:8500 --server-name "$domain" --policy client/policy.yaml'
    ' --ca client/ca.pem --pccs "$ENSCONCE_PCCS" --model digits --fresh examples/digits/heldout.npz > example.out\n'
)
"""The program of docs/how-to/attest-a-channel.md, with connections that bring fresh quotes."""


@pytest.fixture(scope="module")
def followed(
    tmp_path_factory: pytest.TempPathFactory,
    environment_in: Callable[[Path], dict[str, str]],
    elsewhere: Callable[[str], str],
) -> Iterator[Followed]:
    """Its commands in their order; TensorFlow Serving's own client asks when ours has, so that both need one start."""
    folder = tmp_path_factory.mktemp("graphene")
    (folder / "examples").symlink_to(REPOSITORY / "examples")
    (client,) = blocks(REPOSITORY / "docs/how-to/tensorflow-serving-client.md", "python")
    (folder / "client.py").write_text(client)
    python = Path(os.environ.get("ENSCONCE_TF_PYTHON", REPOSITORY / ".venv-tf" / "bin" / "python"))
    asks = '"$CLIENT" client.py 127.0.0.1:8500 "$domain" client/ca.pem examples/digits/heldout.npz > client.out\n'
    through_proxy = "".join(["{\n", *blocks(REPOSITORY / "docs/how-to/proxy.md", "sh"), "} > proxy.out\n"])
    also = EXAMPLE + through_proxy
    script = [block + also if "ensconce predict" in block else block for block in blocks(PAGE, "sh")]
    if python.is_file():
        script = [block + asks if "ensconce predict" in block else block for block in script]
    said = run(
        elsewhere("\n".join(script)),
        folder,
        environment_in(folder) | {"CLIENT": str(python), "PYTHON": sys.executable},
        170,
    )
    yield Followed(folder, said, (folder / "client.out").read_text() if python.is_file() else None)
    shutil.rmtree(folder)


PAGE = REPOSITORY / "docs/from-the-graphene-tutorial.md"


@pytest.mark.timeout(180)
def test_from_the_graphene_tutorial(followed: Followed) -> None:
    assert "0 refuse, 0 warn, 0 note" in followed.said
    assert (followed.folder / "objects.yaml").read_text().count("kind: Deployment") == 2
    assert re.search("replica-3 +ready", followed.said)
    assert followed.said.count("key.released") == 3
    assert followed.said.count("key.refused  check=policy.mr_enclave") == 1
    assert "accepted   tf-serving.example.test replica" in followed.said
    assert re.search(r"classes: \[\d, \d, \d, \d, \d\]", followed.said)
    assert '"key.retired"' in (followed.folder / "owner" / "audit" / "log.jsonl").read_text()
    assert processes_below(followed.folder) == []


@pytest.mark.timeout(180)
def test_attest_a_channel(followed: Followed) -> None:
    program = (REPOSITORY / "examples/client/classify_images.py").read_text()
    assert program in blocks(REPOSITORY / "docs/how-to/attest-a-channel.md", "python")
    said = (followed.folder / "example.out").read_text()
    assert re.search(r"heldout.npz  classes: \[\d, \d, \d, \d, \d\]", said)
    assert re.search(r"replica [0-9a-f]{16} \(.+\) answered 1", said)


@pytest.mark.timeout(180)
def test_proxy(followed: Followed) -> None:
    said = (followed.folder / "proxy.out").read_text()
    assert '"ready": true' in said
    assert re.search(r'"state": *"AVAILABLE"', said)
    assert 'ensconce_proxy_calls_total{protocol="rest",status="200"} 1.0' in said


@pytest.mark.timeout(180)
def test_tensorflow_servings_own_client(followed: Followed) -> None:
    if followed.client is None:
        pytest.skip("no TensorFlow in .venv-tf; run `make interop-env`, or set ENSCONCE_TF_PYTHON")
    assert re.fullmatch(r"\[(np\.int64\(\d\)|\d)(, (np\.int64\(\d\)|\d)){4}\]", followed.client.strip())


def test_every_test_that_the_page_names_is_there() -> None:
    named = re.findall(r"\[(test_\w+)\]\(\.\./([\w/.]+)\)", PAGE.read_text())
    assert len(named) > 24
    for name, path in named:
        assert re.search(rf"def {name}\b", (REPOSITORY / path).read_text()), f"{path} has no {name}"


def test_the_commands_reference_is_what_the_commands_say() -> None:
    made = runpy.run_path(str(REPOSITORY / "docs" / "commands.py"))
    listed = {command for commands in made["GROUPS"].values() for command in commands}
    assert made["TARGET"].read_text() == made["reference"](), "run: python docs/commands.py"
    assert listed == set(every_command(typer.main.get_command(app)))


def every_command(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    for name, sub in getattr(command, "commands", {}).items():
        yield from every_command(sub, (*path, name))
    if not hasattr(command, "commands"):
        yield " ".join(path)
