from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ensconce.appraisal.policy import Identity, Owners, Policy
from ensconce.appraisal.policy_authority import AdmittedPolicy, Authority
from ensconce.appraisal.policy_owners import key_name
from ensconce.appraisal.policy_signing import SignedPolicy
from ensconce.appraisal.policy_text import dump_policy
from ensconce.appraisal.verdict import TcbStatus
from ensconce.errors import InputError, IntegrityError, RefusedError

OWNER, ALICE, BOB, CAROL, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in range(5))
DEPLOYMENT = Authority(key_name(OWNER.public_key()), "digits.example.test")
PLAIN = Policy(
    roots=("intel",),
    tcb_statuses=(TcbStatus.UP_TO_DATE,),
    identities=(Identity(name="code", mr_enclave=b"\x11" * 32, receives=("model/digits",)),),
)


def owners(required: int, *keys: Ed25519PrivateKey) -> Owners:
    return Owners(required=required, keys=tuple(key_name(key.public_key()) for key in keys))


def signed(policy: Policy, *keys: Ed25519PrivateKey) -> SignedPolicy:
    made = SignedPolicy(dump_policy(policy), policy)
    for key in keys:
        made = made.signed_with(key)
    return made


def version(serial: int, **fields: Any) -> Policy:
    return dataclasses.replace(PLAIN, serial=serial, **fields)


def admitted(policy: Policy, *keys: Ed25519PrivateKey, in_force: AdmittedPolicy | None = None) -> AdmittedPolicy:
    return DEPLOYMENT.admit(signed(policy, *keys), in_force)


def refused(policy: SignedPolicy, in_force: AdmittedPolicy | None = None) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        DEPLOYMENT.admit(policy, in_force)
    assert caught.value.remedy
    return caught.value


def names(*keys: Ed25519PrivateKey) -> tuple[str, ...]:
    return tuple(sorted(key_name(key.public_key()) for key in keys))


class TestWithoutOwners:
    def test_the_deployments_owner_alone_signs(self) -> None:
        assert admitted(PLAIN, OWNER).signers == names(OWNER)
        assert admitted(PLAIN, OWNER, ALICE).signers == names(OWNER)

    @pytest.mark.parametrize("keys", [(), (ALICE,), (ALICE, BOB, CAROL)])
    def test_nobody_else_does(self, keys: tuple[Ed25519PrivateKey, ...]) -> None:
        error = refused(signed(PLAIN, *keys))
        assert error.check == "policy.signatures"
        assert error.found == "0 that count: none"
        assert "names no owners" in (error.rule or "")


