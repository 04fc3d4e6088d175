"""The Dockerfile keeps its rules. Building images takes minutes and other programs: `make images-test` does that."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[4]
IMAGES = REPOSITORY / "deploy" / "images"
TARGETS = (
    *("client", "provisioning", "enclave-simulated", "server-simulated"),
    *("enclave-gramine", "server-gramine", "tensorflow-serving-gramine"),
)
PINNED = re.compile(r"[a-z0-9.]+/[a-z0-9/-]+:[A-Za-z0-9._-]+@sha256:[0-9a-f]{64}")


@dataclass
class Stage:
    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def said(self, instruction: str) -> list[str]:
        return [rest for word, rest in self.steps if word == instruction]


def instructions() -> list[tuple[str, str]]:
    text = (IMAGES / "Dockerfile").read_text()
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.M)).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    found: dict[str, Stage] = {}
    stage = Stage("", "")
    for word, rest in instructions():
        if word == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()  # type: ignore[union-attr]
            stage = found[name] = Stage(name, base)
        else:
            stage.steps.append((word, rest))
    return found


def test_every_base_is_an_argument_and_pinned() -> None:
    before = [rest for word, rest in instructions()[: [word for word, _ in instructions()].index("FROM")]]
    defaults = dict(rest.split("=", 1) for rest in before)
    assert set(defaults) == {"BASE", "GRAMINE_BASE", "TENSORFLOW_SERVING"}
    # Whoever wants TensorFlow Serving's says whose build.
    assert defaults.pop("TENSORFLOW_SERVING") == "scratch"
    for name, default in defaults.items():
        assert PINNED.fullmatch(default), name


def test_stages_are_made_of_bases_and_of_each_other(stages: dict[str, Stage]) -> None:
    seen = {"${BASE}", "${GRAMINE_BASE}", "${TENSORFLOW_SERVING}"}
    for stage in stages.values():
        assert stage.base in seen
        for source in re.findall(r"--from=(\S+)", " ".join(stage.said("COPY"))):
            assert source in seen
        seen.add(stage.name)


@pytest.mark.parametrize("name", TARGETS)
def test_an_image_is_copied_together_and_runs_as_nobody(stages: dict[str, Stage], name: str) -> None:
    stage = stages[name]
    # What a step leaves behind (caches, compilers, packages' installers) stays in the stage where it ran.
    assert stage.base in ("system", "gramine-system")
    assert not stage.said("RUN")
    assert all(copied.startswith("--from=") for copied in stage.said("COPY"))
    # Caches know this file by its contents, and build arguments only by their names.
    assert stages[stage.base].steps[0] == ("COPY", "build/images/stamp.json /usr/share/ensconce/stamp.json")
    assert stage.said("USER") == ["10001:10001"]
    assert stage.said("ENTRYPOINT") == ['["ensconce"]']
    assert any(f"finish {name}" in command for command in stages[f"{name}-parts"].said("RUN"))
    labels = " ".join(stage.said("LABEL"))
    assert f'title="ensconce-{name}"' in labels
    for label in ("description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in labels


def test_only_targets_are_not_used_by_others(stages: dict[str, Stage]) -> None:
    text = " ".join(f"{stage.base} {stage.said('COPY')}" for stage in stages.values())
    unused = {name for name in stages if not re.search(rf"(--from=| |^){name}( |$)", text)}
    assert unused <= set(TARGETS)


def test_no_step_needs_a_network() -> None:
    for word, rest in instructions():
        assert word in {"ARG", "FROM", "ENV", "COPY", "RUN", "LABEL", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}
        assert word == "ARG" or "://" not in rest
    script = (IMAGES / "install.sh").read_text()
    assert "--no-index" in script
    assert "--require-hashes" in script
    assert not re.search(r"\b(curl|wget|apt-get|git)\b", script)


def test_every_check_can_fail() -> None:
    """``set -e`` passes over a command with ``!`` before it, unless it is the last of the script."""
    script = (IMAGES / "install.sh").read_text()
    assert script.startswith("#!/bin/sh\n")
    assert "set -eu\n" in script
    assert not re.search(r"^\s*! .*\n(?!\s*;;)", script, re.M)


def test_telemetry_ends_the_build(tmp_path: Path) -> None:
    script = (IMAGES / "install.sh").read_text()
    check = re.search(r"    if \$target/bin/python -c 'import openvino_telemetry'.*?\n    fi\n", script, re.S)
    assert check is not None
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    for found, status in ((0, 1), (1, 0)):
        python.write_text(f"#!/bin/sh\nexit {found}\n")
        python.chmod(0o755)
        program = f"set -eu\ntarget={tmp_path}\n{check[0]}:\n"
        assert subprocess.run(["sh", "-c", program], check=False, capture_output=True).returncode == status


def test_no_secret_has_a_place() -> None:
    for word, rest in instructions():
        if word in ("ARG", "ENV"):
            assert not re.search(r"secret|token|passw|credential|_key", rest, re.I)


def test_the_context_is_what_is_copied(stages: dict[str, Stage]) -> None:
    rules = (IMAGES / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [rule for rule in rules if rule and not rule.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:].partition("/*")[0] for rule in rules if rule.startswith("!")}
    copied = {
        source
        for stage in stages.values()
        for copy in stage.said("COPY")
        if "--from=" not in copy
        for source in copy.split()[:-1]
    }
    assert copied - {path for path in copied if path.startswith("deploy/images/")} == let_in - {"deploy/images"}
    for path in copied - {"build/images/wheels", "build/images/stamp.json"}:
        assert (REPOSITORY / path).exists()


def test_locks_agree() -> None:
    def pins(name: str) -> dict[str, str]:
        text = (REPOSITORY / "requirements" / f"{name}.txt").read_text()
        return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", text, re.M))

    runtime = pins("runtime")
    assert pins("no-engine").items() == {name: pin for name, pin in runtime.items() if name != "openvino"}.items()
    assert pins("provisioning").items() >= pins("no-engine").items()
    assert {"boto3", "psycopg"} <= pins("provisioning").keys()
    for name in ("runtime", "no-engine", "provisioning"):
        assert "openvino-telemetry" not in pins(name)
