"""What an enclave's signature says, and the policy stanza that accepts exactly this enclave."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ensconce.appraisal.policy_identity import Identity
from ensconce.appraisal.policy_mask import Mask
from ensconce.appraisal.policy_sgx import AttributeMasks
from ensconce.enclave.sign import check_measured
from ensconce.errors import EvidenceError, InputError, printable
from ensconce.evidence.report import Attributes
from ensconce.evidence.sigstruct import SIGSTRUCT_SIZE, Sigstruct, parse_sigstruct, quotients
from ensconce.files import read_bounded
from ensconce.platform.manifest import MAX_MANIFEST_SIZE, Manifest, parse_manifest
from ensconce.platform.simulated.measurement import measure

__all__ = ["Shown", "check_signature", "is_gramines", "read_signature", "show"]

_MANIFEST = ".manifest.sgx"


@dataclass(frozen=True)
class Shown:
    """An enclave, as its signature describes it.

    Attributes:
        signed: the SIGSTRUCT; its signature holds.
        name: of the file, without what says its form.
    """

    signed: Sigstruct
    name: str

    def identity(self) -> Identity:
        """The identity that fits this enclave alone: measurement, signer, version or later, attributes.

        It receives nothing yet, and not as a debug enclave: both are for the policy's owner to say.
        """
        return _identity(self.name, self.signed)

    def stanza(self) -> str:
        """The identity as YAML, to be put under ``identities:`` of a policy."""
        return yaml.safe_dump([self.identity().to_json_object()], sort_keys=False)

    def to_json_object(self) -> dict[str, Any]:
        """Everything that ``--json`` shows."""
        signed = self.signed
        return {
            "name": self.name,
            "mr_enclave": signed.mr_enclave.hex(),
            "mr_signer": signed.mr_signer.hex(),
            "isv_prod_id": signed.isv_prod_id,
            "isv_svn": signed.isv_svn,
            "debug": signed.debug,
            "date": signed.date.isoformat(),
            "attributes": _bits(signed.attributes),
            "attribute_mask": _bits(signed.attribute_mask),
            "misc_select": f"0x{signed.misc_select:08x}",
            "misc_mask": f"0x{signed.misc_mask:08x}",
            "vendor": f"0x{signed.vendor:x}",
            "isv_family_id": signed.isv_family_id.hex(),
            "isv_ext_prod_id": signed.isv_ext_prod_id.hex(),
            "identity": self.identity().to_json_object(),
        }


def show(path: Path) -> Shown:
    """Read a SIGSTRUCT, or the manifest that lies beside one: ``app.manifest.sgx`` beside ``app.sig``.

    Raises:
        InputError: ``file.*``: it cannot be read; ``enclave.unsigned``: there is no signature beside the manifest;
            ``manifest.*``; ``sign.measured``: signature and manifest are not of the same enclave.
        EvidenceError: ``sigstruct.*``: it is malformed, or its signature does not hold.
    """
    if not path.name.endswith(_MANIFEST):
        return Shown(read_signature(path), path.stem)
    manifest = parse_manifest(read_bounded(path, MAX_MANIFEST_SIZE))
    name = path.name.removesuffix(_MANIFEST)
    signature = path.with_name(f"{name}.sig")
    if not signature.is_file():
        raise InputError(
            "enclave.unsigned",
            f"there is no {signature.name} beside {path.name}",
            remedy="sign it: `ensconce enclave sign`",
        )
    signed = read_signature(signature)
    check_measured(signed, manifest)
    if not is_gramines(manifest) and measure(manifest) != signed.mr_enclave:
        raise InputError(
            "sign.measured",
            "the signature is of another manifest",
            found=signed.mr_enclave.hex(),
            rule=f"{measure(manifest).hex()}, as the simulated platform measures this one",
            remedy="name the manifest and the signature of one and the same build",
        )
    return Shown(signed, name)


def read_signature(path: Path) -> Sigstruct:
    """Read a SIGSTRUCT whose signature holds.

    Raises:
        InputError: it cannot be read.
        EvidenceError: ``sigstruct.*``.
    """
    signed = parse_sigstruct(read_bounded(path, SIGSTRUCT_SIZE))
    check_signature(signed)
    return signed


def check_signature(signed: Sigstruct) -> None:
    """Verify what the CPU will verify before it starts the enclave.

    Raises:
        EvidenceError: ``sigstruct.signature``.
    """
    modulus, number = int.from_bytes(signed.modulus, "little"), int.from_bytes(signed.signature, "little")
    try:
        key = rsa.RSAPublicNumbers(signed.exponent, modulus).public_key()
        key.verify(number.to_bytes(384, "big"), signed.signed, padding.PKCS1v15(), hashes.SHA256())
        given = tuple(int.from_bytes(each, "little") for each in (signed.q1, signed.q2))
        if given != quotients(number, modulus):
            raise InvalidSignature
    except (ValueError, InvalidSignature):
        raise EvidenceError(
            "sigstruct.signature",
            "the signature does not hold: something was changed after it was signed",
            rule="RSA-3072 PKCS #1 v1.5 with SHA-256 (Intel SDM volume 3D, SIGSTRUCT)",
            remedy="take the file that the owner made; no CPU starts this one",
        ) from None


def is_gramines(manifest: Manifest) -> bool:
    """It is for Gramine itself, which loads a library of its own first; the simulated platform has none."""
    loader = tomllib.loads(manifest.raw.decode()).get("loader", {})
    return not loader.keys().isdisjoint({"entrypoint", "preload"})


def _identity(name: str, signed: Sigstruct) -> Identity:
    # EINIT sets INIT after it has compared; DEBUG is the policy's word, and compared there.
    flags = (signed.attributes.flags | Attributes.INIT) & ~Attributes.DEBUG
    mask = (signed.attribute_mask.flags | Attributes.INIT) & ~Attributes.DEBUG
    masks = {
        "flags": _mask(mask, flags),
        "xfrm": _mask(signed.attribute_mask.xfrm, signed.attributes.xfrm),
        "misc_select": _mask(signed.misc_mask, signed.misc_select),
    }
    plain = printable(name).strip()[:100]
    identity = Identity(
        name=plain or "enclave",
        mr_enclave=signed.mr_enclave,
        mr_signer=signed.mr_signer,
        isv_prod_id=signed.isv_prod_id,
        min_isv_svn=signed.isv_svn,
    )
    given = {field: each for field, each in masks.items() if each is not None}
    return dataclasses.replace(identity, attributes=AttributeMasks(**given)) if given else identity


def _mask(mask: int, value: int) -> Mask | None:
    return Mask(mask, value & mask) if mask else None


def _bits(attributes: Attributes) -> dict[str, str]:
    return {"flags": f"0x{attributes.flags:016x}", "xfrm": f"0x{attributes.xfrm:016x}"}
