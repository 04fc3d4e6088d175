"""``ensconce key`` and ``ensconce model reseal``, in this process and at a terminal."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ensconce.cli.main import app
from ensconce.cluster.owner import OwnerFolder
from ensconce.errors import EnsconceError

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def test_what_changes_the_owners_folder_says_so_to_programs(tmp_path: Path) -> None:
    folder = tmp_path / "owner"
    found = run("init", str(folder), "--domain", "d.test", "--model", "m", "--json")
    assert json.loads(found.stdout) == {"owner": str(folder), "deployment": str(folder / "ensconce.yaml")}
    assert found.stderr == ""

    def said(*arguments: str, given: bytes | None = None) -> object:
        return json.loads(good(folder, *arguments, "--json", given=given))

    assert said("key", "put", "secret/a", "--from", "-", given=b"x") == {"stored": "secret/a"}
    assert said("key", "retire", "secret/a") == {"retired": "secret/a"}
    assert said("key", "rewrap") == {"opened_by": "file"}
    backup, shares = str(tmp_path / "backup"), str(tmp_path / "shares")
    numbers = ("--shares", "3", "--threshold", "2")
    assert said("key", "backup", "-o", backup, *numbers, "--shares-to", shares) == {
        "backup": backup,
        "shares_to": shares,
        "shares": 3,
        "threshold": 2,
    }
    other = str(tmp_path / "other")
    assert check_of(folder, "key", "backup", "-o", other, *numbers, "--json") == "usage"
    assert not Path(other).exists()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "owner"
    assert run("init", str(folder), "--domain", "d.test", "--model", "m").exit_code == 0
    return folder


@pytest.fixture
def owner(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "owner")


def run(*arguments: str, given: bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=given)


def good(owner: Path, *arguments: str, given: bytes | None = None) -> str:
    done = run(*arguments, "--owner", str(owner), given=given)
    assert done.exit_code == 0, done.exception
    return done.stdout


def check_of(owner: Path, *arguments: str, given: bytes | None = None) -> str:
    done = run(*arguments, "--owner", str(owner), given=given)
    assert isinstance(done.exception, EnsconceError), done.exception
    return done.exception.check


def test_a_secret_from_standard_input_and_from_a_file(owner: Path, tmp_path: Path) -> None:
    secret = b"not text \xff\x00\n"
    good(owner, "key", "put", "secret/a", "--from", "-", given=secret)
    (tmp_path / "file").write_bytes(secret)
    good(owner, "key", "put", "secret/b", "--from", str(tmp_path / "file"))
    keystore = OwnerFolder.open(owner).keystore()
    assert keystore.get("secret/a") == keystore.get("secret/b") == secret
    for command in (("key", "list"), ("key", "list", "--json"), ("key", "show", "secret/a"), ("audit", "show")):
        assert "not text" not in good(owner, *command)
    good(owner, "key", "retire", "secret/a")
    listed = json.loads(good(owner, "key", "list", "--json"))
    assert listed["generation"] == 7
    times = [each["created"] for each in listed["keys"]] + [
        each["retired"] for each in listed["keys"] if each["retired"]
    ]
    assert len(times) == 6
    assert all(TIME.fullmatch(each) for each in times)
    assert {each["id"]: each["retired"] is None for each in listed["keys"]} == {
        "ca/root": True,
        "secret/a": False,
        "secret/b": True,
        "signing/enclave": True,
        "signing/owner": True,
    }


def test_secrets_that_are_refused(owner: Path, tmp_path: Path) -> None:
    assert check_of(owner, "key", "put", "secret/a", "--from", "-", given=b"x" * 16385) == "key.size"
    assert check_of(owner, "key", "put", "secret/a", "--from", "-", given=b"") == "key.size"
    assert check_of(owner, "key", "put", "model/m/1", "--from", "-", given=b"x") == "key.id"
    assert check_of(owner, "key", "put", "secret/a", "--from", str(tmp_path / "nowhere")) == "file.read"
    assert check_of(owner, "key", "show", "secret/a") == "key.unknown"
    assert check_of(owner, "key", "retire", "ca/root") == "key.needed"


def test_a_private_key_is_shown_by_its_public_one(owner: Path) -> None:
    shown = json.loads(good(owner, "key", "show", "signing/owner", "--json"))
    assert (shown["id"], shown["kind"], shown["retired"]) == ("signing/owner", "ed25519", None)
    assert shown["public_key"] in (owner / "owner.pub").read_text()
    assert "public_key" in good(owner, "key", "show", "ca/root")


def test_another_root_key_and_a_file_that_names_another_lock(owner: Path, tmp_path: Path) -> None:
    before = (owner / "unlock.key").read_bytes()
    good(owner, "key", "rewrap")
    assert (owner / "unlock.key").read_bytes() != before
    (tmp_path / "v.yaml").write_text("keystore: {kind: vault, address: 'https://127.0.0.1:1', key: k, token_file: t}\n")
    assert check_of(owner, "key", "rewrap", "--to", str(tmp_path / "v.yaml")) == "vault.token_file"
    assert check_of(owner, "key", "rewrap", "--to", str(tmp_path / "nowhere")) == "file.read"


def test_backup_and_recovery(owner: Path, tmp_path: Path) -> None:
    good(owner, "key", "put", "secret/a", "--from", "-", given=b"abc")
    backup, shares = tmp_path / "backup", tmp_path / "shares"
    options = ("--shares", "3", "--threshold", "2", "--shares-to", str(shares))
    said = good(owner, "key", "backup", "-o", str(backup), *options)
    papers = sorted(shares.iterdir())
    assert [path.name for path in papers] == [f"share-{number}-of-3.txt" for number in (1, 2, 3)]
    assert {path.stat().st_mode & 0o777 for path in papers} == {0o600}
    assert shares.stat().st_mode & 0o777 == 0o700
    assert " ".join(papers[0].read_text().split()[4:7]) not in said
    shutil.rmtree(owner / "keystore")
    (owner / "unlock.key").unlink()
    assert check_of(owner, "key", "recover", str(backup), "--share", str(papers[0])) == "backup.too_few"
    pair = [each for path in papers[1:] for each in ("--share", str(path))]
    found = json.loads(good(owner, "key", "recover", str(backup), *pair, "--json"))
    assert (len(found["keys"]), found["retired"], found["lost"]) == (4, [], [])
    assert OwnerFolder.open(owner).keystore().get("secret/a") == b"abc"


def test_a_backup_that_fails_leaves_no_folder_and_needs_a_terminal_or_one(owner: Path, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    numbers = ("--shares", "3", "--threshold", "2")
    to = ("--shares-to", str(tmp_path / "shares"))
    assert check_of(owner, "key", "backup", "-o", str(tmp_path / "there"), *numbers, *to) == "backup.exists"
    assert not (tmp_path / "shares").exists()
    assert check_of(owner, "key", "backup", "-o", str(tmp_path / "b"), *numbers) == "backup.terminal"
    wrong = ("--shares", "2", "--threshold", "3")
    assert check_of(owner, "key", "backup", "-o", str(tmp_path / "b"), *wrong, *to) == "backup.shares"
    nowhere = ("--shares-to", str(tmp_path / "no" / "shares"))
    assert check_of(owner, "key", "backup", "-o", str(tmp_path / "b"), *numbers, *nowhere) == "file.create"
    (tmp_path / "shares").mkdir()
    assert check_of(owner, "key", "backup", "-o", str(tmp_path / "b"), *numbers, *to) == "backup.exists"
    assert (tmp_path / "shares").exists()
    others = ("--shares-to", str(tmp_path / "others"))
    assert check_of(owner, "key", "backup", "-o", str(tmp_path / "no" / "b"), *numbers, *others) == "file.create"
    assert not (tmp_path / "others").exists()


def test_a_passphrase_is_typed_without_echo_and_shares_are_shown_one_by_one(
    owner: Path, tmp_path: Path, terminal: type[Any]
) -> None:
    phrase, here = "correct horse battery", ("--owner", str(owner))
    person = terminal("key", "rewrap", "--to", "passphrase", *here)
    person.wait_for("New passphrase of the keystore: ")
    person.type(phrase)
    person.wait_for("The same again: ")
    person.type(phrase)
    person.wait_for("opened by: passphrase")
    assert person.end() == 0
    assert phrase not in person.said
    assert not (owner / "unlock.key").exists()

    # Without a terminal nobody can be asked.
    done = subprocess.run(
        [sys.executable, "-P", "-m", "ensconce", "key", "list", *here],
        input=phrase.encode(),
        capture_output=True,
        start_new_session=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert b"keystore.passphrase" in done.stderr
    assert phrase.encode() not in done.stderr

    backup = tmp_path / "backup"
    person = terminal("key", "backup", "-o", str(backup), "--shares", "3", "--threshold", "2", *here)
    person.wait_for("Passphrase of the keystore: ")
    person.type(phrase)
    papers = []
    for number in (1, 2, 3):
        person.wait_for(f"Share {number} of 3.")
        person.wait_for("\r\n\r\n")
        papers.append(person.wait_for("\r\n\r\n").replace("\r\n", " "))
        person.wait_for("Return ")
        person.type("")
    assert person.end() == 0
    assert [len(paper.split()) for paper in papers] == [33] * 3

    shutil.rmtree(owner / "keystore")
    person = terminal("key", "recover", str(backup), *here)
    for number, paper in ((1, papers[2]), (2, papers[0])):
        person.wait_for(f"Share {number} of 2: ")
        person.type(paper)
    for prompt in ("New passphrase of the keystore: ", "The same again: "):
        person.wait_for(prompt)
        person.type(phrase)
    person.wait_for("recovered 3 keys")
    assert person.end() == 0
    assert " ".join(papers[0].split()[4:7]) not in person.said


def test_shares_that_cannot_be_typed(owner: Path, tmp_path: Path, terminal: type[Any]) -> None:
    options = ("--shares", "3", "--threshold", "2", "--shares-to", str(tmp_path / "shares"))
    good(owner, "key", "backup", "-o", str(tmp_path / "backup"), *options)
    shutil.rmtree(owner / "keystore")
    person = terminal("key", "recover", str(tmp_path / "backup"), "--owner", str(owner))
    person.wait_for("Share 1 of 2: ")
    person.press(b"\x04")
    assert person.end() == 2
    assert "backup.terminal" in person.said
    assert "--share" in person.said
    assert "passphrase" not in person.said


@pytest.mark.parametrize("ending", [b"\x04", b"\x03"], ids=["Ctrl-D", "Ctrl-C"])
def test_no_share_stays_on_the_screen(owner: Path, tmp_path: Path, ending: bytes, terminal: type[Any]) -> None:
    numbers = ("--shares", "3", "--threshold", "2", "--owner", str(owner))
    person = terminal("key", "backup", "-o", str(tmp_path / "backup"), *numbers)
    person.wait_for("Share 1 of 3.")
    person.wait_for("Return shows the next one: ")
    person.press(ending)
    # A signal between the prompt of CPython's input() and its read waits for the next key: a person presses again.
    person.wait_for("\x1b[2J\x1b[3J\x1b[H", again=ending)
    status = person.end()
    assert status == (2 if ending == b"\x04" else 130), person.said
    assert ("backup.terminal" in person.said) is (status == 2)
    assert list(tmp_path.glob("*backup*")) == []


def test_no_share_is_shown_of_a_backup_that_has_no_place(owner: Path, tmp_path: Path, terminal: type[Any]) -> None:
    numbers = ("--shares", "3", "--threshold", "2", "--owner", str(owner))
    person = terminal("key", "backup", "-o", str(tmp_path / "no" / "b"), *numbers)
    assert person.end() == 2
    assert "Share 1" not in person.said


def test_a_passphrase_that_is_no_text_and_one_that_is_broken_off(
    owner: Path, tmp_path: Path, terminal: type[Any]
) -> None:
    person = terminal("key", "rewrap", "--to", "passphrase", "--owner", str(owner))
    person.wait_for("New passphrase of the keystore: ")
    person.press(b"correct \xe9 horse\n")
    assert person.end() == 2
    assert "keystore.passphrase" in person.said
    assert "0xe9" not in person.said

    person = terminal("key", "rewrap", "--to", "passphrase", "--owner", str(owner))
    person.wait_for("New passphrase of the keystore: ")
    limits = Path(f"/proc/{person.pid}/limits").read_text()
    person.press(b"\x1c")  # Ctrl-\, which would leave a core file with what was typed so far
    assert person.end() == -signal.SIGQUIT
    assert re.search(r"Max core file size +0 +0 ", limits), limits


def test_reseal(owner: Path) -> None:
    from ensconce.demo.data import digits_folder

    folder = digits_folder() / "openvino"
    good(owner, "model", "seal", str(folder), "--name", "m", "--version", "1")
    resealed = json.loads(good(owner, "model", "reseal", "--name", "m", "--version", "1", "--json"))
    assert resealed["version"] == 2
    assert TIME.fullmatch(resealed["created"])
    assert "as m/3 under key model/m/3" in good(owner, "model", "reseal", "--name", "m", "--version", "2")
    assert check_of(owner, "model", "reseal", "--name", "m", "--version", "9") == "model.missing"
    retired = json.loads(good(owner, "model", "retire", "--name", "m", "--version", "1", "--json"))
    assert retired == {"retired": "model/m/1"}
