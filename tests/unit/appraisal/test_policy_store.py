from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ensconce.appraisal.policy import Identity, Owners, Policy
from ensconce.appraisal.policy_authority import AdmittedPolicy, Authority
from ensconce.appraisal.policy_owners import key_name
from ensconce.appraisal.policy_signing import SignedPolicy
from ensconce.appraisal.policy_source import PolicySource
from ensconce.appraisal.policy_store import DOCUMENT, PolicyStore, Record
from ensconce.appraisal.policy_text import dump_policy
from ensconce.appraisal.verdict import TcbStatus
from ensconce.errors import EnsconceError, InputError, IntegrityError, RefusedError, UnreachableError
from ensconce.state.database import DatabaseStore
from ensconce.state.engine import Database
from ensconce.state.folder import FolderStore
from ensconce.state.store import Store

OWNER, ALICE, BOB, THIEF = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in range(4))
AUTHORITY = Authority(key_name(OWNER.public_key()), "digits.example.test")
PLAIN = Policy(
    roots=("intel",),
    tcb_statuses=(TcbStatus.UP_TO_DATE,),
    identities=(Identity(name="code", mr_enclave=b"\x11" * 32, receives=("model/digits",)),),
)


def signed(serial: int, *keys: Ed25519PrivateKey, **fields: Any) -> SignedPolicy:
    policy = dataclasses.replace(PLAIN, serial=serial, **fields)
    made = SignedPolicy(dump_policy(policy), policy)
    for key in keys or (OWNER,):
        made = made.signed_with(key)
    return made


@dataclass
class World:
    """A real store, and a log that is a list."""

    store: Store
    log: list[Record] = field(default_factory=list)

    def records(self) -> list[Record]:
        return self.log

    def record(self, policy: AdmittedPolicy, replaces: str) -> None:
        self.log.append(Record(policy.policy.serial, policy.policy.sha256, replaces))

    @property
    def policies(self) -> PolicyStore:
        return PolicyStore(self.store, AUTHORITY, self.records)

    def apply(self, serial: int, *keys: Ed25519PrivateKey, **fields: Any) -> AdmittedPolicy:
        return self.policies.apply(signed(serial, *keys, **fields), self.record)

    def put(self, name: str, document: bytes) -> None:
        with self.store.locked(name) as slot:
            slot.write(document)

    def serial(self) -> int:
        return self.policies.in_force().policy.serial


@pytest.fixture(params=["folder", "database"])
def world(tmp_path: Path, request: pytest.FixtureRequest) -> World:
    if request.param == "folder":
        return World(FolderStore(tmp_path / "state"))
    return World(DatabaseStore(Database.open(f"sqlite:///{tmp_path / 'state.db'}")))


def check_of(call: Callable[[], object]) -> str:
    with pytest.raises(EnsconceError) as caught:
        call()
    assert caught.value.remedy
    return caught.value.check


