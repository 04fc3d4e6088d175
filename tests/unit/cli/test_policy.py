"""``ensconce policy`` as a user calls it, on a real owner's folder; no enclave is built and no server runs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from ensconce.appraisal.pck import read_pck
from ensconce.appraisal.policy_owners import key_name
from ensconce.appraisal.revocations import Revocations
from ensconce.appraisal.vetting import vet
from ensconce.cli.main import main
from ensconce.cluster.deployment import Deployment
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.policy import policy_store, write_policy
from ensconce.cluster.state import open_state
from ensconce.enclave.build import EnclaveIdentity
from ensconce.errors import InputError, RefusedError
from ensconce.evidence.certificate import evidence_extension
from ensconce.evidence.claims import encode_claims
from ensconce.evidence.quote import parse_quote
from ensconce.evidence.report import SgxReport
from ensconce.evidence.spki import spki_of
from ensconce.platform.simulated.collateral import CollateralRecipe, CrlRecipe
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import make_quote
from ensconce.ratls.request import make_key_container

IDENTITY = EnclaveIdentity(mr_enclave=b"\x11" * 32, mr_signer=bytes(32), isv_prod_id=1, isv_svn=1)
NOW = 1_790_000_000
VENDOR = SimulatedVendor(bytes(32), NOW - 86_400)
ROOT = f"simulated:{'0' * 64}"
POLICY = """\
version: 1
serial: {serial}
{owners}roots: [intel]
tcb_statuses: [UpToDate]
identities:
  - name: code
    mr_enclave: "{code}"
    receives: [model/m]
