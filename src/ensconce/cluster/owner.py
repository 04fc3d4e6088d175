"""The owner's folder: her authority, her keystore, her policy, her log, and the bundle that the host receives."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ensconce.audit.entry import Entry
from ensconce.audit.head import Head
from ensconce.audit.log import AuditLog
from ensconce.audit.storage import LOG
from ensconce.audit.verify import verify_log
from ensconce.cluster.deployment import Deployment, FolderState
from ensconce.cluster.keystore_entry import FileEntry, unlock_of
from ensconce.cluster.recorded import RecordedKeystore
from ensconce.cluster.state import new_state, open_state
from ensconce.cluster.unlocking import ask_at_terminal, entry_of, new_text, open_keystore
from ensconce.enclave.config import ListenConfig, ModelConfig, ServingConfig
from ensconce.enclave.sign import new_signing_key
from ensconce.errors import InputError, IntegrityError
from ensconce.files import read_bounded, sync_folder, write_aside
from ensconce.keys import FolderPlace, SealedKeystore, StorePlace, get_private_key, new_key_file, put_private_key
from ensconce.models.description import ModelDescription
from ensconce.ratls.authority import CertificateAuthority
from ensconce.servables import key_id
from ensconce.state.store import Store
from ensconce.times import unix_now

# What seals and what builds is loaded by the commands that seal and build: it takes as long as all the rest.
if TYPE_CHECKING:
    from ensconce.enclave.build import EnclaveIdentity, EnclaveSpec

__all__ = ["OwnerFolder"]

_MAX_PEM = 1 << 16


@dataclass(frozen=True)
class OwnerFolder:
    """The folder that ``ensconce init`` makes; everything but ``bundle/`` stays on the owner's machine.

    ``ensconce.yaml`` the deployment · ``ca.pem`` what clients and replicas trust · ``owner.pub`` verifies
    descriptions and the log's head · ``unlock.key`` opens ``keystore/`` · ``policy.yaml`` who may receive keys ·
    ``audit/`` the log · ``bundle/`` what the host receives, all of it public.

    Attributes:
        path: the folder.
        ask: gives a passphrase, when one opens the keystore; is told what to say.
    """

    path: Path
    ask: Callable[[str], str] = field(default=ask_at_terminal, repr=False, compare=False)

    @classmethod
    def create(cls, path: Path, deployment: Deployment) -> OwnerFolder:
        """Make the folder with a fresh authority, keystore, signing keys and log; whole or not at all.

        Raises:
            InputError: the folder exists and is not empty, or cannot be written.
        """
        try:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise InputError("owner.exists", f"{path} exists and is not empty", remedy="name a new folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            try:
                cls(staging)._fill(deployment)
                # Takes the place of an empty folder, and of nothing else (rename(2)).
                staging.rename(path)
                sync_folder(path.parent)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
        except OSError as error:
            raise InputError(
                "owner.create",
                f"cannot make {path}: {error.strerror}",
                remedy="name a new folder, in one that can be written",
            ) from error
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> OwnerFolder:
        """The folder at ``path``.

        Raises:
            InputError: it is not an owner's folder.
            IntegrityError: a part of it is missing; what is missing is never begun anew, least of all the log.
        """
        folder = cls(path)
        if not folder.deployment_file.is_file():
            raise InputError(
                "owner.folder",
                f"{path} is not an owner's folder: {folder.deployment_file.name} is missing",
                remedy="make one with `ensconce init DIR`, or name it with --owner",
            )
        parts = [folder.ca_file, folder.public_key_file]
        if isinstance(folder.deployment().state, FolderState):
            parts.append(folder.audit_folder / LOG)
        for part in parts:
            if not part.exists():
                raise IntegrityError("owner.folder", f"{part} is missing", remedy="restore it from a backup")
        return folder

    @property
    def deployment_file(self) -> Path:
        """The deployment, ``ensconce.yaml``."""
        return self.path / "ensconce.yaml"

    @property
    def unlock_file(self) -> Path:
        """The key that opens the keystore, unless the deployment names something else."""
        return self.path / "unlock.key"

    @property
    def policy_file(self) -> Path:
        """Who may receive keys, as the owner last wrote it; what is in force is in the state."""
        return self.path / "policy.yaml"

    @property
    def ca_file(self) -> Path:
        """The authority's certificate, PEM."""
        return self.path / "ca.pem"

    @property
    def public_key_file(self) -> Path:
        """The key that verifies descriptions and the log's head, PEM."""
        return self.path / "owner.pub"

    @property
    def audit_folder(self) -> Path:
        """The log, unless the deployment keeps it in a database."""
        return self.path / "audit"

    @property
    def bundle(self) -> Path:
        """What the host receives."""
        return self.path / "bundle"

    def deployment(self) -> Deployment:
        """The deployment file, read and checked."""
        return Deployment.load(self.deployment_file)

    def keystore(self) -> SealedKeystore:
        """The keystore, opened by what the deployment names. Raises as :func:`open_keystore`."""
        return open_keystore(self)

    def audit_log(self, keystore: SealedKeystore) -> AuditLog:
        """The log, ready to be written; one that is missing is not begun anew."""
        return AuditLog.open(open_state(self).log, self._owner_key(keystore), unix_now, begin=False)

    def verified_log(self) -> tuple[Head, list[Entry]]:
        """The log's signed head and its entries, after every one of them was checked.

        Raises:
            IntegrityError: the log was changed; names the entry.
        """
        entries = list[Entry]()
        head = verify_log(open_state(self).log, self.public_key(), entries.append)
        return head, entries

    def public_key(self) -> Ed25519PublicKey:
        """The key that verifies descriptions and the log's head.

        Raises:
            IntegrityError: ``owner.pub``: the file is no such key.
        """
        try:
            key = serialization.load_pem_public_key(read_bounded(self.public_key_file, _MAX_PEM))
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise IntegrityError(
                "owner.pub", f"{self.public_key_file} is no Ed25519 key", remedy="restore it from a backup"
            )
        return key

    def authority(self, keystore: SealedKeystore) -> CertificateAuthority:
        """The certificate authority with its key."""
        key = get_private_key(keystore, "ca/root", "ec")
        return CertificateAuthority.load(key, read_bounded(self.ca_file, _MAX_PEM))

    def seal_model(
        self,
        source: Path,
        name: str,
        version: int,
        progress: Callable[[int], None] | None = None,
    ) -> ModelDescription:
        """Seal one version of a model of the deployment into the bundle, under a fresh key.

        Raises:
            InputError: the deployment knows no such model, the version exists, or the source is not a model.
        """
        from ensconce.models.seal import seal

        models = {model.name: model for model in self.deployment().models}
        if name not in models:
            raise InputError(
                "model.name",
                f"{self.deployment_file} lists no such model",
                found=name,
                rule=f"one of {', '.join(models)}",
                remedy="list it under models:, or choose one of these",
            )
        keystore = self.keystore()
        log = self.audit_log(keystore)
        description = seal(
            source,
            self.bundle / "models",
            name=name,
            version=version,
            engine=models[name].form,
            keystore=RecordedKeystore(keystore, log),
            signing_key=self._owner_key(keystore),
            now=unix_now,
            progress=progress,
        )
        log.append("model.sealed", model=name, version=version, key_id=description.key_id)
        return description

    def retire_model(self, name: str, version: int) -> None:
        """Destroy the key of one version: its ciphertext opens nothing from now on, wherever it lies.

        Raises:
            InputError: there is no such key.
        """
        keystore = self.keystore()
        RecordedKeystore(keystore, self.audit_log(keystore)).retire(key_id(name, version))

    def build_enclave(self, progress: Callable[[str], None] | None = None) -> EnclaveIdentity:
        """Stage, measure and sign the enclave for this deployment into the bundle.

        Raises:
            InputError: lint found what breaks an invariant, or the deployment file is wrong; ``deployment.keystore``:
                the host's copy of it would say more, or something else.
        """
        from ensconce.cluster import tensorflow_serving
        from ensconce.enclave.build import build_enclave

        deployment = self.deployment()
        # What opens the keystore is nothing that the host needs to know.
        text = new_text(self, FileEntry())
        keystore = self.keystore()
        log = self.audit_log(keystore)
        if deployment.is_tensorflow_serving:
            identity = tensorflow_serving.build(deployment, self.bundle, keystore, self.authority(keystore), progress)
        else:
            identity = build_enclave(
                self.bundle,
                self._spec(deployment, keystore),
                get_private_key(keystore, "signing/enclave", "rsa"),
                now=unix_now,
                progress=progress,
            )
        write_aside(self.bundle / "ensconce.yaml", text.encode())
        # By which the host knows what it fetches for the owner's; nothing that is released depends on it.
        write_aside(self.bundle / "owner.pub", read_bounded(self.public_key_file, _MAX_PEM))
        log.append("enclave.built", mr_enclave=identity.mr_enclave.hex(), mr_signer=identity.mr_signer.hex())
        return identity

    def _spec(self, deployment: Deployment, keystore: SealedKeystore) -> EnclaveSpec:
        from ensconce.enclave.build import EnclaveSpec

        return EnclaveSpec(
            domain=deployment.service.domain,
            models=tuple(ModelConfig(**model.model_dump(exclude={"engine"})) for model in deployment.models),
            serving=deployment.serving or ServingConfig(),
            provisioning_servers=tuple(deployment.provisioning.servers),
            provisioning_server_name=deployment.provisioning.server_name,
            ca_pem=self.authority(keystore).certificate_pem.decode(),
            listen=deployment.enclave.listen or ListenConfig(),
            isv_prod_id=deployment.enclave.isv_prod_id,
            isv_svn=deployment.enclave.isv_svn,
            engine_threads=deployment.enclave.threads,
            platform=deployment.platform.kind,
            hosts=deployment.enclave.hosts or {},
            nameservers=tuple(deployment.enclave.nameservers or ()),
            enclave_size=deployment.enclave.size,
        )

    def enclave_identity(self) -> EnclaveIdentity:
        """The identity of the enclave in the bundle, read from its SIGSTRUCT.

        Raises:
            InputError: no enclave has been built.
        """
        from ensconce.enclave.build import read_identity

        return read_identity(self.bundle)

    def _owner_key(self, keystore: SealedKeystore) -> Ed25519PrivateKey:
        return get_private_key(keystore, "signing/owner", "ed25519")

    def _fill(self, deployment: Deployment) -> None:
        self.path.chmod(0o700)
        write_aside(self.deployment_file, deployment.dump().encode())
        owner_key = Ed25519PrivateKey.generate()
        with new_state(self.path, deployment) as state:
            keystore = self._new_keystore(deployment, state.store)
            self._put_keys(keystore, deployment, owner_key)
            (self.bundle / "models").mkdir(parents=True)
            AuditLog.open(state.log, owner_key, unix_now).append("owner.created", domain=deployment.service.domain)

    def _new_keystore(self, deployment: Deployment, store: Store) -> SealedKeystore:
        entry = entry_of(deployment)
        if isinstance(entry, FileEntry):
            new_key_file(self.unlock_file)
        in_folder = isinstance(deployment.state, FolderState)
        place = FolderPlace(self.path / "keystore") if in_folder else StorePlace(store)
        unlock = unlock_of(entry, self.path, self.ask)
        return SealedKeystore.create(place, unlock, deployment=deployment.service.domain, now=unix_now)

    def _put_keys(self, keystore: SealedKeystore, deployment: Deployment, owner_key: Ed25519PrivateKey) -> None:
        put_private_key(keystore, "signing/owner", owner_key)
        put_private_key(keystore, "signing/enclave", new_signing_key())
        authority = CertificateAuthority.create(f"Ensconce owner of {deployment.service.domain}", unix_now())
        put_private_key(keystore, "ca/root", authority.key)
        write_aside(self.ca_file, authority.certificate_pem)
        public = owner_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        write_aside(self.public_key_file, public)
