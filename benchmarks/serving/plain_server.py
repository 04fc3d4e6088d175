"""Our own server on plain model folders: ``plain_server.py GRPC_PORT REST_PORT NAME=FOLDER ...``.

``ensconce-model-server`` where this version has it; else the same serving classes, which then speak TLS.
"""

from __future__ import annotations

import asyncio
import datetime
import importlib.util
import os
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PROGRAM = "from ensconce.modelserver.program import main; main()"


def has_program() -> bool:
    """Whether ``ensconce-model-server`` is there."""
    return importlib.util.find_spec("ensconce.modelserver.program") is not None


def self_signed() -> tuple[bytes, bytes]:
    """A key and a certificate that nobody checks."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, certificate.public_bytes(pem)


async def serve(grpc: str, rest: str, models: dict[str, Path], certificate: Path) -> None:
    """The serving classes, until the process is ended."""
    from ensconce.serving.engines.folder import load_folder
    from ensconce.serving.manager import ModelManager
    from ensconce.serving.server import ModelServer

    manager = ModelManager()
    for name, folder in models.items():
        manager.add(name, 1, load_folder(folder))
    key, chain = self_signed()
    certificate.write_bytes(chain)
    server = ModelServer(
        manager,
        grpc_address=f"127.0.0.1:{grpc}",
        rest_address=f"127.0.0.1:{rest}",
        private_key_pem=key,
        certificate_chain_pem=chain,
    )
    await server.start()
    await asyncio.Event().wait()


def main() -> None:
    """Choose and run."""
    grpc, rest, base, *models = sys.argv[1:]
    folders = {name: Path(folder) for name, _, folder in (each.partition("=") for each in models)}
    work = Path(base)
    if not has_program():
        asyncio.run(serve(grpc, rest, folders, work / "certificate.pem"))
        return
    entries = []
    for name, folder in folders.items():
        (work / name).mkdir(parents=True, exist_ok=True)
        version = work / name / "1"
        version.unlink(missing_ok=True)
        version.symlink_to(folder)
        entries.append(f'config {{ name: "{name}" base_path: "{work / name}" model_platform: "tensorflow" }}')
    config = work / "models.config"
    config.write_text("model_config_list {\n" + "\n".join(entries) + "\n}\n")
    arguments = [f"--port={grpc}", f"--rest_api_port={rest}", f"--model_config_file={config}"]
    os.execv(sys.executable, [sys.executable, "-c", PROGRAM, *arguments])


if __name__ == "__main__":
    main()