class TestApply:
    def test_what_is_applied_is_in_force(self, world: World) -> None:
        assert check_of(world.policies.in_force) == "policy.none"
        world.apply(1)
        assert world.serial() == 1
        assert world.apply(5).signers == (AUTHORITY.owner,)
        assert world.serial() == 5
        assert [record.serial for record in world.log] == [1, 5]

    def test_what_is_refused_changes_nothing(self, world: World) -> None:
        world.apply(5)
        before = world.store.read(DOCUMENT)
        assert check_of(lambda: world.apply(5, service="digits.example.test")) == "policy.serial"
        assert check_of(lambda: world.apply(4)) == "policy.serial"
        assert check_of(lambda: world.apply(6, THIEF)) == "policy.signatures"
        assert check_of(lambda: world.apply(6, service="other.example.test")) == "policy.service"
        assert world.store.read(DOCUMENT) == before
        assert len(world.log) == 1

    def test_what_is_not_recorded_does_not_take_effect(self, world: World) -> None:
        world.apply(1)
        before = world.store.read(DOCUMENT)

        def fail(policy: AdmittedPolicy, replaces: str) -> None:
            assert replaces == signed(1).policy.sha256
            assert world.store.read(DOCUMENT) == before  # the record comes first
            raise InputError("audit.write", "the disk is full")

        with pytest.raises(InputError):
            world.policies.apply(signed(2), fail)
        assert world.store.read(DOCUMENT) == before
        assert world.serial() == 1
        world.apply(2)
        assert world.serial() == 2

    def test_a_crash_behind_the_record_loses_nothing(self, world: World) -> None:
        world.apply(1)
        before = world.store.read(DOCUMENT)
        assert before is not None
        world.apply(2)
        world.put(DOCUMENT, before)  # as if the process had died before it wrote the document
        assert world.serial() == 2
        world.apply(2)
        assert world.store.read(DOCUMENT) == signed(2).to_document()
        assert len(world.log) == 2

    def test_the_same_policy_is_recorded_once(self, world: World) -> None:
        world.apply(1)
        world.apply(1)
        assert len(world.log) == 1

    def test_of_two_at_once_one_is_applied(self, world: World) -> None:
        world.apply(1)

        def apply(number: int) -> str:
            try:
                world.apply(2, min_tcb_evaluation_data_number=number)
            except RefusedError as error:
                return error.check
            return "applied"

        with ThreadPoolExecutor(4) as threads:
            assert sorted(threads.map(apply, range(1, 5))) == ["applied", *["policy.serial"] * 3]
        assert [record.serial for record in world.log] == [1, 2]

    def test_one_that_lost_the_lock_and_came_second_has_no_effect(self, world: World) -> None:
        world.apply(1)

        def meanwhile(policy: AdmittedPolicy, replaces: str) -> None:
            # Another machine was let in: its database had lost our session, and with it the lock.
            other = signed(3, min_tcb_evaluation_data_number=9)
            world.put(f"policies/{other.policy.sha256}", other.to_document())
            world.log.append(Record(3, other.policy.sha256, replaces))
            world.record(policy, replaces)

        assert check_of(lambda: world.policies.apply(signed(2), meanwhile)) == "policy.serial"
        assert [record.serial for record in world.log] == [1, 3, 2]
        assert world.serial() == 3
        world.apply(4)
        assert world.serial() == 4

    def test_owners_sign_from_the_policy_that_names_them_on(self, world: World) -> None:
        two = Owners(required=2, keys=tuple(key_name(key.public_key()) for key in (ALICE, BOB)))
        world.apply(1)
        assert check_of(lambda: world.apply(2, OWNER, ALICE, owners=two)) == "policy.signatures"
        assert len(world.apply(2, OWNER, ALICE, BOB, owners=two).signers) == 3
        assert check_of(lambda: world.apply(3, OWNER)) == "policy.signatures"
        world.apply(3, ALICE, BOB, owners=two)
        assert world.serial() == 3


