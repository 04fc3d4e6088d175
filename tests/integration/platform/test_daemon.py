"""The daemon as the host and the enclaves meet it: a real process, a real socket, real enclaves."""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensconce.appraisal.collateral import PlatformKind
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.pccs import fetch_collateral
from ensconce.appraisal.root import IntelRoot, SimulatedRoot
from ensconce.appraisal.verdict import SimulatedVerdict, TcbStatus
from ensconce.errors import EvidenceError, InputError, IntegrityError, RefusedError, UnreachableError
from ensconce.evidence.quote import parse_quote
from ensconce.evidence.report import SgxReport
from ensconce.platform.manifest import parse_manifest
from ensconce.platform.simulated.control import PlatformControl
from ensconce.platform.simulated.measurement import measure
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.wire import ask, short_name

REPORT_DATA = bytes(range(64))
QUOTE = f"""
import json
from ensconce.platform import current
platform = current()
print(json.dumps({{"platform": platform.name, "quote": platform.quote(bytes.fromhex("{REPORT_DATA.hex()}")).hex()}}))
"""
SELF = """
import json, os, resource, signal
print(json.dumps({
    "argv": sys.orig_argv,
    "env": {k.decode(): v.decode() for k, v in os.environb.items()},
    "cwd": os.getcwd(),
    "descriptors": sorted(int(n) for n in os.listdir("/proc/self/fd")),
    "stdin": os.readlink("/proc/self/fd/0"),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "filter": int(open("/proc/self/coredump_filter").read(), 16),
    "blocked": [int(s) for s in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "executable": os.readlink("/proc/self/exe"),
}))
"""


def refused_by_hand(machine: Any, data: bytes) -> dict[str, Any]:
    """Send raw bytes; return the answer, after which the daemon must have closed the connection."""
    with socket.socket(socket.AF_UNIX) as stream, short_name(machine.socket) as name:
        stream.settimeout(10)
        stream.connect(name)
        stream.sendall(data)
        with stream.makefile("rb") as file:
            answer = file.read()
    (size,) = struct.unpack(">I", answer[:4])
    assert len(answer) == 4 + size
    fields: dict[str, Any] = json.loads(answer[4:])
    return fields


def test_an_enclave_gets_a_quote_of_its_own_measurement(machine: Any, make_enclave: Callable[..., Any]) -> None:
    enclave = make_enclave(QUOTE)
    measurement = enclave.sign()
    answer = machine.run(enclave)
    assert answer["platform"] == "simulated"
    report = parse_quote(bytes.fromhex(answer["quote"])).body
    assert isinstance(report, SgxReport)
    assert report.mr_enclave == measurement
    assert report.report_data == REPORT_DATA
    assert (report.isv_prod_id, report.isv_svn) == (7, 3)
    assert report.attributes.init
    assert report.attributes.mode64bit
    assert not report.attributes.debug
    assert report.cpu_svn == SimulatedVendor.load(machine.home).cpu_svn


def test_the_quote_verifies_with_what_the_machines_pccs_serves(machine: Any, make_enclave: Callable[..., Any]) -> None:
    enclave = make_enclave(QUOTE)
    quote = bytes.fromhex(machine.run(enclave)["quote"])
    status = machine.control.status()
    vendor = SimulatedVendor.load(machine.home)
    assert status.root == vendor.root_name
    collateral = fetch_collateral(status.pccs, PlatformKind("sgx", vendor.FMSPC.hex(), "platform"), roots=())
    root = SimulatedRoot(vendor.root_certificate_der)
    verdict = verify_quote(quote, collateral, at=int(time.time()), root=root)
    assert type(verdict) is SimulatedVerdict
    assert verdict.root == status.root
    assert verdict.status is TcbStatus.UP_TO_DATE
    assert isinstance(verdict.report, SgxReport)
    assert verdict.report.mr_enclave == measure(parse_manifest(enclave.manifest.read_bytes()))
    with pytest.raises(EvidenceError):
        verify_quote(quote, collateral, at=int(time.time()), root=IntelRoot())


def test_a_debug_enclave_runs_and_its_report_says_so(machine: Any, make_enclave: Callable[..., Any]) -> None:
    answer = machine.run(make_enclave(QUOTE, sgx={"debug": True}))
    report = parse_quote(bytes.fromhex(answer["quote"])).body
    assert isinstance(report, SgxReport)
    assert report.attributes.debug