"""


def policy_text(serial: int, *owners: str, required: int = 2, code: str = "11" * 32) -> str:
    named = f"owners: {{required: {required}, keys: [{', '.join(owners)}]}}\n" if owners else ""
    return POLICY.format(serial=serial, owners=named, code=code)


@dataclass
class Ran:
    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["ensconce", "policy", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return Ran(int(left.value.code or 0), said.out, said.err)

    return call


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, deployment: Callable[..., Deployment]) -> Path:
    return OwnerFolder.create(tmp_path_factory.mktemp("made") / "owner", deployment()).path


@pytest.fixture
def owner(made: Path, tmp_path: Path) -> OwnerFolder:
    return OwnerFolder.open(shutil.copytree(made, tmp_path / "owner"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(policy_text(1))
    return path


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """Names of keys by whose they are; the keys are in ``<whose>.pem``."""
    names = {}
    for who in ("alice", "bob"):
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / f"{who}.pem").write_bytes(pem)
        names[who] = key_name(key.public_key())
    return names


def events(owner: OwnerFolder) -> list[tuple[str, Any]]:
    return [(entry.event, entry.fields.get("serial")) for entry in owner.verified_log()[1]]


class TestCheck:
    def test_a_good_one(self, run: Run, file: Path) -> None:
        ran = run("check", file)
        assert ran.status == 0
        assert "serial 1, 1 identity" in ran.out
        assert "signed by nobody" in ran.out
        assert ran.err == ""
        assert run("check", file, "--json").json()["policy"]["identities"][0]["name"] == "code"

    def test_warnings_do_not_change_the_exit_status(self, run: Run, file: Path) -> None:
        file.write_text(file.read_text().replace("[UpToDate]", "[{status: OutOfDate, until: 2020-01-01}]"))
        ran = run("check", file)
        assert ran.status == 0
        assert "warning: tcb_statuses: the exception for OutOfDate ended on 2020-01-01" in ran.err
        assert len(run("check", file, "--json").json()["warnings"]) == 1

    def test_a_bad_one_is_told_with_its_line(self, run: Run, file: Path) -> None:
        file.write_text(file.read_text().replace("[UpToDate]", "[OutOfDate]"))
        ran = run("check", file, "--json")
        assert ran.status == 2
        assert ran.json()["error"]["check"] == "policy.tcb_statuses"
        assert "line 4" in ran.json()["error"]["problem"]


class TestDiff:
    def test_words_for_people(self, run: Run, file: Path, tmp_path: Path) -> None:
        other = tmp_path / "next.yaml"
        other.write_text(policy_text(2, code="22" * 32))
        ran = run("diff", file, other)
        assert ran.status == 0
        assert ran.out.splitlines() == [
            "~ serial: 1 to 2",
            f"+ identity 'code', mr_enclave: {'22' * 32}",
            f"- identity 'code', mr_enclave: {'11' * 32}",
        ]
        assert run("diff", file, other, "--json").json()[1]["effect"] == "accepts"

    def test_no_difference(self, run: Run, file: Path) -> None:
        assert run("diff", file, file).out == "they say the same\n"
        assert run("diff", file, file, "--json").json() == []


class TestSign:
    def test_keys_of_openssl_and_of_the_owner(self, run: Run, file: Path, owner: OwnerFolder, tmp_path: Path) -> None:
        pem = tmp_path / "key.pem"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", pem], check=True, capture_output=True)
        assert run("sign", file, "--key", pem).status == 0
        ran = run("sign", file, "--owner", owner.path)
        assert ran.status == 0
        signers = run("check", file, "--json").json()["signers"]
        assert key_name(owner.public_key()) in signers
        assert len(signers) == 2

    def test_a_passphrase_is_asked_for_at_a_terminal(self, file: Path, tmp_path: Path, terminal: type[Any]) -> None:
        pem = tmp_path / "key.pem"
        key = Ed25519PrivateKey.generate()
        pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open")))
        arguments = ("policy", "sign", str(file), "--key", str(pem))
        for typed, status in ((b"open\n", 0), (b"shut\n", 2), (b"\x04", 2), (b"\x03", 130)):
            person = terminal(*arguments)
            person.wait_for(f"Passphrase of {pem}: ")
            person.press(typed)
            if status == 130:
                person.wait_for("interrupted", again=typed)
            assert person.end() == status, person.said
            assert typed.decode().strip() not in person.said
        # Without a terminal nobody can be asked, and nothing is read with echo.
        done = subprocess.run(
            [sys.executable, "-P", "-m", "ensconce", *arguments],
            input=b"open\n",
            capture_output=True,
            start_new_session=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
        assert b"[policy.key]" in done.stderr

    def test_other_keys_are_refused(self, run: Run, file: Path, tmp_path: Path) -> None:
        pem = tmp_path / "key.pem"
        other = ec.generate_private_key(ec.SECP256R1())
        for content in (b"", other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())):
            pem.write_bytes(content)
            ran = run("sign", file, "--key", pem)
            assert ran.status == 2
            assert "policy.key" in ran.err

    def test_one_key_at_a_time(self, run: Run, file: Path, owner: OwnerFolder) -> None:
        assert run("sign", file).status == 2
        assert run("sign", file, "--key", file, "--owner", owner.path).status == 2

    def test_signatures_of_an_earlier_version_are_dropped(
        self, run: Run, file: Path, keys: dict[str, str], tmp_path: Path
    ) -> None:
        run("sign", file, "--key", tmp_path / "alice.pem")
        file.write_text(policy_text(2))
        assert run("check", file).status == 2
        assert run("sign", file, "--key", tmp_path / "bob.pem").status == 0
        assert run("check", file, "--json").json()["signers"] == [keys["bob"]]

    def test_it_says_who_is_missing(self, run: Run, file: Path, keys: dict[str, str], tmp_path: Path) -> None:
        file.write_text(policy_text(1, *keys.values()))
        ran = run("sign", file, "--key", tmp_path / "alice.pem")
        assert "2 of 2 owners must sign; missing: 1" in ran.out
        file.write_text(policy_text(1, keys["alice"], required=1))
        ran = run("sign", file, "--key", tmp_path / "bob.pem")
        assert f"{keys['bob']} is not among" in ran.err

    def test_for_programs(self, run: Run, file: Path, keys: dict[str, str], tmp_path: Path) -> None:
        file.write_text(policy_text(1, *keys.values()))
        value = run("sign", file, "--key", tmp_path / "alice.pem", "--json").json()
        assert (value["signer"], value["signers"], value["missing"]) == (keys["alice"], [keys["alice"]], 1)
        assert (value["serial"], value["owners"]["keys"]) == (1, sorted(keys.values()))
        file.write_text(policy_text(1))
        value = run("sign", file, "--key", tmp_path / "alice.pem", "--json").json()
        assert (value["owners"], value["missing"]) == (None, None)


class TestTheWriteCommand:
    @pytest.fixture(autouse=True)
    def built(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """An enclave in the bundle, as far as its measurement goes, and a simulated platform of the test's own."""
        code = EnclaveIdentity(mr_enclave=b"\x22" * 32, mr_signer=bytes(32), isv_prod_id=1, isv_svn=1)
        monkeypatch.setattr(OwnerFolder, "enclave_identity", lambda _: code)
        monkeypatch.setenv("ENSCONCE_SIMULATED_HOME", str(tmp_path / "simulated"))

    def test_it_says_that_the_policy_is_in_force(self, run: Run, owner: OwnerFolder) -> None:
        ran = run("write", "--owner", owner.path)
        assert ran.status == 0
        assert ran.out == owner.policy_file.read_text().rstrip() + "\n"
        assert ran.err.splitlines() == [f"wrote {owner.policy_file}; in force: serial 1"]

    def test_for_programs(self, run: Run, owner: OwnerFolder) -> None:
        written = run("write", "--owner", owner.path, "--json").json()
        assert written == run("show", "--owner", owner.path, "--json").json()
        again = run("write", "--owner", owner.path, "--json")
        assert (again.status, again.json()["error"]["check"]) == (2, "policy.exists")

    def test_it_says_what_replacing_takes_away(self, run: Run, file: Path, owner: OwnerFolder) -> None:
        folder = ("--owner", owner.path)
        run("sign", file, *folder)
        run("apply", file, *folder)
        told = run("write", "--replace", *folder).err.splitlines()
        assert any(line.startswith("- identity 'code'") for line in told)
        assert told[-1].endswith("in force: serial 2")

    def test_it_says_that_more_must_sign(
        self, run: Run, file: Path, owner: OwnerFolder, keys: dict[str, str], tmp_path: Path
    ) -> None:
        file.write_text(policy_text(1, *keys.values()))
        for key in (("--owner", owner.path), ("--key", tmp_path / "alice.pem"), ("--key", tmp_path / "bob.pem")):
            run("sign", file, *key)
        assert run("apply", file, "--owner", owner.path).status == 0
        ran = run("write", "--replace", "--owner", owner.path)
        assert ran.status == 4
        assert "- identity 'code'" in ran.err
        assert f"wrote {owner.policy_file}; it is not in force yet" in ran.err
        assert "policy.signatures" in ran.err


