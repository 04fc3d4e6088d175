"""Signing an enclave that was built elsewhere, with the key that is in the owner's keystore and nowhere else."""

from __future__ import annotations

import datetime
from pathlib import Path

from ensconce.cluster.owner import OwnerFolder
from ensconce.enclave.lint import check_signable, lint
from ensconce.enclave.show import is_gramines, read_signature
from ensconce.enclave.sign import check_attributes, check_measured, sign_manifest, sign_measured
from ensconce.errors import InputError
from ensconce.evidence.sigstruct import Sigstruct, parse_sigstruct
from ensconce.files import read_bounded, write_aside
from ensconce.keys import get_private_key
from ensconce.platform.manifest import MAX_MANIFEST_SIZE, parse_manifest
from ensconce.platform.simulated.measurement import measure
from ensconce.times import unix_now

__all__ = ["sign_enclave"]


def sign_enclave(owner: OwnerFolder, manifest_file: Path, measured_file: Path | None, output: Path) -> Sigstruct:
    """Lint a signed form of a manifest, sign its measurement, and record that.

    Args:
        owner: whose keystore has the key; it is opened only when there is something to sign.
        manifest_file: a ``.manifest.sgx``.
        measured_file: the SIGSTRUCT of whoever measured it, signed with any key; None for the simulated platform,
            whose measurement is computed here.
        output: where the SIGSTRUCT goes.

    Returns:
        The SIGSTRUCT as written.

    Raises:
        RefusedError: ``lint.*``: the manifest must not be signed.
        InputError: ``manifest.*``, ``sign.*``, ``file.*``, ``keystore.*``: it cannot be read, signed or written.
        EvidenceError: ``sigstruct.*``: the measurer's SIGSTRUCT is damaged.
    """
    manifest = parse_manifest(read_bounded(manifest_file, MAX_MANIFEST_SIZE))
    check_signable(lint(manifest))
    measured = None if measured_file is None else read_signature(measured_file)
    if measured is not None:
        check_measured(measured, manifest)
        check_attributes(measured)
    elif is_gramines(manifest):
        raise InputError(
            "sign.unmeasured",
            "only Gramine's own tool knows the measurement of this manifest",
            remedy="let gramine-sgx-sign sign it with a key that you throw away, and name the .sig: --measured FILE",
        )
    keystore = owner.keystore()
    key = get_private_key(keystore, "signing/enclave", "rsa")
    date = datetime.datetime.fromtimestamp(unix_now(), datetime.UTC).date()
    if measured is None:
        data = sign_manifest(manifest, measure(manifest), key, date=date)
    else:
        data = sign_measured(measured, key, date=date)
    signed = parse_sigstruct(data)
    owner.audit_log(keystore).append(
        "enclave.signed", mr_enclave=signed.mr_enclave.hex(), mr_signer=signed.mr_signer.hex()
    )
    write_aside(output, data)
    return signed