def test_the_host_chooses_nothing_but_the_folder(machine: Any, make_enclave: Callable[..., Any]) -> None:
    enclave = make_enclave(SELF, env={"MEASURED": "ja, ü", "EMPTY": ""})
    seen = machine.run(enclave)
    # The interpreter adds LC_CTYPE to its own environment when the locale is C (PEP 538).
    assert {name: value for name, value in seen["env"].items() if name != "LC_CTYPE"} == {
        "MEASURED": "ja, ü",
        "EMPTY": "",
    }
    assert seen["argv"] == enclave.argv
    assert seen["cwd"] == str(enclave.root)
    # 4 is the folder that the script itself lists.
    assert seen["descriptors"] == [0, 1, 2, 3, 4]
    assert seen["stdin"] == "/dev/null"
    assert seen["core"] == [0, 0]
    assert seen["filter"] == 0
    assert seen["blocked"] == []
    assert seen["executable"] == os.path.realpath(sys.executable)


def test_a_launch_request_cannot_carry_argv_or_environment(machine: Any, make_enclave: Callable[..., Any]) -> None:
    enclave = make_enclave("")
    paths = {"manifest": enclave.manifest, "sigstruct": enclave.sigstruct, "cwd": enclave.root}
    request = {name: str(path) for name, path in paths.items()} | {"stdout": "/dev/null", "stderr": "/dev/null"}
    with short_name(machine.socket) as name:
        for extra in ({"argv": ["python3"]}, {"env": {"PYTHONPATH": "/tmp"}}, {"entrypoint": "/bin/sh"}):
            with pytest.raises(InputError) as refusal:
                ask(name, {"request": "launch", **request, **extra}, 10)
            assert refusal.value.check == "door.message"
            assert next(iter(extra)) in str(refusal.value)


def test_a_stranger_gets_no_quote(machine: Any) -> None:
    with short_name(machine.socket) as name, pytest.raises(RefusedError) as refusal:
        ask(name, {"request": "quote", "report_data": REPORT_DATA.hex()}, 10)
    assert refusal.value.check == "door.not_an_enclave"
    assert str(os.getpid()) in str(refusal.value)


def test_a_forked_child_of_an_enclave_gets_no_quote(machine: Any, make_enclave: Callable[..., Any]) -> None:
    enclave = make_enclave("""
import json, os
from ensconce.errors import RefusedError
from ensconce.platform import current
current().quote(bytes(64))
read, write = os.pipe()
if os.fork() == 0:
    try:
        current().quote(bytes(64))
        os.write(write, b"a quote")
    except RefusedError as error:
        os.write(write, error.check.encode())
    os._exit(0)
os.wait()
print(json.dumps({"child": os.read(read, 100).decode()}))
""")
    assert machine.run(enclave) == {"child": "door.not_an_enclave"}


def test_a_connection_outlives_its_enclave_without_its_rights(machine: Any, make_enclave: Callable[..., Any]) -> None:
    """The enclave connects, forks, and ends; the child inherits a connection that was the enclave's."""
    enclave = make_enclave("""
import os, socket, json
from ensconce.platform.simulated.wire import encode
stream = socket.socket(socket.AF_UNIX)
stream.connect("/proc/self/fd/3")
enclave = os.getpid()
if os.fork() == 0:
    os.setsid()
    while os.getppid() == enclave:
        pass
    stream.sendall(encode({"request": "quote", "report_data": "00" * 64}))
    print(stream.recv(65536)[4:].decode(), flush=True)
""")
    pid = machine.launch(enclave)
    assert machine.wait_for_end(pid) == 0
    # The child left the enclave's process group, but not the daemon's reach: it was killed with its enclave, or it was
    # quick and got a refusal. A quote it never gets.
    assert '"quote":' not in (enclave.root / "out").read_text()


@pytest.mark.parametrize(
    ("data", "check"),
    [
        (struct.pack(">I", 65537) + b"x", "door.frame"),
        (struct.pack(">I", 0xFFFFFFFF), "door.frame"),
        (struct.pack(">I", 3) + b"{]}", "door.message"),
        (struct.pack(">I", 2) + b"[]", "door.message"),
        (struct.pack(">I", 2) + b"\xff\xfe", "door.message"),
        (struct.pack(">I", 65536) + b"[" * 65536, "door.message"),
        (struct.pack(">I", 39) + b'{"request": "list", "request": "quote"}', "door.message"),
    ],
    ids=["too long", "far too long", "not JSON", "not an object", "not UTF-8", "deep", "twice"],
)
def test_malformed_frames_are_refused_and_the_connection_closed(machine: Any, data: bytes, check: str) -> None:
    answer = refused_by_hand(machine, data)
    assert answer["error"]["check"] == check
    assert answer["exit_status"] == 2
    assert machine.control.status().pid == machine.process.pid


