"""Signing an enclave: the SIGSTRUCT by which an owner says "this measurement is mine".

Source: Intel SDM volume 3D, "Enclave Signature Structure (SIGSTRUCT)". The key is RSA-3072 with exponent 3; the
signature is PKCS #1 v1.5 with SHA-256 over bytes 0 to 127 and 900 to 1027; Q1 and Q2 are quotients that spare the CPU
the divisions when it checks the signature. The masks are Gramine's (``manifest-syntax``, "Optional CPU features"):
every flag is pinned, AVX-512, AMX and the like are left to the platform, MPX and PKRU are pinned off.

Who measures needs no key: Gramine's own tool measures and signs with a key that is thrown away, and the owner signs
the same measurement with hers, on her machine (:func:`sign_measured`).
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ensconce.errors import InputError
from ensconce.evidence.report import Attributes
from ensconce.evidence.sigstruct import Sigstruct, quotients
from ensconce.platform.manifest import Manifest

__all__ = [
    "check_attributes",
    "check_measured",
    "check_signing_key",
    "mr_signer",
    "new_signing_key",
    "sign_manifest",
    "sign_measured",
]

_KEY_BITS = 3072
_EXPONENT = 3
_FIELD = 384
_XFRM_LEGACY = 0x3
_FLAGS_MASK = 0xFFFF_FFFF_FFFF_FFFF
_XFRM_MASK = 0xFFFF_FFFF_FFF9_FF1B
_MISC_MASK = 0xFFFF_FFFF
_POWERS = Attributes.PROVISION_KEY | Attributes.EINITTOKEN_KEY


def new_signing_key() -> rsa.RSAPrivateKey:
    """A fresh key that SGX accepts: RSA-3072, exponent 3."""
    return rsa.generate_private_key(public_exponent=_EXPONENT, key_size=_KEY_BITS)


def mr_signer(key: rsa.RSAPublicKey) -> bytes:
    """MRSIGNER of enclaves signed by ``key``: SHA-256 of the modulus in little-endian order, 32 bytes."""
    return hashlib.sha256(key.public_numbers().n.to_bytes(_FIELD, "little")).digest()


def check_signing_key(key: rsa.RSAPrivateKey) -> None:
    """Refuse a key whose signatures SGX would not accept.

    Raises:
        InputError: it is not RSA-3072 with exponent 3.
    """
    exponent = key.public_key().public_numbers().e
    if key.key_size != _KEY_BITS or exponent != _EXPONENT:
        raise InputError(
            "sign.key",
            "SGX does not accept signatures of this key",
            found=f"RSA-{key.key_size}, exponent {exponent}",
            rule=f"RSA-{_KEY_BITS}, exponent {_EXPONENT}",
            remedy="make the key with `ensconce init`, or `openssl genrsa -3 3072`",
        )


def sign_manifest(manifest: Manifest, mr_enclave: bytes, key: rsa.RSAPrivateKey, *, date: datetime.date) -> bytes:
    """Sign an enclave: product id, security version and debug come from its manifest, so they cannot disagree.

    Args:
        manifest: the manifest that the measurement is of.
        mr_enclave: its measurement, 32 bytes.
        key: the owner's signing key.
        date: day of signing; SIGSTRUCT has no finer clock.

    Returns:
        The SIGSTRUCT, 1808 bytes, as in Gramine's ``.sig`` files.

    Raises:
        InputError: the key is not RSA-3072 with exponent 3, or the measurement is not 32 bytes.
    """
    if len(mr_enclave) != 32:
        raise InputError("sign.measurement", "a measurement is 32 bytes", found=f"{len(mr_enclave)} bytes")
    flags = Attributes.MODE64BIT | (Attributes.DEBUG if manifest.debug else 0)
    unsigned = Sigstruct(
        vendor=0,
        date=date,
        sw_defined=0,
        modulus=bytes(_FIELD),
        exponent=_EXPONENT,
        signature=bytes(_FIELD),
        misc_select=0,
        misc_mask=_MISC_MASK,
        cet_attributes=0,
        cet_attributes_mask=0,
        isv_family_id=bytes(16),
        attributes=Attributes(flags, _XFRM_LEGACY),
        attribute_mask=Attributes(_FLAGS_MASK, _XFRM_MASK),
        mr_enclave=mr_enclave,
        isv_ext_prod_id=bytes(16),
        isv_prod_id=manifest.isv_prod_id,
        isv_svn=manifest.isv_svn,
        q1=bytes(_FIELD),
        q2=bytes(_FIELD),
    )
    return sign_measured(unsigned, key, date=date)


def check_measured(measured: Sigstruct, manifest: Manifest) -> None:
    """Refuse a SIGSTRUCT that says something else than the manifest which it is said to be of.

    The measurement itself is not computed again here: who signs it trusts the machine that measured.

    Raises:
        InputError: ``sign.measured``: product id, version or debug are others.
    """
    for name, found, wanted in (
        ("isv_prod_id", measured.isv_prod_id, manifest.isv_prod_id),
        ("isv_svn", measured.isv_svn, manifest.isv_svn),
        ("debug", measured.debug, manifest.debug),
    ):
        if found != wanted:
            raise InputError(
                "sign.measured",
                "the SIGSTRUCT is not of this manifest",
                found=f"{name}: {found}",
                rule=f"{name}: {wanted}, as in the manifest",
                remedy="measure this very manifest again",
            )


def check_attributes(measured: Sigstruct) -> None:
    """Refuse attributes under which a host could start the enclave in another way than its manifest says.

    Where the mask leaves DEBUG out, the same signature starts a debug enclave, whose memory the host reads.

    Raises:
        InputError: ``sign.attributes``.
    """
    flags, mask = measured.attributes.flags, measured.attribute_mask.flags
    needed = Attributes.DEBUG | _POWERS
    if flags & _POWERS or mask & needed != needed:
        raise InputError(
            "sign.attributes",
            "the SIGSTRUCT would let the host start this enclave for debugging, or gives it keys of the platform's",
            found=f"flags 0x{flags:016x}, mask 0x{mask:016x}",
            rule=f"flags without 0x{_POWERS:x}, mask with 0x{needed:x}",
            remedy="measure with gramine-sgx-sign as it is",
        )


def sign_measured(measured: Sigstruct, key: rsa.RSAPrivateKey, *, date: datetime.date) -> bytes:
    """Sign what another key has signed, or none yet: same measurement and attributes, own signer and date.

    Args:
        measured: the SIGSTRUCT that whoever measured has made; its signature counts for nothing.
        key: the owner's signing key.
        date: day of signing.

    Returns:
        The SIGSTRUCT, 1808 bytes, as in Gramine's ``.sig`` files.

    Raises:
        InputError: ``sign.key``: the key is not RSA-3072 with exponent 3.
    """
    check_signing_key(key)
    numbers = key.public_key().public_numbers()
    unsigned = dataclasses.replace(measured, vendor=0, date=date, modulus=numbers.n.to_bytes(_FIELD, "little"))
    body = unsigned.to_bytes()
    signature = int.from_bytes(key.sign(unsigned.signed, padding.PKCS1v15(), hashes.SHA256()), "big")
    q1, q2 = quotients(signature, numbers.n)
    return b"".join(
        (
            body[:516],
            signature.to_bytes(_FIELD, "little"),
            body[900:1040],
            q1.to_bytes(_FIELD, "little"),
            q2.to_bytes(_FIELD, "little"),
        )
    )