class TestAStoreThatWasChanged:
    def test_an_older_policy_is_passed_over(self, world: World) -> None:
        first = world.apply(1).signed.to_document()
        world.apply(2)
        world.put(DOCUMENT, first)
        assert world.serial() == 2

    def test_a_newer_one_that_nobody_applied_is_refused(self, world: World) -> None:
        world.apply(1)
        world.put(DOCUMENT, signed(2).to_document())
        assert check_of(world.policies.in_force) == "policy.unrecorded"

    def test_one_without_any_record_is_refused(self, world: World) -> None:
        world.put(DOCUMENT, signed(1).to_document())
        assert check_of(world.policies.in_force) == "policy.unrecorded"

    def test_damage_is_told(self, world: World) -> None:
        world.apply(1)
        world.put(DOCUMENT, b"{}")
        assert check_of(world.policies.in_force) == "policy.document"
        world.apply(1)
        assert world.serial() == 1

    def test_another_policy_put_by_under_the_same_name_is_refused(self, world: World) -> None:
        world.apply(1)
        world.put(f"policies/{signed(1).policy.sha256}", signed(2).to_document())
        assert check_of(world.policies.in_force) == "policy.document"

    def test_signatures_that_were_taken_away_are_missed(self, world: World) -> None:
        world.apply(1)
        stripped = json.loads(signed(1).to_document()) | {"signatures": []}
        world.put(f"policies/{signed(1).policy.sha256}", json.dumps(stripped).encode())
        assert check_of(world.policies.in_force) == "policy.signatures"

    def test_a_record_whose_policy_is_gone_is_told(self, world: World) -> None:
        world.apply(1)
        world.log.append(Record(2, "00" * 32))
        assert check_of(world.policies.in_force) == "policy.missing"

    @pytest.mark.parametrize("left", [b"", b"{}", "stripped", "another"])
    def test_one_that_is_lost_can_be_put_by_again(self, world: World, left: bytes | str) -> None:
        two = Owners(required=2, keys=tuple(key_name(key.public_key()) for key in (ALICE, BOB)))
        first = world.apply(1, ALICE, BOB, owners=two).signed
        world.apply(2, ALICE, BOB, owners=two)
        documents = {
            "stripped": dataclasses.replace(first, signatures=first.signatures[:1]).to_document(),
            "another": signed(3, THIEF).to_document(),
        }
        world.put(f"policies/{first.policy.sha256}", left if isinstance(left, bytes) else documents[left])
        for _ in range(2):
            assert check_of(world.policies.in_force) in ("policy.document", "policy.signatures")
            assert check_of(lambda: world.apply(3, ALICE, BOB, owners=two)) in ("policy.document", "policy.signatures")
        assert check_of(lambda: world.policies.apply(first, world.record)) == "policy.serial"
        assert world.serial() == 2
        world.apply(3, ALICE, BOB, owners=two)
        assert world.serial() == 3

    def test_a_file_without_signatures_takes_none_away(self, world: World) -> None:
        first = world.apply(1).signed
        world.apply(2)
        bare = dataclasses.replace(first, signatures=())
        assert check_of(lambda: world.policies.apply(bare, world.record)) == "policy.serial"
        assert world.serial() == 2

    def test_the_deployments_key_alone_cannot_get_round_the_owners(self, world: World) -> None:
        # Whoever holds the key that signs the log can write an entry, but not the owners' signatures.
        two = Owners(required=2, keys=tuple(key_name(key.public_key()) for key in (ALICE, BOB)))
        world.apply(1, OWNER, ALICE, BOB, owners=two)
        for bad in (
            signed(2, OWNER),
            signed(2, THIEF, owners=Owners(required=1, keys=(key_name(THIEF.public_key()),))),
        ):
            world.put(f"policies/{bad.policy.sha256}", bad.to_document())
            world.put(DOCUMENT, bad.to_document())
            world.log.append(Record(2, bad.policy.sha256))
            assert check_of(world.policies.in_force) == "policy.signatures"
            world.log.pop()