class TestApplyAndShow:
    def test_what_is_signed_takes_effect(self, run: Run, file: Path, owner: OwnerFolder) -> None:
        folder = ("--owner", owner.path)
        assert run("show", *folder, "--json").json()["error"]["check"] == "policy.none"
        assert run("apply", file, *folder, "--json").json()["error"]["check"] == "policy.signatures"
        run("sign", file, *folder)
        ran = run("apply", file, *folder)
        assert ran.status == 0
        assert "in force: serial 1" in ran.out
        shown = run("show", *folder, "--json").json()
        assert (shown["serial"], shown["signers"]) == (1, [key_name(owner.public_key())])
        printed = run("show", *folder)
        assert printed.out == file.read_text().rstrip() + "\n"
        assert "in force: serial 1" in printed.err
        assert events(owner)[1:] == [("policy.applied", 1)]

    def test_nothing_older_and_nothing_twice(self, run: Run, file: Path, owner: OwnerFolder) -> None:
        folder = ("--owner", owner.path)
        file.write_text(policy_text(5))
        run("sign", file, *folder)
        assert run("apply", file, *folder).status == run("apply", file, *folder).status == 0
        for serial in (4, 5):
            file.write_text(policy_text(serial, code="22" * 32))
            run("sign", file, *folder)
            ran = run("apply", file, *folder, "--json")
            assert (ran.status, ran.json()["error"]["check"]) == (4, "policy.serial")
        assert events(owner)[1:] == [("policy.applied", 5)]

    def test_two_of_two(self, run: Run, file: Path, owner: OwnerFolder, keys: dict[str, str], tmp_path: Path) -> None:
        folder = ("--owner", owner.path)
        file.write_text(policy_text(1, *keys.values()))
        for signing in (folder, ("--key", tmp_path / "alice.pem")):
            run("sign", file, *signing)
            assert run("apply", file, *folder).status == 4
        run("sign", file, "--key", tmp_path / "bob.pem")
        assert run("apply", file, *folder).status == 0
        assert run("show", *folder, "--json").json()["signers"] == sorted(keys.values())


