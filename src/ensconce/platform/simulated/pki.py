"""The vendor of the simulated CPU and the machine's provisioning: everything that Intel's key ceremony gives a CPU.

All keys come from one 32-byte seed, so the vendor's folder holds one secret, written in one step: `vendor.json`.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ensconce.errors import InputError, IntegrityError
from ensconce.files import read_bounded, write_aside
from ensconce.platform.simulated.certificates import Party, Validity, certify, derive_key, issue, label_bytes
from ensconce.platform.simulated.pck_extension import PckIdentity

if TYPE_CHECKING:
    from ensconce.appraisal.collateral import Collateral
    from ensconce.platform.simulated.collateral import CollateralRecipe

__all__ = ["CA", "SimulatedVendor", "default_home"]

CA = Literal["processor", "platform"]

_FILE = "vendor.json"
_DAY = 86_400
_YEAR = 365 * _DAY
_ROOT_CRL_URL = "https://simulated.invalid/IntelSGXRootCA.der"
_PCK_CRL_URL = "https://simulated.invalid/sgx/certification/v4/pckcrl?ca={ca}&encoding=der"


def default_home() -> Path:
    """The folder of this machine's simulated CPU vendor, unless a caller names another.

    `ENSCONCE_SIMULATED_HOME`, else `$XDG_DATA_HOME/ensconce/simulated`, else `~/.local/share/ensconce/simulated`.
    """
    if chosen := os.environ.get("ENSCONCE_SIMULATED_HOME"):
        return Path(chosen)
    # The XDG Base Directory Specification has relative values ignored: another folder in each working directory.
    data_home = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (data_home if data_home.is_absolute() else Path.home() / ".local" / "share") / "ensconce" / "simulated"


@dataclass(frozen=True)
class SimulatedVendor:
    """A root, the CAs and signers below it, and one machine with its PCK and attestation keys.

    Attributes:
        seed: 32 bytes that every key derives from; the one secret.
        created: Unix seconds; every certificate is valid from one day before.
    """

    seed: bytes
    created: int

    COMPONENTS = (7, 9, 3, 3, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    """The machine's SGX TCB component SVNs."""
    TEE_TCB_SVN = (5, 1, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    """Of the machine's TDX module: its own security version, its major version, that of late microcode."""
    PCE_SVN = 13
    """The machine's PCE SVN."""
    FMSPC = b"SIM\x00\x00\x01"
    """No FMSPC of Intel's spells `SIM`."""
    PCE_ID = b"\x00\x00"
    """Like every PCE of Intel's so far."""

    def __repr__(self) -> str:
        return f"SimulatedVendor({self.root_name})"

    @classmethod
    def create(cls, folder: Path, now: int, seed: bytes | None = None) -> SimulatedVendor:
        """Make a new vendor in ``folder`` (made with mode 0700 if missing).

        Args:
            folder: where the vendor lives.
            now: Unix seconds.
            seed: 32 bytes for reproducible fixtures; random when absent.

        Raises:
            InputError: there is one already, or the folder cannot be written.
        """
        vendor = cls(secrets.token_bytes(32) if seed is None else seed, now)
        with _locked(folder):
            if (folder / _FILE).exists():
                raise InputError(
                    "vendor.exists",
                    f"there is a simulated platform in {folder} already",
                    remedy="load it, or choose another folder; removing it makes all evidence of its root worthless",
                )
            vendor._write(folder)
        return vendor

    @classmethod
    def load(cls, folder: Path) -> SimulatedVendor:
        """The vendor that lives in ``folder``.

        Raises:
            InputError: there is none.
            IntegrityError: its file is damaged, or readable by others.
        """
        path = folder / _FILE
        data = read_bounded(path, 4096)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise IntegrityError(
                "vendor.permissions",
                f"others can read the simulated vendor's secret in {path}",
                found=oct(stat.S_IMODE(path.stat().st_mode)),
                rule="mode 0600",
                remedy="if nobody read it, chmod 600; otherwise remove the folder and start anew",
            )
        try:
            fields = json.loads(data)
            if set(fields) != {"format", "seed", "created"} or fields["format"] != 1:
                raise ValueError("unknown fields or format")
            seed, created = bytes.fromhex(fields["seed"]), fields["created"]
            if len(seed) != 32 or type(created) is not int:
                raise ValueError("a field has the wrong size or type")
        except (ValueError, TypeError, KeyError) as error:
            raise IntegrityError(
                "vendor.file",
                f"{path} is damaged",
                rule="an object of format 1 with seed and created",
                remedy="remove the folder; a new simulated platform, with a new root, is made on the next start",
            ) from error
        return cls(seed, created)

    @classmethod
    def open(cls, folder: Path, now: int) -> SimulatedVendor:
        """Load the vendor in ``folder``, or create it when there is none; two processes get the same one.

        Raises:
            InputError: the folder cannot be written.
            IntegrityError: as :meth:`load`.
        """
        with _locked(folder):
            if not (folder / _FILE).exists():
                cls(secrets.token_bytes(32), now)._write(folder)
        return cls.load(folder)

    def _write(self, folder: Path) -> None:
        fields = {"format": 1, "seed": self.seed.hex(), "created": self.created}
        write_aside(folder / "root.pem", self.root.pem.encode())
        write_aside(folder / _FILE, json.dumps(fields).encode(), mode=0o600)

    def validity(self, years: int) -> Validity:
        """From one day before the vendor was made, for so many years of 365 days."""
        return Validity(self.created - _DAY, self.created + years * _YEAR)

    def key(self, label: str) -> ec.EllipticCurvePrivateKey:
        """The vendor's key of that name; any name yields one."""
        return derive_key(self.seed, label)

    @functools.cached_property
    def root(self) -> Party:
        """Intel SGX Root CA."""
        return issue(
            "Intel SGX Root CA",
            self.key("root"),
            None,
            validity=self.validity(30),
            crl_url=_ROOT_CRL_URL,
            path_length=1,
        )

    @functools.cached_property
    def tcb_signer(self) -> Party:
        """Intel SGX TCB Signing: signs TCB info and QE identity."""
        return issue(
            "Intel SGX TCB Signing",
            self.key("tcb signing"),
            self.root,
            validity=self.validity(7),
            crl_url=_ROOT_CRL_URL,
            path_length=None,
        )

    def pck_ca(self, ca: CA = "platform") -> Party:
        """Intel SGX PCK Platform CA, or Intel SGX PCK Processor CA."""
        return self._pck_cas[ca]

    @functools.cached_property
    def _pck_cas(self) -> dict[CA, Party]:
        names: dict[CA, str] = {"platform": "Intel SGX PCK Platform CA", "processor": "Intel SGX PCK Processor CA"}
        return {
            ca: issue(
                name,
                self.key(f"pck {ca} ca"),
                self.root,
                validity=self.validity(15),
                crl_url=_ROOT_CRL_URL,
                path_length=0,
            )
            for ca, name in names.items()
        }

    def machine(self, ca: CA = "platform") -> PckIdentity:
        """What the PCK certificate says about this machine."""
        return PckIdentity(
            ppid=label_bytes("ppid " + hashlib.sha256(self.root_certificate_der).hexdigest(), 16),
            components=self.COMPONENTS,
            pce_svn=self.PCE_SVN,
            cpu_svn=self.cpu_svn,
            pce_id=self.PCE_ID,
            fmspc=self.FMSPC,
            platform=ca == "platform",
        )

    @property
    def cpu_svn(self) -> bytes:
        """The machine's CPUSVN, 16 bytes; opaque on real CPUs, the component SVNs here."""
        return bytes(self.COMPONENTS)

    def pck(self, ca: CA = "platform") -> Party:
        """Intel SGX PCK Certificate of this machine, under the given CA."""
        return self._pcks[ca]

    @functools.cached_property
    def _pcks(self) -> dict[CA, Party]:
        return {
            ca: self.issue_pck(self.machine(ca), issuer=issuer, key=self.key(f"pck {ca}"), ca=ca)
            for ca, issuer in self._pck_cas.items()
        }

    def issue_pck(
        self,
        machine: PckIdentity,
        *,
        issuer: Party,
        key: ec.EllipticCurvePrivateKey,
        ca: CA = "platform",
        common_name: str = "Intel SGX PCK Certificate",
        validity: Validity | None = None,
    ) -> Party:
        """A PCK certificate for any machine; the defaults are what a vendor means, the arguments what a test needs."""
        return issue(
            common_name,
            key,
            issuer,
            validity=validity or self.validity(7),
            crl_url=_PCK_CRL_URL.format(ca=ca),
            path_length=None,
            extension=machine.extension(),
        )

    def enrol(self, public: ec.EllipticCurvePublicKey) -> str:
        """Certify the PCK key of another machine, of the same model and TCB as the vendor's own.

        Returns:
            Its PCK certificate and those above, PEM one after the other.
        """
        spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        identity = replace(self.machine(), ppid=label_bytes("ppid " + hashlib.sha256(spki).hexdigest(), 16))
        authority = self.pck_ca()
        certificate = certify(
            "Intel SGX PCK Certificate",
            public,
            authority.certificate,
            authority.key,
            validity=self.validity(7),
            crl_url=_PCK_CRL_URL.format(ca="platform"),
            path_length=None,
            extension=identity.extension(),
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode() + authority.pem + self.root.pem

    @functools.cached_property
    def attestation_key(self) -> ec.EllipticCurvePrivateKey:
        """The quoting enclave's key."""
        return self.key("attestation")

    @functools.cached_property
    def root_certificate_der(self) -> bytes:
        """The root certificate in DER: what relying parties choose to accept."""
        return self.root.der

    @property
    def root_name(self) -> str:
        """The root as policies name it: `simulated:<sha256 of the DER>`."""
        return "simulated:" + hashlib.sha256(self.root_certificate_der).hexdigest()

    def collateral(self, now: int, recipe: CollateralRecipe | None = None) -> Collateral:
        """The collateral for this machine as of ``now``: everything in order, unless ``recipe`` says otherwise."""
        # Imported here because the recipe's module needs this one.
        from ensconce.platform.simulated.collateral import CollateralRecipe, prepare

        return prepare(self, now, recipe or CollateralRecipe())


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for one process at a time; makes it, for its owner alone."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InputError(
            "vendor.folder",
            f"cannot use {folder} for the simulated platform: {error.strerror}",
            remedy="set ENSCONCE_SIMULATED_HOME to a folder that can be written",
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
