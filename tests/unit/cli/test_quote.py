from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ensconce.cli.main import main
from ensconce.evidence.report import SgxReport
from ensconce.platform.simulated.collateral import CollateralRecipe
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import QuoteRecipe, make_quote
from ensconce.times import utc_text

NOW = 1_790_000_000
VENDOR = SimulatedVendor(bytes(32), NOW)


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.out)
        return value


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["ensconce", "quote", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return Outcome(left.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def report(sound_report: Callable[..., SgxReport]) -> SgxReport:
    return sound_report(VENDOR, report_data=b"\x44" * 64)


@pytest.fixture
def folder(tmp_path: Path, report: SgxReport) -> Path:
    (tmp_path / "quote").write_bytes(make_quote(VENDOR, report))
    (tmp_path / "collateral.json").write_text(VENDOR.collateral(NOW).to_json())
    (tmp_path / "root.pem").write_text(VENDOR.root.pem)
    (tmp_path / "root.der").write_bytes(VENDOR.root.der)
    return tmp_path


@pytest.fixture
def verify(run: Callable[..., Outcome], folder: Path) -> Callable[..., Outcome]:
    """``quote verify`` of the sound quote, with other options where given, and more at the end."""

    def verify(*more: object, **others: object) -> Outcome:
        options = {
            "collateral": folder / "collateral.json",
            "at": NOW,
            "root": folder / "root.pem",
        } | others
        file = options.pop("file", folder / "quote")
        return run("verify", file, *(x for name, value in options.items() for x in (f"--{name}", value)), *more)

    return verify


def test_a_genuine_quote(verify: Callable[..., Outcome], folder: Path) -> None:
    for root in ("root.pem", "root.der"):
        outcome = verify("--json", root=folder / root)
        assert (outcome.status, outcome.err) == (0, "")
        value = outcome.json
        assert value["status"] == "UpToDate"
        assert value["advisory_ids"] == []
        assert value["mr_enclave"] == "11" * 32
        assert value["mr_signer"] == "22" * 32
        assert (value["isv_prod_id"], value["isv_svn"], value["debug"]) == (7, 3, False)
        assert value["report_data"] == "44" * 64
        assert value["root"] == VENDOR.root_name
        assert value["at"] == utc_text(NOW)
        assert (value["valid_until"] > value["at"] > value["tcb_date"]) is True
        assert not [name for name in value if name.endswith("_iso")]


def test_the_status_is_a_result(verify: Callable[..., Outcome], folder: Path) -> None:
    recipe = CollateralRecipe(tcb_status="OutOfDate", advisory_ids=["SIMULATED-SA-7"])
    (folder / "collateral.json").write_text(VENDOR.collateral(NOW, recipe).to_json())
    outcome = verify("--json")
    assert outcome.status == 0
    assert (outcome.json["status"], outcome.json["advisory_ids"]) == ("OutOfDate", ["SIMULATED-SA-7"])


def test_for_people(verify: Callable[..., Outcome]) -> None:
    outcome = verify()
    assert outcome.status == 0
    assert outcome.out.startswith("Genuine for a simulated platform")
    lines = [line.split() for line in outcome.out.splitlines()]
    assert ["mr_enclave", "11" * 32] in lines  # whole, however narrow the terminal
    assert ["debug", "no"] in lines
    assert "\x1b" not in outcome.out


def test_simulated_evidence_is_not_intels(verify: Callable[..., Outcome]) -> None:
    outcome = verify("--json", root="intel")
    assert outcome.status == 3
    assert outcome.json["error"]["check"] == "pck_chain.root"


def test_the_root_is_intels_unless_said_otherwise(run: Callable[..., Outcome], folder: Path) -> None:
    arguments = ("verify", folder / "quote", "--collateral", folder / "collateral.json", "--at", NOW, "--json")
    assert run(*arguments).json["error"]["check"] == "pck_chain.root"


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 100_000])
def test_what_is_no_quote_is_not_genuine(
    run: Callable[..., Outcome], verify: Callable[..., Outcome], folder: Path, content: bytes
) -> None:
    (folder / "quote").write_bytes(content)
    for outcome in (verify("--json"), run("show", folder / "quote", "--json")):
        assert outcome.status == 3
        assert outcome.json["error"]["check"].startswith("quote.")
    outcome = verify()
    assert (outcome.status, outcome.out) == (3, "")
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "check"),
    [
        ({"file": "missing"}, "file.read"),
        ({"file": "."}, "file.read"),
        ({"collateral": "missing"}, "file.read"),
        ({"collateral": "quote"}, "collateral.format"),
        ({"collateral": "broken.json"}, "collateral.format"),
        ({"root": "missing"}, "file.read"),
        ({"root": "quote"}, "root.certificate"),
        ({"at": -1}, "time"),
        ({"at": 10**15}, "time"),
    ],
)
def test_bad_input(verify: Callable[..., Outcome], folder: Path, options: dict[str, object], check: str) -> None:
    (folder / "broken.json").write_text('{"tcb_info": 1}')
    options = {name: folder / value if isinstance(value, str) else value for name, value in options.items()}
    outcome = verify("--json", **options)
    assert outcome.status == 2
    assert outcome.json["error"]["check"] == check
    outcome = verify(**options)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["verify"], ["verify", "x"], ["show"], ["verify", "x", "--at", "noon"], ["frob"]]
)
def test_bad_usage(run: Callable[..., Outcome], arguments: list[str]) -> None:
    outcome = run(*arguments)
    assert outcome.status == 2
    assert outcome.err


