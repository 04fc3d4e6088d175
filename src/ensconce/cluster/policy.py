"""The owner's policy: written, signed, put into force, and what her servers take up of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from ensconce.appraisal.policy import Identity, Policy
from ensconce.appraisal.policy_authority import AdmittedPolicy, Authority
from ensconce.appraisal.policy_owners import key_name
from ensconce.appraisal.policy_signing import MAX_SIGNATURES_FILE, SignedPolicy
from ensconce.appraisal.policy_store import PolicyStore, Record
from ensconce.appraisal.policy_text import dump_policy
from ensconce.appraisal.strict_yaml import MAX_BYTES
from ensconce.appraisal.verdict import TcbStatus
from ensconce.audit.entry import Entry
from ensconce.audit.reader import LogReader
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.state import open_state
from ensconce.cluster.tensorflow_serving import wire_v1_of
from ensconce.enclave.build import EnclaveIdentity
from ensconce.errors import InputError, RefusedError
from ensconce.files import read_bounded, write_aside
from ensconce.keys import get_private_key
from ensconce.servables import receivable

__all__ = ["apply_policy", "load_signing_key", "policy_store", "read_signed", "sign_policy", "write_policy"]

_APPLIED = "policy.applied"
_MAX_PEM = 1 << 16


def policy_store(owner: OwnerFolder) -> PolicyStore:
    """Where the owner's policy in force is kept, and the log that decides which one it is.

    Raises:
        InputError: the deployment file is wrong; ``state.*``.
        IntegrityError: ``owner.pub``.
        UnreachableError: ``state.unreachable``.
    """
    state, key = open_state(owner), owner.public_key()

    log = LogReader(state.log, key, lambda entry: entry.event == _APPLIED)

    def records() -> list[Record]:
        return [_record(entry) for entry in log.entries()]

    authority = Authority(key_name(key), owner.deployment().service.domain)
    return PolicyStore(state.store, authority, records)


def read_signed(path: Path) -> SignedPolicy:
    """A policy file with the signatures beside it, in ``<name>.signatures``, if there are any.

    Raises:
        InputError: a file cannot be read, is wrong, or the signatures are about another policy.
    """
    beside = signatures_file(path)
    signatures = read_bounded(beside, MAX_SIGNATURES_FILE) if beside.exists() else None
    return SignedPolicy.parse(read_bounded(path, MAX_BYTES), str(path), signatures)


def signatures_file(path: Path) -> Path:
    """Where the signatures of a policy file are."""
    return path.with_name(f"{path.name}.signatures")


def load_signing_key(path: Path, ask: Callable[[], str]) -> Ed25519PrivateKey:
    """An owner's key from a PEM file, as ``openssl genpkey -algorithm ed25519`` writes it.

    Args:
        path: the file.
        ask: asks for the passphrase, if the key has one.

    Raises:
        InputError: ``policy.key``: it is no such key, or the passphrase is wrong.
    """
    pem = read_bounded(path, _MAX_PEM)
    try:
        key = _load_key(pem, ask)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(
            "policy.key",
            f"{path} is no Ed25519 private key" if key else f"{path} is no private key, or the passphrase is wrong",
            rule="an Ed25519 private key, PEM",
            remedy="make one with `openssl genpkey -algorithm ed25519 -out key.pem`",
        )
    return key


def _load_key(pem: bytes, ask: Callable[[], str]) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(pem, None)
    except TypeError:  # it has a passphrase
        return serialization.load_pem_private_key(pem, ask().encode())


def sign_policy(path: Path, key: Ed25519PrivateKey) -> SignedPolicy:
    """Add a signature to those beside a policy file; those of an earlier version of the file are dropped.

    Raises:
        InputError: the policy is wrong, or a file cannot be read or written.
    """
    try:
        signed = read_signed(path)
    except InputError as error:
        if error.check != "policy.signatures_file":
            raise
        signed = SignedPolicy.parse(read_bounded(path, MAX_BYTES), str(path))
    signed = signed.signed_with(key)
    write_aside(signatures_file(path), signed.signatures_file())
    return signed


def apply_policy(owner: OwnerFolder, signed: SignedPolicy) -> AdmittedPolicy:
    """Put a policy into force: checked, recorded as ``policy.applied``, and then there for every server to take.

    Raises:
        RefusedError: ``policy.serial``, ``policy.service``, ``policy.signatures``.
        IntegrityError: the log was changed, or what is in force is not in the store.
        UnreachableError: ``state.unreachable``.
    """
    log = owner.audit_log(owner.keystore())

    def record(admitted: AdmittedPolicy, replaces: str) -> None:
        serial, sha256 = admitted.policy.serial, admitted.policy.sha256
        log.append(_APPLIED, serial=serial, sha256=sha256, replaces=replaces, signers=list(admitted.signers))

    return policy_store(owner).apply(signed, record)


def write_policy(owner: OwnerFolder, identity: EnclaveIdentity, root: str, replace: bool = False) -> AdmittedPolicy:
    """Write ``policy.yaml``: this deployment's models for exactly this enclave, on platforms under ``root``; sign it
    with the owner's key, and put it into force.

    Where the policy in force names owners, so does the new one. If more of them must sign, it is written and not put
    into force.

    Raises:
        InputError: there is a policy file already and ``replace`` is false.
        RefusedError: ``policy.signatures``: the file is written, and more owners must sign it.
        EnsconceError: as :func:`apply_policy`.
    """
    if owner.policy_file.exists() and not replace:
        raise InputError(
            "policy.exists",
            f"{owner.policy_file} exists",
            remedy="edit it, or replace it with `ensconce policy write --replace`",
        )
    keystore = owner.keystore()
    owner.audit_log(keystore)  # what cannot be recorded does not happen
    in_force = policy_store(owner).follow(None, None)
    deployment = owner.deployment()
    policy = Policy(
        serial=1 if in_force is None else in_force.policy.serial + 1,
        service=deployment.service.domain,
        owners=None if in_force is None else in_force.policy.owners,
        roots=(root,),
        tcb_statuses=(TcbStatus.UP_TO_DATE,),
        identities=(
            Identity(
                name=f"{deployment.service.domain} replica",
                mr_enclave=identity.mr_enclave,
                receives=tuple(receivable(model.name) for model in deployment.models),
                wire_v1=wire_v1_of(deployment),
            ),
        ),
    )
    signed = SignedPolicy(dump_policy(policy), policy).signed_with(
        get_private_key(keystore, "signing/owner", "ed25519")
    )
    try:
        admitted = apply_policy(owner, signed)
    except RefusedError as error:
        if error.check == "policy.signatures":
            _write(owner, signed)
        raise
    _write(owner, signed)
    return admitted


def _write(owner: OwnerFolder, signed: SignedPolicy) -> None:
    # The signatures last: a file without them is unsigned, and signatures of another file are an error.
    signatures_file(owner.policy_file).unlink(missing_ok=True)
    write_aside(owner.policy_file, signed.text.encode())
    write_aside(signatures_file(owner.policy_file), signed.signatures_file())


def _record(entry: Entry) -> Record:
    serial, sha256, replaces = entry.fields["serial"], entry.fields["sha256"], entry.fields.get("replaces")
    assert isinstance(serial, int)
    assert isinstance(sha256, str)  # the owner's key signed the entry, and only apply_policy writes such
    assert isinstance(replaces, str | None)
    return Record(serial, sha256, replaces)
