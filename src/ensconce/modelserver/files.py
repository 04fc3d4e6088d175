"""The configuration files that flags name, read. Bounded, and a mistake in any of them ends the program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto

from ensconce.errors import InputError
from ensconce.modelserver.options import Options
from ensconce.serving.batching.parameters import Parameters
from ensconce.serving.metrics import metrics_path
from ensconce.serving.tls import ServingCertificate, TlsContext
from ensconce.tfserving.messages import BatchingParameters, ModelServerConfig, MonitoringConfig, SSLConfig
from ensconce.tfserving.text import read_text_file

__all__ = ["batching_of", "metrics_path_of", "models_of", "tls_of"]


def models_of(options: Options) -> Any:
    """The ``ModelServerConfig`` to begin with: the file's, or the one model that the flags name.

    Raises:
        InputError: the file cannot be read, or is none.
    """
    if options.model_config_file is not None:
        return read_text_file(ModelServerConfig, options.model_config_file)
    config = ModelServerConfig()
    config.model_config_list.config.add(
        name=options.model_name, base_path=options.model_base_path, model_platform="tensorflow"
    )
    return config


def batching_of(options: Options) -> Parameters | None:
    """How requests are batched; None where that is not asked for.

    Raises:
        InputError: the file cannot be read, is none, or its numbers cannot be.
    """
    if not options.enable_batching:
        return None
    if options.batching_parameters_file is None:
        return Parameters()
    return Parameters.from_proto(read_text_file(BatchingParameters, options.batching_parameters_file))


def metrics_path_of(options: Options) -> str | None:
    """Where metrics are served; None: nowhere.

    Raises:
        InputError: the file cannot be read, or is none.
    """
    if options.monitoring_config_file is None:
        return None
    return metrics_path(read_text_file(MonitoringConfig, options.monitoring_config_file))


def tls_of(path: Path | None) -> TlsContext | None:
    """TLS of the gRPC API as an ``SSLConfig`` asks for it; None without a file.

    With ``client_verify`` a client must show a certificate of ``custom_ca``; without that, of an authority that this
    system trusts, as gRPC has it.

    Raises:
        InputError: the file cannot be read, is none, or its key and certificates cannot be used.
    """
    if path is None:
        return None
    config = read_text_file(SSLConfig, path)
    clients = _verifying(config.custom_ca, path) if config.client_verify else None
    return ServingCertificate(config.server_key.encode(), config.server_cert.encode(), clients=clients).http2_context


def _verifying(custom_ca: str, path: Path) -> Callable[[SSL.Context], None]:
    try:
        authorities = x509.load_pem_x509_certificates(custom_ca.encode()) if custom_ca else []
    except ValueError:
        raise InputError(
            "config.custom_ca", "custom_ca holds no certificate", found=str(path), rule="certificates in PEM"
        ) from None

    def clients(context: SSL.Context) -> None:
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
        if not authorities:
            context.set_default_verify_paths()
        store = context.get_cert_store()
        assert store is not None
        for authority in authorities:
            store.add_cert(crypto.X509.from_cryptography(authority))

    return clients
