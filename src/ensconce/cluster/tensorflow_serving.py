"""A deployment whose engine is Google's own program: what its enclave is made of, and what its policy must give it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.protobuf import text_format

from ensconce.addresses import Address
from ensconce.appraisal.policy_identity import WireV1
from ensconce.cluster.deployment import Deployment
from ensconce.enclave.build import EnclaveIdentity
from ensconce.enclave.tensorflow_serving import TensorFlowServingSpec
from ensconce.enclave.tensorflow_serving_build import build_tensorflow_serving, find_program
from ensconce.errors import InputError
from ensconce.keys import Keystore, get_private_key
from ensconce.ratls.authority import CertificateAuthority
from ensconce.servables import key_id
from ensconce.tfserving.messages import SSLConfig
from ensconce.times import unix_now

__all__ = ["build", "spec_of", "wire_v1_of"]

_GRPC_PORT = 8500
_CERTIFICATE_S = 365 * 24 * 3600
"""Longest life of the TLS certificate; building again renews it, and changes no measurement."""


def wire_v1_of(deployment: Deployment) -> WireV1 | None:
    """The one key that the policy must give over Gramine's own protocol; None for our own server, which asks itself."""
    if not deployment.is_tensorflow_serving:
        return None
    model = deployment.models[0]
    return WireV1(secret=key_id(model.name, model.only_version), form="raw")


def spec_of(deployment: Deployment, ca_pem: str) -> TensorFlowServingSpec:
    """The enclave that the deployment file describes."""
    model, entry = deployment.models[0], deployment.enclave
    return TensorFlowServingSpec(
        domain=deployment.service.domain,
        model=model.name,
        version=model.only_version,
        labels=model.labels or {},
        provisioning_servers=tuple(deployment.provisioning.servers),
        provisioning_server_name=deployment.provisioning.server_name,
        ca_pem=ca_pem,
        port=_GRPC_PORT if entry.listen is None else Address.parse(entry.listen.grpc, lowest_port=0).port or _GRPC_PORT,
        hosts=entry.hosts or {},
        nameservers=tuple(entry.nameservers or ()),
        threads=entry.threads,
        batching=None if deployment.serving is None else deployment.serving.batching,
        isv_prod_id=entry.isv_prod_id,
        isv_svn=entry.isv_svn,
        enclave_size=entry.size,
    )


def build(
    deployment: Deployment,
    bundle: Path,
    keystore: Keystore,
    authority: CertificateAuthority,
    progress: Callable[[str], None] | None = None,
) -> EnclaveIdentity:
    """Build and sign the enclave into the bundle, with a fresh TLS key and certificate.

    The key is made on the owner's machine, because the program can make none: it is encrypted before it is written.

    Raises:
        InputError: ``tfserving.unsealed``: the version has no key yet; and as :func:`build_tensorflow_serving`.
        RefusedError: ``lint.*``.
    """
    spec = spec_of(deployment, authority.certificate_pem.decode())
    secret = key_id(spec.model, spec.version)
    folder = bundle / "models" / spec.model / str(spec.version)
    if not folder.is_dir():
        raise InputError(
            "tfserving.unsealed",
            f"version {spec.version} of {spec.model} is not sealed yet, and its key is the enclave's",
            rule=str(folder),
            remedy=f"run `ensconce model seal` or `ensconce model import` for version {spec.version} first",
        )
    program = find_program()
    return build_tensorflow_serving(
        bundle,
        spec,
        program,
        get_private_key(keystore, "signing/enclave", "rsa"),
        wrap_key=keystore.get(secret),
        ssl_config=_ssl_config(authority, spec.domain),
        now=unix_now,
        progress=progress,
    )


def _ssl_config(authority: CertificateAuthority, domain: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    chain = authority.issue_server(key.public_key(), domain, now=unix_now(), lifetime=_CERTIFICATE_S)
    config = SSLConfig(
        server_key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        server_cert=chain.decode(),
        client_verify=False,
    )
    return str(text_format.MessageToString(config)).encode()