class TestWithOwners:
    TWO = owners(2, ALICE, BOB, CAROL)

    def test_the_first_such_policy_is_signed_by_its_owners(self) -> None:
        assert admitted(version(1, owners=self.TWO), ALICE, CAROL).signers == names(ALICE, CAROL)
        assert refused(signed(version(1, owners=self.TWO), ALICE)).check == "policy.signatures"
        assert refused(signed(version(1, owners=self.TWO), OWNER, ALICE)).check == "policy.signatures"

    def test_to_name_owners_needs_the_old_owner_and_the_new_ones(self) -> None:
        before = admitted(PLAIN, OWNER)
        after = version(2, owners=self.TWO)
        assert admitted(after, OWNER, ALICE, BOB, in_force=before).signers == names(OWNER, ALICE, BOB)
        assert "the policy in force" in (refused(signed(after, ALICE, BOB, CAROL), before).rule or "")
        assert "the policy itself" in (refused(signed(after, OWNER, ALICE), before).rule or "")

    def test_every_later_policy_needs_them(self) -> None:
        before = admitted(version(1, owners=self.TWO), ALICE, BOB)
        assert admitted(version(2, owners=self.TWO), BOB, CAROL, in_force=before)
        for keys in ((OWNER,), (ALICE,), (OWNER, ALICE), (OWNER, STRANGER, ALICE)):
            assert refused(signed(version(2, owners=self.TWO), *keys), before).check == "policy.signatures"

    def test_to_change_them_needs_the_old_ones_and_the_new_ones(self) -> None:
        before = admitted(version(1, owners=self.TWO), ALICE, BOB)
        after = version(2, owners=owners(1, STRANGER))
        assert admitted(after, ALICE, BOB, STRANGER, in_force=before)
        refused(signed(after, STRANGER), before)
        refused(signed(after, ALICE, STRANGER), before)
        refused(signed(after, ALICE, BOB), before)

    def test_to_drop_them_needs_them_and_the_deployments_owner(self) -> None:
        before = admitted(version(1, owners=self.TWO), ALICE, BOB)
        assert admitted(version(2), ALICE, BOB, OWNER, in_force=before)
        refused(signed(version(2), OWNER), before)
        refused(signed(version(2), ALICE, BOB), before)

    def test_a_signature_counts_once_however_often_it_is_there(self) -> None:
        once = signed(version(1, owners=self.TWO), ALICE)
        twice = dataclasses.replace(once, signatures=once.signatures * 3)
        assert twice.signers == names(ALICE)
        assert refused(twice).found == f"1 that count: {names(ALICE)[0]}"

    def test_a_signature_under_another_name_does_not_count(self) -> None:
        once = signed(version(1, owners=self.TWO), ALICE)
        ((_, signature),) = once.signatures
        forged = dataclasses.replace(once, signatures=(*once.signatures, (names(BOB)[0], signature)))
        assert refused(forged).check == "policy.signatures"

    @pytest.mark.parametrize("sign", [0, 1])
    @pytest.mark.parametrize(
        "point",
        [
            "00" * 32,
            "01" + "00" * 31,
            "ec" + "ff" * 30 + "7f",
            "ed" + "ff" * 30 + "7f",
            "ee" + "ff" * 30 + "7f",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        ],
    )
    def test_a_key_for_which_everybody_can_sign_is_no_owner(self, point: str, sign: int) -> None:
        raw = bytes.fromhex(point)
        raw = raw[:-1] + bytes([raw[-1] | sign << 7])
        with pytest.raises(InputError, match=r"wrong value in the policy, owners\.keys"):
            Owners(required=1, keys=(f"ed25519:{raw.hex()}",))

    def test_more_owners_required_than_there_are_is_an_error(self) -> None:
        for required, keys in ((0, (ALICE,)), (2, (ALICE,)), (1, ()), (2, (ALICE, ALICE))):
            with pytest.raises(InputError):
                owners(required, *keys)


class TestWhatIsSigned:
    def test_a_signature_is_of_the_meaning(self) -> None:
        made = signed(PLAIN, OWNER)
        text = "# another layout\n" + json.dumps(PLAIN.to_json_object())
        again = SignedPolicy.parse(text.encode(), "policy.yaml", made.signatures_file())
        assert DEPLOYMENT.admit(again, None).policy == PLAIN

    @pytest.mark.parametrize(
        "change",
        [
            {"serial": 2},
            {"service": "digits.example.test"},
            {"roots": ("intel", "simulated:" + "0" * 64)},
            {"identities": (dataclasses.replace(PLAIN.identities[0], debug=True),)},
            {"identities": (dataclasses.replace(PLAIN.identities[0], receives=("model/other",)),)},
        ],
    )
    def test_a_signature_is_of_nothing_else(self, change: dict[str, Any]) -> None:
        other = dataclasses.replace(PLAIN, **change)
        moved = SignedPolicy(dump_policy(other), other, signed(PLAIN, OWNER).signatures)
        assert moved.signers == ()
        assert refused(moved).check == "policy.signatures"

    def test_a_signature_of_the_bare_hash_is_none(self) -> None:
        digest = bytes.fromhex(PLAIN.sha256)
        bare = SignedPolicy(dump_policy(PLAIN), PLAIN, ((names(OWNER)[0], OWNER.sign(digest)),))
        assert refused(bare).check == "policy.signatures"

    def test_the_message_is_written_down(self) -> None:
        ((_, signature),) = signed(PLAIN, OWNER).signatures
        OWNER.public_key().verify(signature, b"ensconce/policy/1\x00" + bytes.fromhex(PLAIN.sha256))


