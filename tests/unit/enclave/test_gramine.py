import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from ensconce.enclave import gramine
from ensconce.enclave.gramine import Gramine
from ensconce.errors import EvidenceError, InputError
from ensconce.evidence.sigstruct import Sigstruct


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signing_key: rsa.RSAPrivateKey) -> Path:
    # Making one takes a second.
    monkeypatch.setattr(gramine, "new_signing_key", lambda: signing_key)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin:/bin")
    program(tmp_path, "gramine-sgx", 'echo "Gramine 1.9 (v1.9)"')
    program(tmp_path, "gramine-manifest", 'printf \'[ensconce]\\nlibos = "/g/libsysdb.so"\\nruntime = "/g/glibc"\\n\'')
    return tmp_path


def test_it_says_itself_where_its_parts_are(programs: Path) -> None:
    assert Gramine.find() == Gramine(Path("/g/libsysdb.so"), Path("/g/glibc"))


def test_another_release_is_refused(programs: Path) -> None:
    program(programs, "gramine-sgx", 'echo "Gramine 1.8 (v1.8)"')
    with pytest.raises(InputError) as caught:
        Gramine.find()
    assert caught.value.check == "gramine.version"


def test_no_gramine_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError) as caught:
        Gramine.find()
    assert caught.value.check == "gramine.missing"


def test_what_its_tool_says_last_is_told(programs: Path, tmp_path: Path) -> None:
    program(programs, "gramine-sgx-sign", "echo 'no such file' >&2; exit 3")
    with pytest.raises(InputError) as caught:
        Gramine.find().measure(tmp_path / "server.manifest", tmp_path / "server.manifest.sgx")
    assert (caught.value.check, caught.value.found) == ("gramine.failed", "no such file")


@pytest.mark.parametrize("said", ["echo 'Gramine'", "true", "echo nothing", "echo 'Gramine 1.90 (v1.90)'"])
def test_what_does_not_say_its_release_is_refused(programs: Path, said: str) -> None:
    program(programs, "gramine-sgx", said)
    with pytest.raises(InputError) as caught:
        Gramine.find()
    assert caught.value.check == "gramine.version"


@pytest.mark.parametrize("said", ["echo '= ='", "echo 'other = 1'", "echo '[ensconce]'", "echo 'ensconce = 1'"])
def test_what_does_not_say_where_its_parts_are_is_refused(programs: Path, said: str) -> None:
    program(programs, "gramine-manifest", said)
    with pytest.raises(InputError) as caught:
        Gramine.find()
    assert caught.value.check == "gramine.failed"


def test_what_cannot_be_executed_is_told(programs: Path) -> None:
    (programs / "gramine-manifest").write_bytes(b"\x7fELF no program")
    with pytest.raises(InputError) as caught:
        Gramine.find()
    assert (caught.value.check, caught.value.problem) == ("gramine.failed", "gramine-manifest did not run")


def test_what_does_not_end_is_ended(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gramine, "_TIMEOUT_S", 0.1)
    program(programs, "gramine-sgx", "exec sleep 60")
    with pytest.raises(InputError) as caught:
        Gramine.find()
    assert (caught.value.check, caught.value.problem) == ("gramine.failed", "gramine-sgx did not run")


def test_a_failure_without_a_word_is_told(programs: Path) -> None:
    program(programs, "gramine-manifest", "exit 1")
    with pytest.raises(InputError) as caught:
        Gramine.find()
    assert (caught.value.check, caught.value.found) == ("gramine.failed", "no message")


def sign(programs: Path, text: str) -> Sigstruct:
    """Measure with a tool that does ``text``, where ``$sigfile`` is what it shall write."""
    # --quiet --manifest M --output O --sigfile S --key K
    program(programs, "gramine-sgx-sign", f'sigfile="$7" key="$9"\n{text}')
    return Gramine.find().measure(programs / "server.manifest", programs / "server.manifest.sgx")


def test_a_signature_that_is_none_is_refused(programs: Path) -> None:
    with pytest.raises(EvidenceError) as caught:
        sign(programs, 'head -c 1808 /dev/zero > "$sigfile"')
    assert caught.value.check.startswith("sigstruct.")


@pytest.mark.parametrize("text", ["true", 'head -c 1809 /dev/zero > "$sigfile"'])
def test_no_signature_and_one_too_long_are_refused(programs: Path, text: str) -> None:
    with pytest.raises(InputError) as caught:
        sign(programs, text)
    assert caught.value.check.startswith("file.")


def test_the_key_that_it_is_given_is_for_this_user_alone_and_gone_afterwards(programs: Path) -> None:
    with pytest.raises(InputError):
        sign(programs, f'stat -c "%a %n" "$key" > {programs}/said; grep -q "BEGIN RSA" "$key" && exit 1')
    mode, path = (programs / "said").read_text().split()
    assert mode == "600"
    assert not Path(path).parent.exists()