def certificate_with(quote: Callable[[bytes], bytes]) -> x509.Certificate:
    """A self-signed certificate with evidence about its own key."""
    key = ec.generate_private_key(ec.SECP256R1())
    claims = encode_claims(spki_of(key.public_key()))
    evidence = quote(hashlib.sha256(claims).digest() + bytes(32))
    plain = make_key_container(key)
    return (
        x509.CertificateBuilder(plain.issuer, plain.subject, key.public_key(), 1)
        .not_valid_before(plain.not_valid_before_utc)
        .not_valid_after(plain.not_valid_after_utc)
        .add_extension(evidence_extension(evidence, claims), critical=False)
        .sign(key, hashes.SHA256())
    )


class TestExplain:
    """Of the simulated platform; tests/interop explains real quotes."""

    @pytest.fixture
    def world(self, tmp_path: Path, sound_report: Callable[..., SgxReport]) -> Path:
        report = sound_report(VENDOR)
        (tmp_path / "quote.bin").write_bytes(make_quote(VENDOR, report))
        (tmp_path / "collateral.json").write_text(VENDOR.collateral(NOW).to_json())
        (tmp_path / "policy.yaml").write_text(policy_text(1).replace("intel", f'"{VENDOR.root_name}"'))
        certificate = certificate_with(lambda data: make_quote(VENDOR, dataclasses.replace(report, report_data=data)))
        (tmp_path / "replica.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        (tmp_path / "replica.der").write_bytes(certificate.public_bytes(Encoding.DER))
        return tmp_path

    def arguments(self, world: Path, evidence: str) -> list[object]:
        options = ["--policy", world / "policy.yaml", "--collateral", world / "collateral.json", "--at", NOW]
        return ["explain", world / evidence, *options]

    @pytest.mark.parametrize("evidence", ["quote.bin", "replica.pem", "replica.der"])
    def test_what_is_accepted(self, run: Run, world: Path, evidence: str) -> None:
        ran = run(*self.arguments(world, evidence))
        assert ran.status == 0
        assert f"yes  mr_enclave: {'11' * 32}" in ran.out
        assert ran.out.endswith("Accepted as 'code'.\nIt may receive: model/m\n")

    def test_what_is_refused(self, run: Run, world: Path) -> None:
        (world / "policy.yaml").write_text(policy_text(1, code="22" * 32))
        ran = run(*self.arguments(world, "quote.bin"))
        assert ran.status == 4
        assert f"NO   root: {VENDOR.root_name}" in ran.out
        assert f"NO   mr_enclave: {'11' * 32}\n       rule: mr_enclave: {'22' * 32}" in ran.out
        assert "Refused: the evidence is of a simulated platform" in ran.out
        value = run(*self.arguments(world, "quote.bin"), "--json").json()
        assert value["refusal"]["check"] == "policy.root"

    def test_the_policy_in_force_is_the_default(self, run: Run, world: Path, owner: OwnerFolder) -> None:
        run("sign", world / "policy.yaml", "--owner", owner.path)
        run("apply", world / "policy.yaml", "--owner", owner.path)
        command: list[object] = ["explain", world / "quote.bin", "--owner", owner.path, "--at", NOW]
        assert run(*command, "--collateral", world / "collateral.json").status == 0

    def test_collateral_comes_from_where_the_deployment_says(self, run: Run, world: Path, owner: OwnerFolder) -> None:
        text = owner.deployment_file.read_text()
        named = "platform:\n  collateral: {bundle: bundle.json}\n"
        owner.deployment_file.write_text(text.replace("platform:\n", named))
        (world / "collateral.json").rename(owner.path / "bundle.json")
        command: list[object] = ["explain", world / "quote.bin", "--policy", world / "policy.yaml", "--at", NOW]
        assert run(*command, "--owner", owner.path).status == 0

    def test_what_its_servers_know_to_be_revoked_is_refused(self, run: Run, world: Path, owner: OwnerFolder) -> None:
        run("sign", world / "policy.yaml", "--owner", owner.path)
        run("apply", world / "policy.yaml", "--owner", owner.path)
        # A server once saw a list that revokes the machine; the list at hand does not.
        leaf = read_pck(parse_quote((world / "quote.bin").read_bytes())).chain[0]
        recipe = CollateralRecipe(pck_crl=CrlRecipe(revoked=(leaf.serial_number,)))
        Revocations(open_state(owner).store).learn(vet(VENDOR.collateral(NOW, recipe), (VENDOR.root_name,)).lists)
        command: list[object] = ["explain", world / "quote.bin", "--at", NOW]
        command += ["--collateral", world / "collateral.json", "--owner", owner.path]
        ran = run(*command)
        assert ran.status == 3
        assert "revoked" in ran.err
        assert run(*command, "--policy", world / "policy.yaml").status == 0  # this deployment was not asked

    @pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
    def test_what_is_no_evidence(self, run: Run, world: Path, content: bytes) -> None:
        (world / "quote.bin").write_bytes(content)
        assert run(*self.arguments(world, "quote.bin")).status == 3

    def test_a_certificate_about_another_key(
        self, run: Run, world: Path, sound_report: Callable[..., SgxReport]
    ) -> None:
        quote = make_quote(VENDOR, sound_report(VENDOR))
        other = certificate_with(lambda data: quote)
        (world / "replica.pem").write_bytes(other.public_bytes(Encoding.PEM))
        assert run(*self.arguments(world, "replica.pem")).status == 3


class TestWrite:
    def test_it_signs_and_applies(self, run: Run, owner: OwnerFolder) -> None:
        admitted = write_policy(owner, IDENTITY, ROOT)
        assert (admitted.policy.serial, admitted.policy.service) == (1, "d.test")
        assert run("check", owner.policy_file, "--json").json()["signers"] == [key_name(owner.public_key())]
        assert policy_store(owner).in_force().policy == admitted.policy

    def test_the_next_one_has_the_next_serial(self, owner: OwnerFolder) -> None:
        write_policy(owner, IDENTITY, ROOT)
        with pytest.raises(InputError, match="exists"):
            write_policy(owner, IDENTITY, ROOT)
        assert write_policy(owner, IDENTITY, ROOT, replace=True).policy.serial == 2
        assert events(owner)[1:] == [("policy.applied", 1), ("policy.applied", 2)]

    def test_where_others_must_sign_it_is_written_and_waits(
        self, run: Run, file: Path, owner: OwnerFolder, keys: dict[str, str], tmp_path: Path
    ) -> None:
        folder = ("--owner", owner.path)
        file.write_text(policy_text(1, *keys.values()))
        for who in keys:
            run("sign", file, "--key", tmp_path / f"{who}.pem")
        run("apply", file, *folder)
        with pytest.raises(RefusedError) as caught:
            write_policy(owner, IDENTITY, ROOT, replace=True)
        assert caught.value.check == "policy.signatures"
        assert policy_store(owner).in_force().policy.serial == 1
        for who in keys:
            run("sign", owner.policy_file, "--key", tmp_path / f"{who}.pem")
        assert run("apply", owner.policy_file, *folder).status == 0
        assert policy_store(owner).in_force().policy.serial == 2