def test_show(run: Callable[..., Outcome], folder: Path) -> None:
    outcome = run("show", folder / "quote", "--json")
    assert outcome.status == 0
    value = outcome.json
    assert value["verified"] is False
    assert (value["version"], value["tee"], value["mr_enclave"]) == (3, "sgx", "11" * 32)
    assert (value["fmspc"], value["pce_id"], value["ca"]) == (VENDOR.FMSPC.hex().upper(), "0000", "platform")
    assert value["root"] == VENDOR.root_name
    assert [certificate["subject"].split("CN=")[1] for certificate in value["certificates"]] == [
        "Intel SGX PCK Certificate",
        "Intel SGX PCK Platform CA",
        "Intel SGX Root CA",
    ]
    assert value["qe_report"]["isv_prod_id"] == 1
    assert run("show", folder / "quote").out.startswith("Not verified.\n")


def test_show_tells_what_is_wrong_with_certificates(
    run: Callable[..., Outcome], folder: Path, report: SgxReport
) -> None:
    chain = QuoteRecipe(pck_chain=(VENDOR.pck(), VENDOR.root))
    (folder / "quote").write_bytes(make_quote(VENDOR, report, chain))
    outcome = run("show", folder / "quote", "--json")
    assert outcome.status == 0
    assert len(outcome.json["certificates"]) == 2
    assert outcome.json["certificates_error"]["check"] == "pck_chain.shape"


def test_no_escape_sequence_reaches_the_terminal(run: Callable[..., Outcome], folder: Path, report: SgxReport) -> None:
    evil = VENDOR.issue_pck(
        VENDOR.machine(), issuer=VENDOR.pck_ca(), key=VENDOR.key("x"), common_name="\x1b[2Jquote: genuine\x07"
    )
    recipe = QuoteRecipe(pck_chain=(evil, VENDOR.pck_ca(), VENDOR.root))
    (folder / "quote").write_bytes(make_quote(VENDOR, report, recipe))
    outcome = run("show", folder / "quote")
    assert outcome.status == 0
    assert "genuine" in outcome.out
    assert "\x1b" not in outcome.out + outcome.err
    assert "\x07" not in outcome.out + outcome.err


def test_as_a_program(folder: Path) -> None:
    arguments = ["quote", "verify", "quote", "--collateral", "collateral.json", "--at", str(NOW), "--root", "root.pem"]
    done = subprocess.run(
        [sys.executable, "-m", "ensconce", *arguments],
        cwd=folder,
        env=os.environ | {"NO_COLOR": "1", "COLUMNS": "40"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "11" * 32 in done.stdout


@pytest.mark.parametrize("command", ["show", "verify"])
def test_help_has_an_example(run: Callable[..., Outcome], command: str) -> None:
    outcome = run(command, "--help")
    assert outcome.status == 0
    assert f"ensconce quote {command}" in " ".join(outcome.out.split())
