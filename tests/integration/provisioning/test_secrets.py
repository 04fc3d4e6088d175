"""Secrets that are no model's, and trust domains: what a request may name, and who may make it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.policy import Identity, TrustDomain
from ensconce.errors import EvidenceError, InputError, RefusedError, UnreachableError
from ensconce.evidence.report import SgxReport, TdReport
from ensconce.platform.simulated.collateral import CollateralRecipe
from ensconce.platform.simulated.pki import SimulatedVendor

LICENCE = b"for one seat"


@pytest.fixture
def secretive(owners: Callable[..., Any], policy: Any) -> Any:
    """An owner who also gives a licence to the digits replica."""
    [first, *others] = policy.identities
    owner = owners(
        policy=replace(
            policy, identities=(replace(first, receives=(*first.receives, "secret/licence", "secret/none")), *others)
        )
    )
    owner.keystore.put("secret/licence", LICENCE, kind="secret")
    owner.keystore.put("secret/other", b"not for you", kind="secret")
    return owner


class TestSecrets:
    def test_secrets_come_beside_the_keys_of_models(self, secretive: Any, enclave: Any) -> None:
        granted = secretive.provision(enclave, ("digits", 2), secrets=("secret/licence",))
        assert granted.secrets == {"model/digits/2": b"second wrap key!", "secret/licence": LICENCE}
        [(event, fields)] = secretive.log()
        assert (event, fields["key_ids"]) == ("key.released", ("model/digits/2", "secret/licence"))
        assert "one seat" not in str(fields)

    def test_and_alone(self, secretive: Any, enclave: Any) -> None:
        assert secretive.provision(enclave, models=(), secrets=("secret/licence",)).secrets == {
            "secret/licence": LICENCE
        }

    def test_each_that_is_not_given_is_refused_by_itself(self, secretive: Any, enclave: Any) -> None:
        granted = secretive.provision(
            enclave, models=(), secrets=("secret/licence", "secret/other", "secret/none", "secret/nobody")
        )
        assert list(granted.secrets) == ["secret/licence"]
        assert {key: error.check for key, error in granted.refused.items()} == {
            "secret/other": "policy.receives",
            "secret/none": "key.unknown",
            # As for those that exist: an answer does not tell which do.
            "secret/nobody": "policy.receives",
        }
        with pytest.raises(RefusedError):
            secretive.provision(enclave, models=(), secrets=("secret/other",))

    def test_an_answer_that_does_not_fit_is_refused_whole(self, secretive: Any, enclave: Any) -> None:
        names = [f"secret/big-{number}" for number in range(5)]
        for name in names:
            secretive.keystore.put(name, b"x" * 16_000, kind="secret")
        [first, *others] = secretive.policy.identities
        wider = replace(secretive.policy, identities=(replace(first, receives=tuple(names)), *others))
        secretive.server.appraiser = replace(secretive.server.appraiser, policy=wider)
        assert len(secretive.provision(enclave, models=(), secrets=names[:2]).secrets) == 2
        with pytest.raises(UnreachableError) as caught:
            secretive.provision(enclave, models=(), secrets=names)
        assert caught.value.check == "provisioning.answer"

    @pytest.mark.parametrize(
        "secrets",
        [
            ("licence",),
            ("secret/",),
            ("secret/Licence",),
            ("secret/a/b",),
            ("model/digits/1",),
            ("ca/root",),
            ("secret/a\n",),
            ("secret/a", "secret/a"),
            tuple(f"secret/{number}" for number in range(65)),
            tuple(f"secret/{number}" for number in range(64)),  # and the model
        ],
    )
    def test_what_is_no_secrets_name_is_an_input_error(self, owner: Any, enclave: Any, secrets: Any) -> None:
        with pytest.raises(InputError):
            owner.provision(enclave, secrets=secrets)


@dataclasses.dataclass(frozen=True)
class EitherKind:
    """Collateral straight from the vendor, for enclaves and for trust domains."""

    vendor: SimulatedVendor
    now: Callable[[], int]

    def get_for(self, quote: bytes) -> Collateral:
        tee: Any = "tdx" if int.from_bytes(quote[:2], "little") > 3 else "sgx"
        return self.vendor.collateral(self.now(), CollateralRecipe().of_tee(tee))

    def doubt(self, quote: bytes) -> None:
        pass


@pytest.fixture
def guest(vendor: SimulatedVendor) -> TdReport:
    return replace(
        TdReport.from_bytes(bytes(584)),
        tee_tcb_svn=bytes(vendor.TEE_TCB_SVN),
        td_attributes=(1 << 28).to_bytes(8, "little"),
        mr_td=b"\x11" * 48,
        rtmr2=b"\x22" * 48,
    )


@pytest.fixture
def host_of_guests(owners: Callable[..., Any], policy: Any, vendor: SimulatedVendor) -> Any:
    identity = Identity(
        name="guest", tdx=TrustDomain(mr_td=b"\x11" * 48, rtmr2=b"\x22" * 48), receives=("model/digits",)
    )
    mixed = replace(policy, identities=(*policy.identities, identity))
    start = owners()
    source = EitherKind(vendor, start.server.appraiser.now)
    return owners(appraiser=Appraiser(mixed, source, start.server.appraiser.now))


class TestTrustDomains:
    def test_one_that_the_policy_names_is_given_its_keys(
        self, host_of_guests: Any, enclave: Any, guest: TdReport
    ) -> None:
        trust_domain = replace(enclave, report=guest)
        assert host_of_guests.provision(trust_domain).secrets == {"model/digits/1": b"first wrap key 1"}
        [(event, fields)] = host_of_guests.log()
        assert (event, fields["identity"], fields["mr_td"]) == ("key.released", "guest", "11" * 48)
        assert fields["rtmr2"] == "22" * 48
        assert "mr_enclave" not in fields

    def test_another_kernel_is_another_guest(self, host_of_guests: Any, enclave: Any, guest: TdReport) -> None:
        with pytest.raises(RefusedError) as caught:
            host_of_guests.provision(replace(enclave, report=replace(guest, rtmr2=b"\x33" * 48)))
        assert caught.value.check == "policy.rtmr2"

    @pytest.mark.parametrize("field", ["rtmr0", "rtmr1", "rtmr3", "xfam"])
    def test_two_quotes_of_two_guests_are_refused(
        self, host_of_guests: Any, enclave: Any, guest: TdReport, field: str
    ) -> None:
        # What the policy does not compare, for either quote by itself.
        other = replace(guest, **{field: b"\x44" * 48 if field != "xfam" else (0xE7).to_bytes(8, "little")})
        reports = iter([guest, other])
        with pytest.raises((EvidenceError, RefusedError)) as caught:
            host_of_guests.provision(enclave, quote=lambda data: replace(enclave, report=next(reports)).quote(data))
        assert caught.value.check in ("provisioning.same_enclave", "policy.xfam")

    def test_an_enclave_and_a_guest_are_not_one(
        self, host_of_guests: Any, enclave: Any, guest: TdReport, sound_report: Callable[..., SgxReport]
    ) -> None:
        reports: Any = iter([guest, enclave.report])
        with pytest.raises(EvidenceError) as caught:
            host_of_guests.provision(enclave, quote=lambda data: replace(enclave, report=next(reports)).quote(data))
        assert caught.value.check == "provisioning.same_enclave"