@pytest.mark.parametrize(
    ("message", "check"),
    [
        ({"request": "list", "more": 1}, "door.message"),
        ({"request": "launch"}, "door.message"),
        ({"request": "signal", "pid": "1", "signal": 15}, "door.message"),
        ({"request": "signal", "pid": True, "signal": 15}, "door.message"),
        ({"request": "signal", "pid": 1, "signal": 15}, "daemon.pid"),
        ({"request": ["quote"]}, "door.message"),
        ({}, "door.message"),
        ({"request": "quit"}, "door.message"),
        ({"request": "quote"}, "door.message"),
    ],
)
def test_unknown_messages_and_fields_are_refused(machine: Any, message: dict[str, Any], check: str) -> None:
    with short_name(machine.socket) as name, pytest.raises(InputError) as refusal:
        ask(name, message, 10)
    assert refusal.value.check == check


@pytest.mark.parametrize("path", ["relative", "", "/with\0nul", "/\ud800"])
def test_paths_must_be_absolute(machine: Any, path: str) -> None:
    paths = {"manifest": path, "sigstruct": "/s", "cwd": "/", "stdout": "/dev/null", "stderr": "/dev/null"}
    with short_name(machine.socket) as name, pytest.raises(InputError) as refusal:
        ask(name, {"request": "launch", **paths}, 10)
    assert refusal.value.check == "door.path"


def test_a_short_report_data_is_refused(machine: Any, make_enclave: Callable[..., Any]) -> None:
    enclave = make_enclave("""
import json
from ensconce.errors import InputError
from ensconce.platform.simulated.wire import ask
checks = []
for text in ("", "00" * 63, "00" * 65, "zz" * 64, " 0" * 64):
    try:
        ask("/proc/self/fd/3", {"request": "quote", "report_data": text}, 10)
    except InputError as error:
        checks.append(error.check)
print(json.dumps(checks))
""")
    assert machine.run(enclave) == ["door.report_data"] * 5


def test_only_the_user_can_reach_the_socket(machine: Any) -> None:
    assert stat.S_IMODE(machine.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(machine.home.stat().st_mode) == 0o700
    assert stat.S_IMODE((machine.home / "vendor.json").stat().st_mode) == 0o600


def test_idle_and_broken_connections_do_not_keep_others_out(machine: Any) -> None:
    with short_name(machine.socket) as name:
        streams = [socket.socket(socket.AF_UNIX) for _ in range(50)]
        for stream in streams:
            stream.connect(name)
            stream.sendall(b"\0\0")
        assert machine.control.status().pid == machine.process.pid
        for stream in streams:
            stream.close()
    assert machine.control.status().pid == machine.process.pid


def test_what_the_launcher_refuses_reaches_the_host_as_the_same_error(
    machine: Any, make_enclave: Callable[..., Any]
) -> None:
    enclave = make_enclave(QUOTE)
    enclave.script.write_text(enclave.script.read_text() + "#")
    with pytest.raises(IntegrityError) as refusal:
        machine.launch(enclave)
    assert refusal.value.check == "launcher.trusted_file"
    assert refusal.value.remedy


def test_a_program_that_cannot_be_executed_is_an_error_of_the_launch(
    machine: Any, make_enclave: Callable[..., Any]
) -> None:
    enclave = make_enclave("")
    enclave.entrypoint = "enclave/main.py"
    enclave.sign()
    with pytest.raises(InputError) as refusal:
        machine.launch(enclave)
    assert refusal.value.check == "launcher.start"
    assert "main.py" in str(refusal.value)


@pytest.mark.parametrize("what", ["cwd", "stdout"])
def test_a_missing_folder_is_an_error_of_the_launch(
    machine: Any, make_enclave: Callable[..., Any], what: str, tmp_path: Path
) -> None:
    enclave = make_enclave("", argv=["python3", "-c", "0"])
    paths = {
        "manifest": enclave.manifest,
        "sigstruct": enclave.sigstruct,
        "cwd": enclave.root,
        "stdout": tmp_path / "out",
        "stderr": tmp_path / "err",
    }
    with pytest.raises((InputError, IntegrityError)) as refusal:
        machine.control.launch(**paths | {what: tmp_path / "nowhere" / "deeper"})
    assert "nowhere" in str(refusal.value)


def test_signals_reach_enclaves_and_ended_ones_are_past_hearing(machine: Any, make_enclave: Callable[..., Any]) -> None:
    enclave = make_enclave("import signal\nprint('up', flush=True)\nwhile True: signal.pause()")
    pid = machine.launch(enclave)
    entry = machine.entry(pid)
    assert (entry.running, entry.exit_status) == (True, None)
    with pytest.raises(InputError) as refusal:
        machine.control.signal(pid, 19)
    assert refusal.value.check == "daemon.signal"
    machine.control.signal(pid, 15)
    assert machine.wait_for_end(pid) == -15
    machine.control.signal(pid, 15)


def test_nobody_at_the_socket_is_said_so(tmp_path: Path) -> None:
    for path in (tmp_path / "none.sock", tmp_path / "nowhere" / "none.sock"):
        with pytest.raises(UnreachableError) as refusal:
            PlatformControl(path).wait(0.05)
        assert refusal.value.check == "platform.daemon"