class TestSerial:
    def test_it_only_goes_up(self) -> None:
        before = admitted(version(7), OWNER)
        assert admitted(version(8), OWNER, in_force=before)
        assert admitted(version(100), OWNER, in_force=before)
        for serial in (1, 6):
            assert refused(signed(version(serial), OWNER), before).check == "policy.serial"

    def test_two_policies_do_not_share_one(self) -> None:
        before = admitted(version(7), OWNER)
        other = version(7, service="digits.example.test")
        assert refused(signed(other, OWNER), before).check == "policy.serial"

    def test_the_same_policy_may_come_again(self) -> None:
        before = admitted(version(7), OWNER)
        assert admitted(version(7), OWNER, in_force=before).policy == before.policy


def test_a_policy_for_another_service_is_refused() -> None:
    assert admitted(version(1, service="digits.example.test"), OWNER)
    error = refused(signed(version(1, service="other.example.test"), OWNER))
    assert (error.check, error.rule) == ("policy.service", "digits.example.test")


def test_an_admitted_policy_cannot_be_had_otherwise() -> None:
    one = admitted(PLAIN, OWNER)
    with pytest.raises(TypeError):
        AdmittedPolicy(object(), one.signed, one.signers)
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(one, signed=signed(PLAIN))


class TestFiles:
    def test_signatures_come_back_from_their_file(self) -> None:
        made = signed(PLAIN, ALICE, OWNER)
        again = SignedPolicy.parse(made.text.encode(), "policy.yaml", made.signatures_file())
        assert again.signers == names(ALICE, OWNER)

    def test_bad_signatures_are_left_out_of_it(self) -> None:
        made = signed(PLAIN, OWNER)
        noisy = dataclasses.replace(made, signatures=(*made.signatures, (names(ALICE)[0], bytes(64)), ("x", b"")))
        assert noisy.signatures_file() == made.signatures_file()

    def test_one_key_signs_once(self) -> None:
        assert signed(PLAIN, OWNER, OWNER, OWNER).signatures == signed(PLAIN, OWNER).signatures

    @pytest.mark.parametrize(
        "change",
        [
            lambda file: b"",
            lambda file: b"[]",
            lambda file: file.replace(b'"version": 1', b'"version": 2'),
            lambda file: file.replace(b'"version": 1', b'"version": 1, "version": 1'),
            lambda file: file.replace(b'"version": 1', b'"version": 1, "more": 1'),
            lambda file: file.replace(b"ed25519:", b"rsa:"),
            lambda file: file.replace(b'"signatures": [', b'"signatures": ["x", '),
            lambda file: b"[" * 100_000,
            lambda file: b"\xff" + file,
        ],
    )
    def test_a_damaged_one_is_an_error(self, change: Any) -> None:
        made = signed(PLAIN, OWNER)
        with pytest.raises(InputError) as caught:
            SignedPolicy.parse(made.text.encode(), "policy.yaml", change(made.signatures_file()))
        assert caught.value.check == "policy.signatures_file"
        assert "policy.yaml.signatures" in caught.value.problem

    def test_one_of_another_policy_is_an_error(self) -> None:
        with pytest.raises(InputError, match="changed after it was signed"):
            SignedPolicy.parse(dump_policy(version(2)).encode(), "policy.yaml", signed(PLAIN, OWNER).signatures_file())

    def test_documents_come_back(self) -> None:
        made = signed(PLAIN, OWNER)
        assert SignedPolicy.from_document(made.to_document()) == made

    @pytest.mark.parametrize("document", [b"", b"{}", b'{"version":1,"policy":"","signatures":[]}', b"\x00" * 9])
    def test_a_damaged_document_is_told(self, document: bytes) -> None:
        with pytest.raises(IntegrityError) as caught:
            SignedPolicy.from_document(document)
        assert caught.value.check == "policy.document"
