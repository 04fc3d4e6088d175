"""The images, built once and once more; an owner and her enclave, made in containers."""

from __future__ import annotations

import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from containers import DOMAIN, KINDS, LOCKED_DOWN, REPOSITORY, TARGETS, build, enclave_build, podman, run, words


@pytest.fixture(scope="session")
def once() -> dict[str, str]:
    for program in ("buildah", "podman"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    return build("localhost/ensconce-test", *TARGETS)


@pytest.fixture(scope="session")
def again(once: dict[str, str]) -> dict[str, str]:
    return build("localhost/ensconce-test-again", *TARGETS, NO_CACHE="1")


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


@pytest.fixture(scope="session")
def measured(image: Callable[[str], str], owner: Path, kind: str) -> str:
    """The measurement of the owner's enclave, which is in her bundle now."""
    return enclave_build(image(f"enclave-{kind}"), owner)


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
