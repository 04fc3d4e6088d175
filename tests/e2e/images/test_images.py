"""The images themselves: built twice, looked into, and run. Minutes and other programs, so `make images-test` alone.

``ENSCONCE_PODMAN`` and ``ENSCONCE_PODMAN_RUN`` say how to call Podman where it needs options; ``BASE``, what to build
on. Where ``GRAMINE_BASE`` names a base with Gramine, the images for it are built, too; nothing here needs SGX.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[3]
KINDS = ("simulated", *(("gramine",) if "GRAMINE_BASE" in os.environ else ()))
TARGETS = ("client", "provisioning", *(f"{each}-{kind}" for kind in KINDS for each in ("enclave", "server")))
DOMAIN = "digits.example.test"
OWNERS = ("server.json", "server.manifest.sgx", "server.sig")
# Beside them for Gramine: how names are looked up, and the manifest before its tool has read it.
GRAMINES = ("hosts", "nsswitch.conf", "resolv.conf", "server.manifest")
LOCKED_DOWN = (
    *("--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges"),
    *("--tmpfs", "/run/ensconce"),
)
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{60}")

pytestmark = [
    pytest.mark.skipif("ENSCONCE_IMAGES_TEST" not in os.environ, reason="minutes: `make images-test` runs it"),
    pytest.mark.timeout(3600),
]


def words(variable: str, default: str = "") -> list[str]:
    return shlex.split(os.environ.get(variable, default))


def podman(*arguments: str | Path, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [*words("ENSCONCE_PODMAN", "podman"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def run(image: str, *arguments: str | Path, options: tuple[str | Path, ...] = (), check: bool = True) -> Any:
    """A container that may do nothing that it need not, until it ends."""
    network = () if any("--network" in str(option) for option in options) else ("--network=none",)
    return podman(
        *("run", "--rm", *words("ENSCONCE_PODMAN_RUN"), *LOCKED_DOWN, *network, *options, image, *arguments),
        check=check,
    )


def until(reached: Callable[[], bool], seconds: float) -> None:
    """Containers start slowly where much else is done."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def build(name: str, **environment: str) -> dict[str, str]:
    """Build all images as ``name/TARGET:test``; their digests by target."""
    done = subprocess.run(
        [REPOSITORY / "deploy" / "images" / "build", *TARGETS],
        env=os.environ | {"NAME": name, "TAG": "test", **environment},
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(re.findall(r"^([a-z-]+) (sha256:[0-9a-f]{64})$", done.stdout, re.M))


@pytest.fixture(scope="session")
def once() -> dict[str, str]:
    for program in ("buildah", "podman"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    return build("localhost/ensconce-test")


@pytest.fixture(scope="session")
def again(once: dict[str, str]) -> dict[str, str]:
    return build("localhost/ensconce-test-again", NO_CACHE="1")


@pytest.fixture(scope="session")
def image(once: dict[str, str]) -> Callable[[str], str]:
    return lambda target: f"localhost/ensconce-test/{target}:test"


@pytest.fixture(scope="session")
def contents(image: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file system of an image, as an archive."""
    folder = tmp_path_factory.mktemp("contents")

    def of(target: str) -> Path:
        path = folder / f"{target}.tar"
        if not path.exists():
            container = podman("create", "--network=none", image(target)).stdout.strip()
            podman("export", "--output", path, container)
            podman("rm", container)
        return path

    return of


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """What runs the enclaves."""
    return str(request.param)


@pytest.fixture(scope="session")
def owner(image: Callable[[str], str], kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An owner's folder with a sealed model, made in containers."""
    folder = tmp_path_factory.mktemp("owner")
    folder.chmod(0o777)
    model = REPOSITORY / "examples" / "digits" / "openvino"
    mounts = ("-v", f"{folder}:/owner", "-v", f"{model}:/model:ro")
    run(image("provisioning"), *("init", "/owner/made", "--domain", DOMAIN, "--model", "digits"), options=mounts)
    made = folder / "made"
    text = (made / "ensconce.yaml").read_text()
    listening = "  listen:\n    grpc: 127.0.0.1:8500\n    rest: 127.0.0.1:8501\n"
    assert "kind: simulated" in text
    text = text.replace("kind: simulated", f"kind: {kind}")
    (made / "ensconce.yaml").write_text(text.replace("enclave:\n", f"enclave:\n{listening}"))
    sealing = ("--name", "digits", "--version", "1", "--owner", "/owner/made")
    run(image("provisioning"), "model", "seal", "/model", *sealing, options=mounts)
    return made


def enclave_build(image: str, owner: Path) -> str:
    done = run(image, *("enclave", "build", "--json", "--owner", "/owner"), options=("-v", f"{owner}:/owner"))
    return str(json.loads(done.stdout)["mr_enclave"])


@pytest.fixture(scope="session")
def measured(image: Callable[[str], str], owner: Path, kind: str) -> str:
    """The measurement of the owner's enclave, which is in her bundle now."""
    return enclave_build(image(f"enclave-{kind}"), owner)


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
    prefix = "opt/ensconce/enclave/"
    held = {}
    with tarfile.open(contents(f"server-{kind}")) as archive:
        for entry in archive:
            if entry.name.startswith(prefix) and entry.isfile():
                stream = archive.extractfile(entry)
                assert stream is not None
                held[entry.name.removeprefix(prefix)] = hashlib.file_digest(
                    io.BytesIO(stream.read()), "sha256"
                ).hexdigest()
    enclave = owner / "bundle" / "enclave"
    built = {
        str(path.relative_to(enclave)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in enclave.rglob("*")
        if path.is_file() and path not in {enclave / name for name in OWNERS + GRAMINES}
    }
    assert held == built


@pytest.fixture
def machine() -> Iterator[Callable[..., str]]:
    """Start containers that share one network, of a loopback alone; they are gone in the end."""
    names: list[str] = []

    def start(image: str, *arguments: str | Path, options: tuple[str | Path, ...] = ()) -> str:
        name = f"ensconce-test-{uuid.uuid4().hex[:12]}"
        network = f"--network=container:{names[0]}" if names else "--network=none"
        podman(
            *("run", "--detach", "--name", name, *words("ENSCONCE_PODMAN_RUN"), *LOCKED_DOWN, network, *options),
            *(image, *arguments),
        )
        names.append(name)
        return name

    yield start
    for name in reversed(names):
        podman("rm", "--force", "--time", "5", name, check=False)


def owners_files(owner: Path) -> tuple[str, ...]:
    """What is mounted into a server image."""
    enclave = owner / "bundle" / "enclave"
    mounts = [("-v", f"{enclave / name}:/opt/ensconce/enclave/{name}:ro") for name in OWNERS]
    return *(word for mount in mounts for word in mount), "-v", f"{owner / 'bundle' / 'models'}:/opt/ensconce/models:ro"


@pytest.mark.parametrize("kind", ["simulated"], indirect=True)
def test_the_story(
    image: Callable[[str], str],
    machine: Callable[..., str],
    measured: str,
    owner: Path,
    tmp_path: Path,
) -> None:
    vendor = machine(
        image("server-simulated"), "simulated", "serve", "--listen", "127.0.0.1:8081", "--home", "/run/ensconce/vendor"
    )
    beside = (f"--network=container:{vendor}",)
    ours = ("-v", f"{owner}:/owner")

    def answers(*arguments: str) -> bool:
        done = run(image("client"), *arguments, options=(*beside, *ours), check=False)
        said.append(done.stdout + done.stderr)
        return bool(done.returncode == 0)

    said: list[str] = []
    until(lambda: answers("simulated", "root", "http://127.0.0.1:8081"), 60)
    root = said[-1].strip()
    run(image("provisioning"), *("policy", "write", "--owner", "/owner", "--root", root), options=(*beside, *ours))
    machine(image("provisioning"), "provision", "serve", "--owner", "/owner", options=ours)
    server = ("replica", "run", "/opt/ensconce", "--platform", "simulated", "--vendor", "http://127.0.0.1:8081")
    replica = machine(image("server-simulated"), *server, options=owners_files(owner))
    attested = ("--server-name", DOMAIN, "--policy", "/owner/policy.yaml", "--ca", "/owner/ca.pem")
    attested += ("--pccs", "http://127.0.0.1:8081")
    try:
        until(lambda: answers("verify", "127.0.0.1:8500", *attested, "--json"), 120)
    except BaseException:
        print(podman("logs", replica, check=False), said[-1])  # noqa: T201
        raise
    assert measured in said[-1]
    assert podman("stop", "--time", "30", replica).returncode == 0
    assert podman("inspect", "--format", "{{.State.ExitCode}}", replica).stdout.strip() == "0"

    # One file of the image is another one.
    changed = tmp_path / "codecs.pyc"
    changed.write_bytes(b"another")
    inside = next((owner / "bundle" / "enclave" / "image" / "lib").glob("python3.*/codecs.pyc"))
    path = f"/opt/ensconce/enclave/{inside.relative_to(owner / 'bundle' / 'enclave')}"
    tampered = ("-v", f"{changed}:{path}:ro")
    refused = run(image("server-simulated"), *server, options=(*beside, *owners_files(owner), *tampered), check=False)
    assert refused.returncode == 6
    assert "launcher.trusted_file" in refused.stderr
