"""What a log says of the keystore."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ensconce.audit.entry import Entry, sign_entry, storable
from ensconce.cluster.custody import put_secret, retire_key
from ensconce.cluster.deployment import Deployment
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.recorded import ReleasingKeystore, check_against_log, retired_in
from ensconce.cluster.state import open_state
from ensconce.cluster.unlocking import place_of
from ensconce.errors import InputError, IntegrityError, RefusedError
from ensconce.keys import FolderPlace, SealedKeystore, new_key_file

KEY = Ed25519PrivateKey.generate()


def entry(event: str, **fields: object) -> Entry:
    return sign_entry(0, "2026-01-31T12:00:00Z", event, storable(event, fields), bytes(32), KEY)


@pytest.fixture
def keystore(tmp_path: Path) -> SealedKeystore:
    keystore = SealedKeystore.create(FolderPlace(tmp_path / "k"), new_key_file(tmp_path / "key"))
    keystore.put("secret/a", b"x", kind="secret")
    return keystore


def test_what_is_read_from_a_log() -> None:
    log = [
        entry("key.added", key_id="a", generation=4),
        entry("key.retiring", key_id="a", generation=9),
        entry("key.retired", key_id="b"),
        entry("key.retired", key_id=7),
        entry("key.refused", key_id="c", generation="12"),
        entry("model.sealed", key_id="d", generation=True),
    ]
    assert retired_in(log) == (frozenset({"a", "b"}), 9)
    assert retired_in([]) == (frozenset(), 0)


def test_a_log_and_a_keystore_that_agree(keystore: SealedKeystore) -> None:
    check_against_log(keystore, [])
    check_against_log(keystore, [entry("key.added", key_id="secret/a", generation=2)])
    check_against_log(keystore, [entry("key.retired", key_id="secret/gone")])
    keystore.retire("secret/a")
    check_against_log(keystore, [entry("key.retired", key_id="secret/a", generation=3)])


@pytest.mark.parametrize(
    "seen",
    [
        entry("key.added", key_id="secret/b", generation=3),
        entry("keystore.rewrapped", generation=2**40),
        entry("key.retired", key_id="secret/a"),
        entry("key.retiring", key_id="secret/a", generation=1),
    ],
)
def test_a_keystore_that_is_older_than_the_log(keystore: SealedKeystore, seen: Entry) -> None:
    with pytest.raises(IntegrityError) as caught:
        check_against_log(keystore, [seen])
    assert caught.value.check == "keystore.rollback"
    assert caught.value.remedy


@pytest.mark.parametrize(
    "state", [{"kind": "folder"}, {"kind": "sqlite", "path": "state.db"}], ids=["folder", "sqlite"]
)
def test_a_server_gives_nothing_that_was_retired_whatever_it_is_shown(
    tmp_path: Path, deployment: Callable[..., Deployment], state: dict[str, str]
) -> None:
    owner = OwnerFolder.create(tmp_path / "owner", deployment(state=state))
    put_secret(owner, "secret/a", b"abc")
    put_secret(owner, "secret/b", b"def")
    opened = owner.keystore()
    server = ReleasingKeystore(opened, owner.audit_log(opened), open_state(owner).log, owner.public_key())
    assert server.get("secret/a") == b"abc"
    with place_of(owner).locked() as slot:
        early = slot.read()
    assert early is not None
    retire_key(owner, "secret/a")
    # Before the server has looked, so that to it nothing has changed.
    with place_of(owner).locked() as slot:
        late = slot.read()
        slot.write(early)
    with pytest.raises(IntegrityError) as caught:
        server.get("secret/a")
    assert caught.value.check == "keystore.rollback"
    assert server.get("secret/b") == b"def"
    with pytest.raises(IntegrityError, match=r"keystore\.rollback"):
        ReleasingKeystore(opened, owner.audit_log(opened), open_state(owner).log, owner.public_key())
    with place_of(owner).locked() as slot:
        assert late is not None
        slot.write(late)
    with pytest.raises(RefusedError) as refused:
        server.get("secret/a")
    assert refused.value.check == "key.retired"


def test_a_key_that_is_being_retired_is_no_alarm(owner: OwnerFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    put_secret(owner, "secret/a", b"abc")
    announced, looking = threading.Event(), threading.Event()
    real = SealedKeystore._write

    def slow(*arguments: object) -> None:
        announced.set()
        assert looking.wait(30)
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(SealedKeystore, "_write", slow)
    retiring = threading.Thread(target=lambda: retire_key(owner, "secret/a"))
    retiring.start()
    try:
        assert announced.wait(30)
        keystore, events = owner.keystore(), owner.verified_log()[1]
        assert events[-1].event == "key.retiring"
        monkeypatch.setattr(SealedKeystore, "at_rest", _after(looking.set, SealedKeystore.at_rest))
        check_against_log(keystore, events)
    finally:
        looking.set()
        retiring.join()


def _after(act: Callable[[], None], real: Callable[..., object]) -> Callable[..., object]:
    def acting(*arguments: object) -> object:
        act()
        return real(*arguments)

    return acting


def test_two_puts_of_one_id_are_one_in_the_log(owner: OwnerFolder) -> None:
    done: list[object] = []

    def put() -> None:
        try:
            done.append(put_secret(owner, "secret/a", b"abc"))
        except InputError as error:
            done.append(error.check)

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done, key=str) == [None, *["key.exists"] * 3]
    assert [each.event for each in owner.verified_log()[1]].count("key.added") == 1
