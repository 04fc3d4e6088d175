"""What an accepted enclave receives, and what is written down about it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import http.client
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from ensconce.addresses import Address
from ensconce.appraisal.policy import Policy
from ensconce.appraisal.policy_tcb import StatusUntil
from ensconce.appraisal.verdict import TcbStatus
from ensconce.errors import EnsconceError, EvidenceError, InputError, RefusedError, UnreachableError
from ensconce.platform.simulated.collateral import CollateralRecipe
from ensconce.ratls.verify import evidence_of


def leaf_of(provisioned: Any) -> x509.Certificate:
    return x509.load_pem_x509_certificates(provisioned.certificate_chain)[0]


def test_an_accepted_enclave_receives_its_keys_and_a_certificate(owner: Any, enclave: Any) -> None:
    provisioned = owner.provision(enclave, ("digits", 1), ("digits", 2))
    assert provisioned.secrets == {"model/digits/1": b"first wrap key 1", "model/digits/2": b"second wrap key!"}
    assert provisioned.refused == {}
    leaf = leaf_of(provisioned)
    assert leaf.public_key() == provisioned.private_key.public_key()
    leaf.verify_directly_issued_by(owner.authority.certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName("digits.example.test")]
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert life == dt.timedelta(hours=24, minutes=5)
    # Its evidence convinces a client that knows nothing but policy and collateral.
    accepted = owner.server.appraiser.appraise(evidence_of(leaf.public_bytes(Encoding.DER)))
    assert accepted.identity.name == "digits replica"


def test_every_release_makes_a_new_key(owner: Any, enclave: Any) -> None:
    one, two = owner.provision(enclave), owner.provision(enclave)
    assert one.private_key.private_numbers() != two.private_key.private_numbers()
    assert leaf_of(one).serial_number != leaf_of(two).serial_number


def test_the_release_is_in_the_log(owner: Any, enclave: Any) -> None:
    provisioned = owner.provision(enclave, ("digits", 2), ("digits", 1))
    [(event, fields)] = owner.log()
    assert event == "key.released"
    assert fields["key_ids"] == ("model/digits/1", "model/digits/2")
    assert fields["identity"] == "digits replica"
    assert fields["mr_enclave"] == "11" * 32
    assert fields["tcb_status"] == "UpToDate"
    assert fields["policy_sha256"] == owner.policy.sha256
    assert fields["certificate_serial"] == f"{leaf_of(provisioned).serial_number:x}"
    assert fields["peer"].startswith("127.0.0.1:")
    text = str(fields)
    assert "wrap key" not in text


def test_keys_that_are_not_given_are_refused_one_by_one(owner: Any, enclave: Any) -> None:
    owner.keystore.retire("model/digits/1")
    provisioned = owner.provision(enclave, ("digits", 1), ("digits", 2), ("digits", 3), ("faces", 1), ("nobody", 1))
    assert list(provisioned.secrets) == ["model/digits/2"]
    checks = {key_id: error.check for key_id, error in provisioned.refused.items()}
    assert checks == {
        "model/digits/1": "key.retired",
        "model/digits/3": "key.unknown",
        # The policy speaks first, so that an answer does not tell which other keys exist.
        "model/faces/1": "policy.receives",
        "model/nobody/1": "policy.receives",
    }
    assert all(isinstance(error, RefusedError) for error in provisioned.refused.values())
    events = [(event, fields.get("key_id"), fields.get("check")) for event, fields in owner.log()]
    assert sorted(events[:-1]) == sorted(("key.refused", key_id, check) for key_id, check in checks.items())
    assert events[-1][0] == "key.released"
    counted = owner.server.metrics.registry.get_sample_value
    for check, count in (("key.retired", 1), ("key.unknown", 1), ("policy.receives", 2)):
        labels = {"check": check, "wire": "v2"}
        assert counted("ensconce_provisioning_refusals_total", labels) == count


@pytest.mark.parametrize(
    ("model", "check"),
    [(("digits", 1), "key.retired"), (("digits", 9), "key.unknown"), (("faces", 1), "policy.receives")],
)
def test_when_no_key_is_given_there_is_no_certificate_either(
    owner: Any, enclave: Any, model: tuple[str, int], check: str
) -> None:
    owner.keystore.retire("model/digits/1")
    with pytest.raises(RefusedError) as caught:
        owner.provision(enclave, model)
    assert caught.value.check == check
    assert caught.value.found
    [(event, fields)] = owner.log()
    assert (event, fields["check"], fields["identity"]) == ("key.refused", check, "digits replica")


def test_a_keystore_that_is_gone_is_no_word_of_the_policy(owner: Any, enclave: Any) -> None:
    folder = owner.audit_folder.parent / "keystore"
    (folder / "keystore.sealed").unlink()
    with pytest.raises(UnreachableError) as caught:
        owner.provision(enclave)
    assert caught.value.check == "keystore.missing"
    assert str(folder) not in str(caught.value)
    [(event, fields)] = owner.log()
    assert (event, fields["check"]) == ("key.refused", "keystore.missing")
    assert str(folder) in fields["problem"]


def test_a_certificate_alone_can_be_renewed(owner: Any, enclave: Any) -> None:
    provisioned = owner.provision(enclave, models=())
    assert provisioned.secrets == {}
    assert leaf_of(provisioned).public_key() == provisioned.private_key.public_key()
    [(event, fields)] = owner.log()
    assert (event, fields["key_ids"]) == ("key.released", ())


def test_an_identity_that_receives_nothing_gets_no_certificate(owner: Any, enclave: Any) -> None:
    for models in ((), (("digits", 1),)):
        with pytest.raises(RefusedError) as caught:
            owner.provision(enclave.but(mr_enclave=b"\x33" * 32), models=models)
        assert caught.value.check == "policy.receives"
    assert [event for event, _ in owner.log()] == ["key.refused", "key.refused"]


def test_a_running_server_takes_a_new_policy(owner: Any, enclave: Any) -> None:
    narrower = dataclasses.replace(owner.policy, identities=owner.policy.identities[1:])
    owner.provision(enclave)
    owner.server.appraiser = dataclasses.replace(owner.server.appraiser, policy=narrower)
    with pytest.raises(RefusedError) as caught:
        owner.provision(enclave)
    assert caught.value.check == "policy.mr_enclave"


class Meanwhile:
    """Collateral, but while that for the first or the second quote is fetched, a new policy comes."""

    def __init__(self, server: Any, policy: Policy, moment: int) -> None:
        self._server, self._before, self._policy, self._left = server, server.appraiser, policy, moment

    def get_for(self, quote: bytes) -> Any:
        self._left -= 1
        if self._left == 0:
            self._server.appraiser = dataclasses.replace(self._before, policy=self._policy)
        return self._before.collateral.get_for(quote)


@pytest.mark.parametrize("moment", [1, 2])
def test_a_narrower_policy_that_comes_while_evidence_is_appraised_decides(
    owner: Any, enclave: Any, moment: int
) -> None:
    narrower = dataclasses.replace(owner.policy, identities=owner.policy.identities[1:])
    meanwhile = Meanwhile(owner.server, narrower, moment)
    owner.server.appraiser = dataclasses.replace(owner.server.appraiser, collateral=meanwhile)
    with pytest.raises(RefusedError) as caught:
        owner.provision(enclave)
    assert caught.value.check == "policy.mr_enclave"
    assert [event for event, _ in owner.log()] == ["key.refused"]


class RecordedLate:
    """A log that takes its time: a new policy comes before the first entry is on disk."""

    def __init__(self, server: Any, real: Any, policy: Policy) -> None:
        self._server, self._real, self._policy = server, real, policy

    def append_many(self, events: Any) -> Any:
        self._server.appraiser = dataclasses.replace(self._server.appraiser, policy=self._policy)
        return self._real.append_many(events)


def test_a_narrower_policy_that_comes_while_the_log_is_written_decides(owner: Any, enclave: Any) -> None:
    first, *others = owner.policy.identities
    narrower = dataclasses.replace(
        owner.policy, identities=(dataclasses.replace(first, receives=("model/faces",)), *others)
    )
    recorder = owner.server._services.recorder
    recorder._audit = RecordedLate(owner.server, recorder._audit, narrower)
    with pytest.raises(RefusedError) as caught:
        owner.provision(enclave)
    assert caught.value.check == "policy.receives"
    # The log says too much rather than too little: what it says was released before was not sent.
    assert [event for event, _ in owner.log()] == ["key.released", "key.refused"]


def test_a_narrower_policy_judges_the_evidence_in_the_request_as_well(
    owner: Any, enclave: Any, vendor: Any, policy: Policy
) -> None:
    class OutdatedSecond:
        """A platform that is up to date in the fresh quote, and not in the one for the certificate."""

        def __init__(self) -> None:
            self.asked = 0

        def get_for(self, quote: bytes) -> Any:
            self.asked += 1
            if self.asked == 1:
                return vendor.collateral(int(time.time()))
            owner.server.appraiser = dataclasses.replace(owner.server.appraiser, policy=policy)
            return vendor.collateral(int(time.time()), CollateralRecipe(tcb_status="OutOfDate"))

    outdated = StatusUntil(TcbStatus.OUT_OF_DATE, dt.date(9999, 12, 31))
    lax = dataclasses.replace(policy, tcb_statuses=(TcbStatus.UP_TO_DATE, outdated))
    owner.server.appraiser = dataclasses.replace(owner.server.appraiser, policy=lax, collateral=OutdatedSecond())
    with pytest.raises(RefusedError) as caught:
        owner.provision(enclave)
    assert caught.value.check == "policy.tcb_status"


def test_a_clock_that_was_ahead_when_the_server_began_keeps_nobody_out_for_long(
    owners: Callable[..., Any], enclave: Any
) -> None:
    ahead = [60 * 24 * 3600]
    owner = owners(now=lambda: int(time.time()) + ahead[0])
    with pytest.raises(EvidenceError) as caught:
        owner.provision(enclave)
    assert caught.value.check == "provisioning.server_certificate"
    ahead[0] = 0
    assert owner.provision(enclave).secrets


def test_a_clock_beyond_the_authoritys_end_is_named(
    owners: Callable[..., Any], enclave: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ahead = [0]
    owner = owners(now=lambda: int(time.time()) + ahead[0], status=Address("127.0.0.1", 0))

    def ready() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", owner.server.status_port, timeout=30)
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status, answer.read()

    assert ready()[0] == 200
    ahead[0] = 11 * 365 * 24 * 3600
    for _ in range(3):
        with pytest.raises(UnreachableError):
            owner.provision(enclave)
    assert [fields["check"] for _, fields in owner.wait_for_log(3)] == ["authority.expired"] * 3
    assert ready() == (503, b'{"error": {"check": "authority.expired"}}\n')
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    ahead[0] = 0
    assert ready()[0] == 200
    assert owner.provision(enclave).secrets


@pytest.mark.parametrize("moment", [1, 2])
def test_another_policy_that_comes_meanwhile_and_says_yes_as_well_refuses_nobody(
    owner: Any, enclave: Any, moment: int
) -> None:
    first, *others = owner.policy.identities
    renamed = dataclasses.replace(owner.policy, identities=(dataclasses.replace(first, name="renamed"), *others))
    meanwhile = Meanwhile(owner.server, renamed, moment)
    owner.server.appraiser = dataclasses.replace(owner.server.appraiser, collateral=meanwhile)
    owner.provision(enclave)
    [(event, fields)] = owner.log()
    assert (event, fields["identity"], fields["policy_sha256"]) == ("key.released", "renamed", renamed.sha256)


def test_a_failure_that_nobody_foresaw_releases_nothing_and_is_in_the_log(owner: Any, enclave: Any) -> None:
    class Broken:
        def get_for(self, quote: bytes) -> Any:
            raise KeyError("something of a stranger's")

    owner.server.appraiser = dataclasses.replace(owner.server.appraiser, collateral=Broken())
    with pytest.raises(UnreachableError):
        owner.provision(enclave)
    [(event, fields)] = owner.wait_for_log(1)
    assert (event, fields["check"], fields["found"]) == ("key.refused", "provisioning.bug", "KeyError")


def test_the_lifetime_of_certificates_is_a_parameter(owners: Callable[..., Any], enclave: Any) -> None:
    leaf = leaf_of(owners(lifetime=600).provision(enclave))
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == dt.timedelta(minutes=15)


def test_the_first_server_that_is_there_answers(owner: Any, enclave: Any, find_port: Callable[[], int]) -> None:
    nobody = f"127.0.0.1:{find_port()}"
    provisioned = owner.provision(enclave, servers=[nobody, owner.address])
    assert provisioned.secrets
    with pytest.raises(UnreachableError) as caught:
        owner.provision(enclave, servers=[nobody])
    assert caught.value.check == "provisioning.unreachable"
    assert nobody in (caught.value.found or "")


def test_each_of_several_servers_is_the_first_for_some(owner: Any, enclave: Any, find_port: Callable[[], int]) -> None:
    nobodies = [f"127.0.0.1:{find_port()}" for _ in range(2)]
    first = set()
    for seed in range(8):
        with pytest.raises(UnreachableError) as caught:
            owner.provision(enclave, servers=nobodies, chance=random.Random(seed))
        found = caught.value.found or ""
        assert all(nobody in found for nobody in nobodies)
        first.add(found.partition(": ")[0])
    assert first == set(nobodies)


@pytest.mark.parametrize(
    "changes",
    [
        {"servers": ["nonsense"]},
        {"servers": ["127.0.0.1:99999"]},
        {"models": [("Digits", 1)]},
        {"models": [("digits", -1)]},
        {"models": [("digits", 1), ("digits", 1)]},
        {"models": [("digits", version) for version in range(65)]},
        {"ca_pem": b"nothing"},
    ],
)
def test_wrong_arguments_are_input_errors(owner: Any, enclave: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        owner.provision(enclave, **changes)


def test_secrets_show_in_no_representation(owner: Any, enclave: Any) -> None:
    provisioned = owner.provision(enclave)
    assert "wrap key" not in repr(provisioned)
    assert isinstance(provisioned.refused, dict)
    assert not any(isinstance(error, EnsconceError) for error in provisioned.secrets.values())
