"""``ensconce enclave lint|show|sign``: what is printed, and with which exit status."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from ensconce.cli.enclave import app
from ensconce.cluster.deployment import Deployment
from ensconce.cluster.owner import OwnerFolder
from ensconce.enclave.sign import new_signing_key, sign_measured
from ensconce.errors import EnsconceError, InputError, IntegrityError
from ensconce.evidence.report import Attributes
from ensconce.evidence.sigstruct import parse_sigstruct
from ensconce.platform.manifest import parse_manifest
from ensconce.platform.simulated.measurement import measure as simulated_measurement

GOOD = """
libos.entrypoint = "/program"
loader.argv = ["program"]
sgx.remote_attestation = "dcap"
sgx.isvprodid = 3
sgx.isvsvn = 1
sgx.trusted_files = [{ uri = "file:program", sha256 = "%s" }]
""" % ("00" * 32)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.manifest.sgx").write_text(GOOD)
    (tmp_path / "bad.manifest.sgx").write_text(GOOD + "\nloader.insecure__use_cmdline_argv = true\n")
    return tmp_path


@pytest.fixture
def owner(here: Path, deployment: Callable[..., Deployment]) -> OwnerFolder:
    return OwnerFolder.create(here / "owner", deployment())


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def test_lint_says_line_attack_and_remedy_and_exits_with_4() -> None:
    result = run("lint", "good.manifest.sgx", "bad.manifest.sgx")
    assert result.exit_code == 4
    assert result.stdout.splitlines() == [
        "good.manifest.sgx: 0 refuse, 0 warn, 0 note",
        "bad.manifest.sgx:9: refuse: loader.insecure__use_cmdline_argv is switched on [lint.argv.host]",
        "  attack: the host drops or adds arguments (the option that turns TLS on, the path of the model) under the "
        "same measurement, and still gets the key (breaks I3)",
        "  remedy: write every argument into loader.argv",
        "bad.manifest.sgx: 1 refuse, 0 warn, 0 note",
    ]
    assert run("lint", "good.manifest.sgx").exit_code == 0


def test_lint_as_json() -> None:
    result = run("lint", "bad.manifest.sgx", "missing", "--json")
    assert result.exit_code == 4
    bad, missing = json.loads(result.stdout)["manifests"]
    assert bad["refused"] is True
    assert bad["findings"][0] | {"attack": "", "remedy": ""} == {
        "check": "lint.argv.host",
        "severity": "refuse",
        "invariant": "I3",
        "key": "loader.insecure__use_cmdline_argv",
        "line": 9,
        "problem": "loader.insecure__use_cmdline_argv is switched on",
        "attack": "",
        "remedy": "",
    }
    assert missing["error"]["check"] == "file.read"


def test_what_cannot_be_read_is_never_taken_for_clean() -> None:
    assert run("lint", "missing", "good.manifest.sgx").exit_code == 2


def test_sign_show_and_log(here: Path, owner: OwnerFolder) -> None:
    signed = run("sign", "good.manifest.sgx", "--owner", "owner")
    assert signed.exit_code == 0, signed.exception
    shown = run("show", "good.manifest.sgx")
    assert yaml.safe_load(shown.stdout) == yaml.safe_load(signed.stdout)
    (stanza,) = yaml.safe_load(shown.stdout)
    assert stanza["isv_prod_id"] == 3
    told = json.loads(run("show", "good.sig", "--json").stdout)
    assert (told["mr_enclave"], told["debug"], told["identity"]) == (stanza["mr_enclave"], False, stanza)
    assert owner.verified_log()[1][-1].event == "enclave.signed"

    # What another key had signed: the same measurement, the owner's signature.
    (here / "theirs.sig").write_bytes((here / "good.sig").read_bytes())
    (here / "good.manifest.sgx").write_text(GOOD + 'loader.entrypoint.uri = "file:libsysdb.so"\n')
    again = run("sign", "good.manifest.sgx", "--measured", "theirs.sig", "-o", "ours.sig", "--owner", "owner", "--json")
    assert again.exit_code == 0, again.exception
    assert parse_sigstruct((here / "ours.sig").read_bytes()).mr_enclave.hex() == stanza["mr_enclave"]

    # One that a host may start for debugging, too.
    theirs = parse_sigstruct((here / "theirs.sig").read_bytes())
    open_to_debug = dataclasses.replace(theirs, attribute_mask=Attributes(0xFFFF_FFFF_FFFF_FFFD, 0x3))
    (here / "theirs.sig").write_bytes(sign_measured(open_to_debug, new_signing_key(), date=theirs.date))
    error = run("sign", "good.manifest.sgx", "--measured", "theirs.sig", "-o", "no.sig", "--owner", "owner").exception
    assert isinstance(error, InputError)
    assert error.check == "sign.attributes"
    assert not (here / "no.sig").exists()


def test_what_must_not_be_signed_is_not(here: Path, owner: OwnerFolder) -> None:
    for text, check, status in (
        (GOOD + "sgx.debug = true\n", "lint.debug.on", 4),
        (GOOD + 'loader.entrypoint.uri = "file:libsysdb.so"\n', "sign.unmeasured", 2),
        ("nothing", "manifest.toml", 2),
    ):
        (here / "app.manifest.sgx").write_text(text)
        error = run("sign", "app.manifest.sgx", "--owner", "owner").exception
        assert isinstance(error, EnsconceError)
        assert (error.check, error.exit_status) == (check, status)
        assert not (here / "app.sig").exists()


def test_measure_reads_every_file(here: Path) -> None:
    (here / "program").write_bytes(b"code")
    text = GOOD.replace("00" * 32, hashlib.sha256(b"code").hexdigest())
    (here / "app.manifest.sgx").write_text(text)
    measured = json.loads(run("measure", "app.manifest.sgx", "--json").stdout)
    mr_enclave = simulated_measurement(parse_manifest(text.encode())).hex()
    assert measured == {"mr_enclave": mr_enclave, "platform": "simulated", "files": 1}
    (here / "enclave").mkdir()
    (here / "app.manifest.sgx").rename(here / "enclave" / "app.manifest.sgx")
    assert mr_enclave in run("measure", "enclave/app.manifest.sgx").stdout
    (here / "program").write_bytes(b"other code")
    changed = run("measure", "enclave/app.manifest.sgx").exception
    assert isinstance(changed, IntegrityError)
    assert changed.check == "measure.file"
    (here / "program").unlink()
    missing = run("measure", "enclave/app.manifest.sgx").exception
    assert isinstance(missing, InputError)
    assert missing.check == "file.read"
    # Nobody ever writes into it.
    os.mkfifo(here / "program")
    pipe = run("measure", "enclave/app.manifest.sgx").exception
    assert isinstance(pipe, InputError)
    assert pipe.check == "file.read"