class TestARunningServer:
    def test_it_does_not_begin_without_a_policy(self, world: World) -> None:
        with pytest.raises(InputError, match="no policy is in force"):
            PolicySource(world.policies)

    def test_it_takes_a_new_policy(self, world: World) -> None:
        world.apply(1)
        source = PolicySource(world.policies)
        assert source.current().policy.serial == 1
        assert source.refresh() is None
        world.apply(2)
        world.apply(3)
        new = source.refresh()
        assert new is not None
        assert new.policy.serial == 3
        assert source.current() is new
        assert source.refresh() is None

    def test_it_takes_a_policy_whose_document_is_held_back(self, world: World) -> None:
        # Whoever can write the store puts the old document back before the server has looked: it sees no change.
        before = world.apply(1).signed.to_document()
        source = PolicySource(world.policies)
        world.apply(2)
        world.put(DOCUMENT, before)
        new = source.refresh()
        assert new is not None
        assert new.policy.serial == 2
        assert source.refresh() is None

    def test_an_entry_without_effect_hides_no_policy(self, world: World) -> None:
        # Whoever holds the log's key repeats the entry of the policy that the server has, behind a newer one.
        world.apply(1)
        source = PolicySource(world.policies)
        world.apply(2)
        world.log.append(Record(1, signed(1).policy.sha256, "00" * 32))
        new = source.refresh()
        assert new is not None
        assert new.policy.serial == world.serial() == 2

    def test_a_log_that_is_bent_while_the_document_stays_is_told_once(self, world: World) -> None:
        world.apply(1)
        world.apply(2)
        source = PolicySource(world.policies)
        lost = world.log.pop()
        assert check_of(source.refresh) == "policy.rollback"
        assert source.refresh() is None
        world.log.append(lost)
        assert source.refresh() is None
        world.log.pop()
        assert check_of(source.refresh) == "policy.rollback"
        assert source.current().policy.serial == 2

    @pytest.mark.parametrize(
        ("serial", "check"), [(1, "policy.rollback"), (3, "policy.unrecorded")], ids=["older", "newer"]
    )
    def test_it_says_once_why_it_keeps_the_old_one(self, world: World, serial: int, check: str) -> None:
        world.apply(1)
        world.apply(2)
        source = PolicySource(world.policies)
        world.put(DOCUMENT, signed(serial).to_document())
        assert check_of(source.refresh) == check
        assert source.current().policy.serial == 2
        assert source.refresh() is None
        world.apply(4)
        assert source.refresh() is source.current()
        assert source.current().policy.serial == 4

    def test_damage_is_said_once(self, world: World) -> None:
        world.apply(1)
        source = PolicySource(world.policies)
        world.put(DOCUMENT, b"nonsense")
        assert check_of(source.refresh) == "policy.document"
        assert source.refresh() is None
        assert source.current().policy.serial == 1

    def test_a_log_that_lost_the_policy_in_force_is_told(self, world: World) -> None:
        world.apply(1)
        world.apply(2)
        source = PolicySource(world.policies)
        world.log.pop()
        world.put(DOCUMENT, signed(1).to_document())
        assert check_of(source.refresh) == "policy.rollback"
        assert source.current().policy.serial == 2

    def test_a_policy_that_its_owners_did_not_sign_is_refused(self, world: World) -> None:
        world.apply(1)
        source = PolicySource(world.policies)
        bad = signed(2, THIEF)
        world.put(f"policies/{bad.policy.sha256}", bad.to_document())
        world.put(DOCUMENT, bad.to_document())
        world.log.append(Record(2, bad.policy.sha256))
        with pytest.raises(RefusedError) as caught:
            source.refresh()
        assert caught.value.check == "policy.signatures"
        assert source.current().policy.serial == 1

    def test_a_new_layout_is_no_new_policy(self, world: World) -> None:
        world.apply(1)
        source = PolicySource(world.policies)
        again = dataclasses.replace(signed(1), text="# more words\n" + signed(1).text)
        world.policies.apply(again, world.record)
        assert source.refresh() is None

    def test_what_cannot_be_read_now_is_tried_again(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        world.apply(1)
        source = PolicySource(world.policies)
        world.apply(2)
        with monkeypatch.context() as patched:
            patched.setattr(world.store, "read", _unreachable)
            for _ in range(2):
                with pytest.raises(UnreachableError):
                    source.refresh()
            assert source.current().policy.serial == 1
        new = source.refresh()
        assert new is not None
        assert new.policy.serial == 2


def _unreachable(name: str) -> bytes:
    raise UnreachableError("state.unreachable", "the database does not answer")


def test_to_apply_again_finishes_what_a_crash_left_undone(world: World) -> None:
    world.apply(1)
    first = world.store.read(DOCUMENT)
    assert first is not None
    source = PolicySource(world.policies)
    world.apply(2)
    world.put(DOCUMENT, first)  # as if the process had died before it wrote the document
    new = source.refresh()
    assert new is not None
    assert new.policy.serial == 2
    world.apply(2)
    assert world.store.read(DOCUMENT) == signed(2).to_document()
    assert source.refresh() is None


def test_integrity_errors_are_of_that_kind(world: World) -> None:
    world.apply(1)
    world.put(DOCUMENT, signed(2).to_document())
    with pytest.raises(IntegrityError):
        world.policies.in_force()
