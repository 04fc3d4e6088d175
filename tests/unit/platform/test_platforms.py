"""Gramine's files, the door, and the choice between them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import ensconce
from ensconce.errors import EvidenceError, InputError
from ensconce.platform import Platform, current
from ensconce.platform.gramine import GraminePlatform
from ensconce.platform.simulated.door import SimulatedPlatform, is_door
from ensconce.platform.simulated.wire import short_name

SOURCES = str(Path(ensconce.__file__).parents[1])


class Attestation:
    """A folder that stands for ``/dev/attestation``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "user_report_data").write_bytes(bytes(64))

    def answer(self, quote: bytes) -> None:
        (self.root / "quote").write_bytes(quote)

    @staticmethod
    def quote_over(report_data: bytes) -> bytes:
        return b"\3\0" + bytes(46) + bytes(320) + report_data + b"the rest"


@pytest.fixture
def device(tmp_path: Path) -> Attestation:
    return Attestation(tmp_path)


def test_gramines_files(device: Attestation) -> None:
    report_data = bytes(range(64))
    device.answer(device.quote_over(report_data))
    platform: Platform = GraminePlatform(device.root)
    assert platform.name == "gramine"
    assert platform.quote(report_data) == device.quote_over(report_data)
    assert (device.root / "user_report_data").read_bytes() == report_data


@pytest.mark.parametrize("size", [0, 63, 65])
def test_report_data_of_another_length_is_not_written(device: Attestation, size: int) -> None:
    device.answer(device.quote_over(bytes(64)))
    with pytest.raises(InputError) as refusal:
        GraminePlatform(device.root).quote(b"\1" * size)
    assert refusal.value.check == "platform.report_data"
    assert (device.root / "user_report_data").read_bytes() == bytes(64)


@pytest.mark.parametrize(
    "quote", [b"", bytes(48), bytes(432), Attestation.quote_over(b"\2" * 64), Attestation.quote_over(b"\1" * 64) * 40]
)
def test_a_quote_over_something_else_is_refused(device: Attestation, quote: bytes) -> None:
    device.answer(quote)
    with pytest.raises(EvidenceError) as refusal:
        GraminePlatform(device.root).quote(b"\1" * 64)
    assert refusal.value.check == "platform.quote"


@pytest.mark.parametrize("missing", ["quote", "user_report_data"])
def test_gramine_without_remote_attestation(device: Attestation, missing: str) -> None:
    (device.root / missing).unlink(missing_ok=True)
    (device.root / missing).mkdir()
    with pytest.raises(InputError) as refusal:
        GraminePlatform(device.root).quote(bytes(64))
    assert refusal.value.check == "platform.gramine"
    assert "remote_attestation" in str(refusal.value)


def test_a_door_is_a_path_descriptor_of_a_socket_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server, short_name(path) as name:
        server.bind(name)
        door = os.open(path, os.O_PATH)
        assert is_door(door)
        os.close(door)
        assert not is_door(server.fileno())
    for other, flags in ((tmp_path, os.O_PATH), (tmp_path, os.O_RDONLY), (Path(os.devnull), os.O_PATH)):
        handle = os.open(other, flags)
        assert not is_door(handle)
        os.close(handle)
    assert not is_door(handle)


def test_the_simulated_platform_has_a_name() -> None:
    platform: Platform = SimulatedPlatform()
    assert platform.name == "simulated"


def test_a_process_that_is_no_enclave_is_told_so() -> None:
    if is_door() or Path("/dev/attestation").is_dir():
        pytest.skip("these tests run inside an enclave")
    with pytest.raises(InputError) as refusal:
        current()
    assert refusal.value.check == "platform.none"


def test_the_enclaves_side_imports_little() -> None:
    """It is part of the trusted code base, on every platform."""
    script = (
        "import sys; before = set(sys.modules)\n"
        "import ensconce.platform, ensconce.platform.gramine, ensconce.platform.simulated.door\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    environment = {"PYTHONPATH": SOURCES}
    shown = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    foreign = {
        name.partition(".")[0] for name in shown.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names
    }
    assert foreign == {"ensconce"}
    ours = {name for name in shown.stdout.split() if name.startswith("ensconce.")}
    assert ours <= {
        "ensconce.errors",
        "ensconce.platform",
        "ensconce.platform.gramine",
        "ensconce.platform.simulated",
        "ensconce.platform.simulated.door",
        "ensconce.platform.simulated.wire",
        "ensconce.strict_json",
    }
