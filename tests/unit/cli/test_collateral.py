"""``ensconce collateral`` against the simulated vendor's own PCCS, over HTTP."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from ensconce.appraisal.bundle import CollateralBundle
from ensconce.cli.main import main
from ensconce.evidence.report import SgxReport
from ensconce.platform.simulated.collateral import CollateralRecipe, DocumentRecipe
from ensconce.platform.simulated.http import serve_http
from ensconce.platform.simulated.pccs import Pccs
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import QuoteRecipe, make_quote

NOW = int(time.time())
VENDOR = SimulatedVendor(bytes(32), NOW - 86_400)
FMSPC = VENDOR.FMSPC.hex().upper()


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    monkeypatch.delenv("ENSCONCE_PCCS", raising=False)

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["ensconce", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return Outcome(left.value.code, captured.out, captured.err)

    return run


class Running:
    """The simulated PCCS, on a port of its own, in the condition that a test chooses."""

    def __init__(self) -> None:
        self.recipe = CollateralRecipe()
        self.url = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await serve_http(
            "127.0.0.1", 0, lambda target: Pccs(VENDOR, lambda: int(time.time()), self.recipe).get(target)
        )
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)


@pytest.fixture
def pccs() -> Iterator[Running]:
    running = Running()
    yield running
    running.stop()


@pytest.fixture
def folder(tmp_path: Path, sound_report: Callable[..., SgxReport]) -> Path:
    (tmp_path / "root.pem").write_text(VENDOR.root.pem)
    report = sound_report(VENDOR)
    (tmp_path / "one").write_bytes(make_quote(VENDOR, report))
    (tmp_path / "text").write_text("nothing of the kind")
    (tmp_path / "two").write_bytes(make_quote(VENDOR, report, QuoteRecipe(ca="processor")))
    return tmp_path


def test_fetch_by_quote_and_verify_with_it(run: Callable[..., Outcome], pccs: Running, folder: Path) -> None:
    out, root = folder / "bundle.json", folder / "root.pem"
    done = run("collateral", "fetch", folder / "one", "--url", pccs.url, "--root", root, "-o", out)
    assert done.status == 0, done.err
    assert done.out.startswith(f"sgx-{FMSPC}-platform is good until ")
    verified = run("quote", "verify", folder / "one", "--collateral", out, "--at", int(time.time()), "--root", root)
    assert verified.status == 0, verified.err


def test_the_certificate_that_a_replica_shows_does_for_its_quote(
    run: Callable[..., Outcome],
    pccs: Running,
    folder: Path,
    sound_report: Callable[..., SgxReport],
    gramine_certificate: Callable[..., x509.Certificate],
) -> None:
    report = sound_report(VENDOR)
    certificate = gramine_certificate(
        ec.generate_private_key(ec.SECP256R1()), lambda data: make_quote(VENDOR, replace(report, report_data=data))
    )
    shown, out, root = folder / "replica.pem", folder / "bundle.json", folder / "root.pem"
    shown.write_bytes(certificate.public_bytes(Encoding.PEM))
    done = run("collateral", "bundle", shown, "--url", pccs.url, "--root", root, "-o", out)
    assert done.status == 0, done.err
    verified = run("quote", "verify", shown, "--collateral", out, "--at", int(time.time()), "--root", root)
    assert verified.status == 0, verified.err
    assert run("quote", "show", shown, "--json").json["mr_enclave"] == report.mr_enclave.hex()


@pytest.mark.parametrize("tee", ["sgx", "tdx"])
def test_fetch_by_kind_of_platform(run: Callable[..., Outcome], pccs: Running, folder: Path, tee: str) -> None:
    out = folder / "bundle.json"
    kind = ("--fmspc", FMSPC.lower(), "--ca", "processor", "--tee", tee)
    done = run("collateral", "fetch", *kind, "--url", pccs.url, "--root", folder / "root.pem", "-o", out)
    assert done.status == 0, done.err
    (platform,) = CollateralBundle.from_json(out.read_bytes()).platforms
    assert str(platform) == f"{tee}-{FMSPC}-processor"


def test_bundle_holds_each_kind_once(
    run: Callable[..., Outcome], pccs: Running, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, root = folder / "bundle.json", folder / "root.pem"
    monkeypatch.setenv("ENSCONCE_PCCS", pccs.url)
    quotes = (folder / "one", folder / "two", folder / "one")
    done = run("collateral", "bundle", *quotes, "--root", root, "-o", out, "--json")
    assert done.status == 0, done.err
    shown = run("collateral", "show", out, "--json").json
    assert done.json == shown
    assert [(each["tee"], each["ca"], each["root"]) for each in shown] == [
        ("sgx", "platform", VENDOR.root_name),
        ("sgx", "processor", VENDOR.root_name),
    ]
    assert shown[0]["valid_until"] == min(shown[0][f"{n}_next_update"] for n in ("tcb_info", "qe_identity", "pck_crl"))
    assert shown[0]["pck_crl_revoked"] == 0
    for name in ("one", "two"):
        arguments = (folder / name, "--collateral", out, "--at", int(time.time()), "--root", root)
        assert run("quote", "verify", *arguments).status == 0


def test_show_for_people(run: Callable[..., Outcome], folder: Path) -> None:
    (folder / "plain.json").write_text(VENDOR.collateral(NOW).to_json())
    shown = run("collateral", "show", folder / "plain.json")
    assert shown.status == 0, shown.err
    assert shown.out.startswith(f"sgx {FMSPC} platform\n")
    assert VENDOR.root_name in shown.out
    assert re.search(r"^  valid_until +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", shown.out, re.MULTILINE)


def test_show_refuses_what_nobody_signed(run: Callable[..., Outcome], folder: Path) -> None:
    (folder / "forged.json").write_text(replace(VENDOR.collateral(NOW), qe_identity_signature=bytes(64)).to_json())
    shown = run("collateral", "show", folder / "forged.json", "--json")
    assert shown.status == 3
    assert shown.json["error"]["check"] == "collateral.qe_identity.signature"
    (folder / "broken.json").write_text("{")
    assert run("collateral", "show", folder / "broken.json").status == 2
    assert run("collateral", "show", folder / "missing.json").status == 2


@pytest.mark.parametrize(
    ("arguments", "status", "check"),
    [
        (("fetch",), 2, "collateral.platform"),
        (("fetch", "one", "--fmspc", FMSPC), 2, "collateral.platform"),
        (("fetch", "--fmspc", "xyz"), 2, "pccs.fmspc"),
        (("fetch", "missing"), 2, "file.read"),
        (("fetch", "root.pem"), 3, "certificate.evidence"),
        (("fetch", "text"), 3, "quote."),
        (("fetch", "one", "--root", "missing"), 2, "file.read"),
        (("fetch", "one", "--root", "intel"), 3, "collateral.root"),
        (("fetch", "one", "--ca-file", "missing"), 2, "pccs.ca_file"),
        (("fetch", "one", "--url", "nonsense"), 2, "pccs.url"),
        (("fetch", "--fmspc", "00606A000000"), 5, "pccs.status"),
        (("bundle", "one", "missing"), 2, "file.read"),
    ],
)
def test_refusals_leave_no_file(
    run: Callable[..., Outcome],
    pccs: Running,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    status: int,
    check: str,
) -> None:
    monkeypatch.chdir(folder)
    options = ("--url", pccs.url, "--root", "root.pem", "-o", "out.json")
    done = run("collateral", arguments[0], *options, *arguments[1:])
    assert done.status == status
    assert check in done.err
    assert not Path("out.json").exists()


def test_expired_collateral_is_not_worth_a_bundle(run: Callable[..., Outcome], pccs: Running, folder: Path) -> None:
    pccs.recipe = CollateralRecipe(tcb_info=DocumentRecipe(issued=-7200, next_update=-3600))
    out = folder / "bundle.json"
    arguments = (folder / "one", "--url", pccs.url, "--root", folder / "root.pem", "-o", out)
    done = run("collateral", "fetch", *arguments)
    assert done.status == 5
    assert "collateral.expired" in done.err
    assert not out.exists()
