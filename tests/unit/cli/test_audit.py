"""``ensconce audit``: what the owner, and those who have only her public key, can ask of a log."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ensconce.audit import verify_log
from ensconce.cli import main
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.state import open_state


class Ensconce:
    """The command, run in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.setattr(main.signal, "signal", lambda *_: None)

    def __call__(self, *arguments: object, status: int = 0) -> str:
        self._monkeypatch.setattr("sys.argv", ["ensconce", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main.main()
        said = self._capsys.readouterr()
        assert left.value.code == status, said.out + said.err
        return said.out if status == 0 else said.err or said.out


@pytest.fixture
def ensconce(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ensconce:
    return Ensconce(monkeypatch, capsys)


@pytest.fixture(scope="module", params=["folder", "sqlite"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "owner"
    with pytest.MonkeyPatch.context() as patch:
        state = ["--sqlite", str(folder.with_name("state.db"))] if request.param == "sqlite" else []
        patch.setattr("sys.argv", ["ensconce", "init", str(folder), "--domain", "d.test", "--model", "m", *state])
        patch.setattr(main.signal, "signal", lambda *_: None)
        with pytest.raises(SystemExit) as left:
            main.main()
    assert left.value.code == 0
    return folder


@pytest.fixture
def owner(made: Path) -> Path:
    """The owner's folder, whose log has one more entry for each test."""
    folder = OwnerFolder.open(made)
    folder.audit_log(folder.keystore()).append("key.refused", peer="192.0.2.7:1", check="policy.debug")
    return made


def size(owner: Path) -> int:
    folder = OwnerFolder.open(owner)
    return verify_log(open_state(folder).log, folder.public_key()).size


def test_show(ensconce: Ensconce, owner: Path) -> None:
    text = ensconce("audit", "show", "--owner", owner)
    assert "owner.created  domain=d.test" in text
    shown: dict[str, Any] = json.loads(ensconce("audit", "show", "--owner", owner, "--json"))
    assert shown["head"]["size"] == len(shown["entries"]) == size(owner)


def test_what_strangers_sent_looks_like_no_entry(ensconce: Ensconce, owner: Path) -> None:
    folder = OwnerFolder.open(owner)
    folder.audit_log(folder.keystore()).append("key.refused", found="x\n99  2026  key.released\x1b[2K\u202e")
    shown = ensconce("audit", "show", "--owner", owner)
    assert r"found=x\n99  2026  key.released\x1b[2K\u202e" in shown
    assert not any(line.startswith("99 ") for line in shown.splitlines())


def test_the_owner_verifies_her_log_against_a_kept_head(ensconce: Ensconce, owner: Path, tmp_path: Path) -> None:
    assert f"{size(owner)} entries under the root" in ensconce("audit", "verify", "--owner", owner)
    head = json.loads(ensconce("audit", "verify", "--owner", owner, "--json"))["head"]
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps(head, sort_keys=True, separators=(",", ":")) + "\n")
    said = ensconce("audit", "verify", "--owner", owner, "--since", kept)
    assert f"the first {size(owner)} entries are those of the earlier head" in said
    assert "since" in json.loads(ensconce("audit", "verify", "--owner", owner, "--since", kept, "--json"))
    kept.write_text(kept.read_text().replace('"size":', '"size":1'))
    assert "[audit.head]" in ensconce("audit", "verify", "--owner", owner, "--since", kept, status=6)


def test_an_entry_is_proved_to_somebody_else(ensconce: Ensconce, owner: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof.json"
    ensconce("audit", "prove", 1, "--owner", owner, "--out", proof)
    key = shutil.copy(owner / "owner.pub", tmp_path / "owner.pub")
    said = ensconce("audit", "verify", "--proof", proof, "--public-key", key)
    assert "entry 1 is in the log" in said
    assert "check=policy.debug" in said
    assert json.loads(ensconce("audit", "verify", "--proof", proof, "--public-key", key, "--json"))["entry"]["seq"] == 1
    assert ensconce("audit", "prove", 1, "--owner", owner).encode() == proof.read_bytes()
    proof.write_bytes(proof.read_bytes().replace(b"policy.debug", b"policy.nulls"))
    assert "entry 1" in ensconce("audit", "verify", "--proof", proof, "--public-key", key, status=6)
    assert "merkle.range" in ensconce("audit", "prove", 10_000, "--owner", owner, status=2)


def test_a_continuation_is_proved_to_who_kept_a_head(ensconce: Ensconce, owner: Path, tmp_path: Path) -> None:
    public, kept, proof = tmp_path / "public", tmp_path / "kept", tmp_path / "proof"
    key = owner / "owner.pub"
    ensconce("audit", "export", public, "--owner", owner)
    assert "kept the head" in ensconce("audit", "witness", public, "--public-key", key, "--keep", kept)
    before = size(owner)
    folder = OwnerFolder.open(owner)
    folder.audit_log(folder.keystore()).append("key.refused", peer="192.0.2.7:2")
    ensconce("audit", "prove", "--from", before, "--owner", owner, "--out", proof)
    assert "the first" in ensconce("audit", "verify", "--proof", proof, "--public-key", key, "--since", kept)
    assert "audit.since" in ensconce("audit", "verify", "--proof", proof, "--public-key", key, status=2)
    ensconce("audit", "export", public, "--owner", owner)
    answer = json.loads(ensconce("audit", "witness", public, "--public-key", key, "--keep", kept, "--json"))
    assert (answer["earlier"]["size"], answer["head"]["size"]) == (before, before + 1)
    assert "good" in ensconce("audit", "witness", public, "--public-key", key, "--keep", kept)


def test_exports_verify_without_the_owner(ensconce: Ensconce, owner: Path, tmp_path: Path) -> None:
    said = json.loads(ensconce("audit", "export", tmp_path / "public", "--owner", owner, "--json"))
    assert said["wrote"] == str(tmp_path / "public")
    assert said["head"] == json.loads(ensconce("audit", "verify", "--owner", owner, "--json"))["head"]
    ensconce("audit", "export", "--full", tmp_path / "full", "--owner", owner)
    for log in (tmp_path / "public", tmp_path / "full"):
        said = ensconce("audit", "verify", "--log", log, "--public-key", owner / "owner.pub")
        assert f"{size(owner)} entries" in said
    lines = tmp_path / "full" / "log.jsonl"
    lines.write_bytes(lines.read_bytes().replace(b"d.test", b"e.test"))
    said = ensconce("audit", "verify", "--log", tmp_path / "full", "--public-key", owner / "owner.pub", status=6)
    assert "entry 0" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "--log", "x", "--proof", "y"),
        ("verify", "--public-key", "/nowhere"),
        ("prove",),
        ("prove", "1", "--from", "1"),
        ("witness", "http://", "--public-key", "owner.pub", "--keep", "kept"),
        ("witness", "nowhere", "--public-key", "owner.pub", "--keep", "kept"),
    ],
)
def test_wrong_usage(
    ensconce: Ensconce, owner: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(owner)
    assert ensconce("audit", *arguments, status=2).count("\n") == 1


def test_an_unreachable_server_is_5(ensconce: Ensconce, owner: Path, tmp_path: Path) -> None:
    arguments = ("--public-key", owner / "owner.pub", "--keep", tmp_path / "kept")
    assert "audit.source" in ensconce("audit", "witness", "http://127.0.0.1:1", *arguments, status=5)


def test_one_place_for_the_state(ensconce: Ensconce, tmp_path: Path) -> None:
    arguments = ("init", tmp_path / "o", "--domain", "d.test", "--model", "m", "--sqlite", "a", "--postgresql", "b")
    assert "choose one" in ensconce(*arguments, status=2)
    (tmp_path / "url").write_text("postgresql://u:secret@127.0.0.1:1/x")
    (tmp_path / "url").chmod(0o644)
    arguments = ("init", tmp_path / "o", "--domain", "d.test", "--model", "m", "--postgresql", tmp_path / "url")
    assert "state.url_file" in ensconce(*arguments, status=2)
    (tmp_path / "url").chmod(0o600)
    said = ensconce(*arguments, status=5)
    assert "state.unreachable" in said
    assert "secret" not in said
    assert not (tmp_path / "o").exists()
