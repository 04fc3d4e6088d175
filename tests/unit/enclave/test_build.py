import dataclasses
import fcntl
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from ensconce.enclave.build import MANIFEST, SIGSTRUCT, build_enclave, read_identity
from ensconce.enclave.config import ReplicaConfig
from ensconce.enclave.manifest import EnclaveSpec
from ensconce.enclave.sign import mr_signer
from ensconce.errors import InputError, IntegrityError
from ensconce.platform.simulated.launcher import check

pytestmark = pytest.mark.usefixtures("xdg_cache")


def now() -> int:
    return 1_795_392_000  # 2026-11-23


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    return folder


def names(bundle: Path) -> set[str]:
    return {path.name for path in bundle.iterdir()}


def test_the_launcher_accepts_what_was_built_and_nothing_else(
    bundle: Path, tmp_path: Path, spec: EnclaveSpec, signing_key: rsa.RSAPrivateKey
) -> None:
    said: list[str] = []
    identity = build_enclave(bundle, spec, signing_key, now, said.append)
    assert names(bundle) == {"enclave"}
    assert names(bundle / "enclave") == {"image", "server.json", "server.manifest.sgx", "server.sig"}
    assert ReplicaConfig.load(bundle / "enclave" / "server.json") == spec.config()
    assert read_identity(bundle) == identity
    assert identity.mr_signer == mr_signer(signing_key.public_key())
    assert identity.to_json_object()["mr_enclave"] == identity.mr_enclave.hex()
    assert any(identity.mr_enclave.hex() in line for line in said)

    run = tmp_path / "run"
    run.mkdir()
    (run / "enclave").symlink_to(bundle / "enclave")
    launchable = check(bundle / MANIFEST, bundle / SIGSTRUCT, run)
    assert launchable.mr_enclave == identity.mr_enclave

    victim = bundle / "enclave" / "image" / "site" / "ensconce" / "errors.pyc"
    data = victim.read_bytes()
    victim.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(IntegrityError) as caught:
        check(bundle / MANIFEST, bundle / SIGSTRUCT, run)
    assert caught.value.check == "launcher.trusted_file"

    # Built over it for another service: whole, another measurement, nothing beside it.
    (bundle / ".enclave.killed").mkdir()
    other = build_enclave(bundle, dataclasses.replace(spec, domain="other.example.test"), signing_key, now)
    assert other.mr_enclave != identity.mr_enclave
    assert other.mr_signer == identity.mr_signer
    assert names(bundle) == {"enclave"}
    assert check(bundle / MANIFEST, bundle / SIGSTRUCT, run).mr_enclave == other.mr_enclave


@pytest.mark.parametrize(
    ("change", "check_name"),
    [({"debug": True}, "lint.debug.on"), ({"domain": "no domain"}, "enclave.spec"), ({"models": ()}, "enclave.spec")],
)
def test_what_must_not_be_signed_is_not_and_the_old_enclave_stays(
    bundle: Path, spec: EnclaveSpec, signing_key: rsa.RSAPrivateKey, change: dict[str, object], check_name: str
) -> None:
    (bundle / "enclave").mkdir()
    (bundle / "enclave" / "old").write_text("old")
    with pytest.raises(InputError) as caught:
        build_enclave(bundle, dataclasses.replace(spec, **change), signing_key, now)
    assert caught.value.check == check_name
    assert names(bundle) == {"enclave"}
    assert names(bundle / "enclave") == {"old"}


def test_a_wrong_key_leaves_nothing(bundle: Path, spec: EnclaveSpec) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    with pytest.raises(InputError) as caught:
        build_enclave(bundle, spec, key, now)
    assert caught.value.check == "sign.key"
    assert names(bundle) == set()


def test_one_build_at_a_time(bundle: Path, spec: EnclaveSpec, signing_key: rsa.RSAPrivateKey) -> None:
    other = os.open(bundle, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError) as caught:
            build_enclave(bundle, spec, signing_key, now)
        assert caught.value.check == "enclave.busy"
    finally:
        os.close(other)


def test_a_missing_bundle_is_an_error(tmp_path: Path, spec: EnclaveSpec, signing_key: rsa.RSAPrivateKey) -> None:
    with pytest.raises(InputError) as caught:
        build_enclave(tmp_path / "nowhere", spec, signing_key, now)
    assert caught.value.check == "enclave.bundle"
    with pytest.raises(InputError) as caught:
        read_identity(tmp_path)
    assert caught.value.check == "enclave.missing"
