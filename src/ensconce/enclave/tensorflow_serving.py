"""Gramine's manifest for Google's own ``tensorflow_model_server``, as it is, with a word on each choice.

Sources: Gramine 1.9, "Manifest syntax" and "Attestation and Secret Provisioning"; TensorFlow Serving 2.x,
``model_servers/main.cc``. The program knows nothing of enclaves: Gramine's preloaded library fetches one key over wire
v1 before the program starts, and with it Gramine opens the model's folder and ``ssl.cfg``. Nothing is allowed: the
list of files that the host may change is empty. REST is off, because TensorFlow Serving has no TLS there.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format

from ensconce.addresses import Address
from ensconce.enclave.closing import LIBOS, RUNTIME, SYSTEM
from ensconce.enclave.config import BatchingConfig
from ensconce.enclave.gramine_manifest import IMAGE
from ensconce.enclave.image import Image
from ensconce.enclave.manifest import FOLDER
from ensconce.enclave.manifest_text import Choice, lines, value
from ensconce.enclave.tensorflow_serving_sizes import HEAPS, ServingSizes
from ensconce.errors import InputError
from ensconce.platform.manifest import Manifest
from ensconce.tfserving.messages import BatchingParameters, ModelServerConfig

__all__ = [
    "AUTHORITY",
    "CONNECTION_AGE_S",
    "KEY_NAME",
    "LIBRARY",
    "SSL_CONFIG",
    "TensorFlowServingSpec",
    "port_in",
    "render_tensorflow_serving",
    "static_files",
]

KEY_NAME = "model"
"""Under which the library gives the key to Gramine, for the model and for ``ssl.cfg``: wire v1 has one key."""

LIBRARY = "libsecret_prov_attest.so"
"""Gramine's client of secret provisioning, which asks before the program starts, and ends it without an answer."""

SSL_CONFIG = f"{FOLDER}/ssl.cfg"
"""TLS key and certificate, encrypted, seen from a replica's working folder and from the bundle."""

AUTHORITY = f"{FOLDER}/ca.pem"
"""The owner's authority, measured: whom Gramine's library believes, and who has signed the TLS certificate."""

CONNECTION_AGE_S = 30
"""How old a connection grows, at most; requests that are under way on it end as they would."""

_NAME = "tensorflow_model_server"
_PORT = "--port="
# gRPC adds or takes a tenth at random, so that not all come back at once.
_CONNECTION_AGE_MS = CONNECTION_AGE_S * 1000 * 10 // 11


@dataclass(frozen=True, kw_only=True)
class TensorFlowServingSpec:
    """What distinguishes one enclave with TensorFlow Serving from another.

    Attributes:
        domain: the service's name, for which its TLS certificate is.
        model: the model that it serves.
        version: the one version: wire v1 gives one key, and a key belongs to one version.
        labels: names of versions, of which only this one can be served.
        provisioning_servers: ``HOST:PORT`` of the owner's provisioning server; the host is its name, or a number.
        provisioning_server_name: the name in its certificate, which Gramine's library compares.
        ca_pem: the owner's authority, PEM.
        port: of gRPC, on all addresses: the program knows no other way.
        hosts: addresses that names have inside, by name.
        nameservers: addresses of servers that are asked for other names.
        threads: of each of TensorFlow's pools; 0 for as many as there are cores.
        batching: how requests are merged; not at all when None.
        isv_prod_id: product id, 16 bits.
        isv_svn: security version, 16 bits.
        enclave_size: memory of the enclave, a power of two, as Gramine writes it; None derives it.
    """

    domain: str
    model: str
    version: int
    labels: Mapping[str, int] = field(default_factory=dict)
    provisioning_servers: tuple[str, ...]
    provisioning_server_name: str
    ca_pem: str
    port: int = 8500
    hosts: Mapping[str, str] = field(default_factory=dict)
    nameservers: tuple[str, ...] = ()
    threads: int = 0
    batching: BatchingConfig | None = None
    isv_prod_id: int = 1
    isv_svn: int = 1
    enclave_size: str | None = None

    def names(self) -> dict[str, tuple[str, ...]]:
        """Addresses that names have inside, the provisioning server's among them.

        Raises:
            InputError: ``enclave.provisioning``: a server is called by another name than its certificate has.
        """
        names: dict[str, tuple[str, ...]] = {
            "localhost": ("127.0.0.1",),
            **{name: (address,) for name, address in self.hosts.items()},
        }
        for server in self.provisioning_servers:
            host = Address.parse(server).host
            if host == self.provisioning_server_name:
                continue
            try:
                ipaddress.ip_address(host)
            except ValueError:
                raise InputError(
                    "enclave.provisioning",
                    "Gramine's library believes a provisioning server by the name that it is called by",
                    found=host,
                    rule=f"{self.provisioning_server_name}, or an address in numbers",
                    remedy="write provisioning.server_name as the host of each of provisioning.servers",
                ) from None
            known = names.get(self.provisioning_server_name, ())
            names[self.provisioning_server_name] = (*known, *({host} - set(known)))
        return names

    def servers(self) -> str:
        """``SECRET_PROVISION_SERVERS``: each port once, by the name in the certificate."""
        ports = dict.fromkeys(Address.parse(server).port for server in self.provisioning_servers)
        return ",".join(f"{self.provisioning_server_name}:{port}" for port in ports)


def static_files(spec: TensorFlowServingSpec) -> dict[str, bytes]:
    """The trusted files beside the image, by their names in ``enclave/``: configuration, authority, names.

    Raises:
        InputError: as :meth:`TensorFlowServingSpec.names`.
    """
    hosts = "".join(f"{address} {name}\n" for name, addresses in spec.names().items() for address in addresses)
    files = {
        Path(AUTHORITY).name: spec.ca_pem.encode(),
        "models.config": _models(spec).encode(),
        "hosts": hosts.encode(),
        "resolv.conf": "".join(f"nameserver {address}\n" for address in spec.nameservers).encode(),
        # What stands in these is looked at first, and several addresses of one name are all tried.
        "nsswitch.conf": b"hosts: files dns\n" if spec.nameservers else b"hosts: files\n",
        "host.conf": b"multi on\n",
    }
    if spec.batching is not None:
        files["batching.config"] = _batching(spec.batching).encode()
    return files


def render_tensorflow_serving(spec: TensorFlowServingSpec, image: Image, sizes: ServingSizes) -> str:
    """The text of ``server.manifest``: what ``gramine-sgx-sign`` takes, with the hash of every file that may be opened.

    Args:
        spec: the enclave.
        image: closed, with the program as its interpreter and the library among Gramine's own files.
        sizes: of the enclave.

    Raises:
        InputError: as :meth:`TensorFlowServingSpec.names`.
    """
    files = static_files(spec)
    hashes = {file.path: file.sha256 for file in image.files}
    trusted = {f"{FOLDER}/{name}": hashlib.sha256(data).hexdigest() for name, data in files.items()}
    trusted |= {f"{IMAGE}/{path}": digest for path, digest in hashes.items() if path != LIBOS}
    choices: tuple[Choice, ...] = (
        ("The library OS that was measured, not the one that the host has.", "loader.entrypoint", {
            "uri": f"file:{IMAGE}/{LIBOS}", "sha256": hashes[LIBOS]}),
        ("Google's program, and all of its command line: the host adds and drops nothing. There is no"
         " --rest_api_port,\nbecause TensorFlow Serving has no TLS on REST; and no profiler, which answers anybody.",
         "libos.entrypoint", f"/{IMAGE}/{image.interpreter}"),
        (None, "loader.argv", _argv(spec, sizes)),
        ("The whole environment; nothing is passed through. The library asks the owner's server for the key, believes"
         " nobody\nbut her authority, and ends the process when it gets none.", "loader.env", _environment(spec)),
        ("Other levels tell the host of system calls and their arguments.", "loader.log_level", "error"),
        ("The model's whole folder and the TLS key are ciphertext outside, under the owner's key for this one version."
         "\nNames are looked up here, and nowhere in the host's /etc. Temporary files stay inside.", "fs.mounts",
         _mounts(spec)),
        ("How the host asks for an end. It can end the enclave anyway.", "sys.enable_sigterm_injection", True),
        ("The server starts no process; each would be another enclave of this size.", "sys.disallow_subprocesses",
         True),
        ("As many connections as gRPC takes, and what it has open beside them.", "sys.fds.limit", 4096),
        ("What TensorFlow's threads need; Gramine's 256K are too few for them.", "sys.stack.size",
         f"{sizes.stack >> 20}M"),
        ("The host cannot look into a production enclave.", "sgx.debug", False),
        ("Quotes for the owner's provisioning server.", "sgx.remote_attestation", "dcap"),
        ("What a policy by MRSIGNER goes by.", "sgx.isvprodid", spec.isv_prod_id),
        (None, "sgx.isvsvn", spec.isv_svn),
        ("Memory is added before the start and not page by page at work, which costs an exit and a system call each"
         " time;\nthis works on every SGX machine. EDMM would start sooner where most of the size is never used.",
         "sgx.edmm_enable", False),
        ("Touching all of the heap first would delay readiness by the time that it takes to page it in.",
         "sgx.preheat_enclave", False),
        (f"Needed: {sizes.size_reason}.", "sgx.enclave_size", spec.enclave_size or sizes.size_text),
        (f"{sizes.threads_reason}.", "sgx.max_threads", sizes.threads),
        ("The host may change nothing.", "sgx.allowed_files", []),
    )  # fmt: skip
    return "".join(
        (
            "# Rendered by `ensconce enclave build`; the same deployment and program give the same bytes.\n",
            *lines(choices),
            "# What the program opens, and the bytes that it must find there.\nsgx.trusted_files = [\n",
            *(f'  {{ uri = {value(f"file:{path}")}, sha256 = "{digest}" }},\n' for path, digest in trusted.items()),
            "]\n",
        )
    )


def port_in(manifest: Manifest) -> int:
    """The port of gRPC in a manifest that was rendered here.

    Raises:
        InputError: ``enclave.engine``: it is not for TensorFlow Serving.
    """
    for word in manifest.argv:
        if word.startswith(_PORT) and word.removeprefix(_PORT).isdecimal():
            return int(word.removeprefix(_PORT))
    raise InputError(
        "enclave.engine",
        "this enclave does not run TensorFlow Serving",
        found=" ".join(manifest.argv[:1]),
        rule=_NAME,
        remedy="run `ensconce enclave build` for the deployment as it is now",
    )


def _argv(spec: TensorFlowServingSpec, sizes: ServingSizes) -> list[str]:
    argv = [
        _NAME,
        f"{_PORT}{spec.port}",
        f"--ssl_config_file=/{SSL_CONFIG}",
        f"--model_config_file=/{FOLDER}/models.config",
        "--enable_profiler=false",
        # The version is fixed: looking for others each second would be an exit of the enclave each time.
        "--file_system_poll_wait_seconds=0",
        f"--grpc_max_threads={sizes.grpc_threads}",
        # The program dies of SIGTERM where it stands. So clients are told to connect anew every now and then, gRPC's
        # GOAWAY, and whoever takes a replica out of service needs to wait no longer than that.
        f"--grpc_channel_arguments=grpc.max_connection_age_ms={_CONNECTION_AGE_MS}",
        f"--tensorflow_intra_op_parallelism={sizes.cores if spec.threads else 0}",
        f"--tensorflow_inter_op_parallelism={sizes.cores if spec.threads else 0}",
    ]
    if spec.labels:
        argv.append("--allow_version_labels_for_unavailable_models=true")
    if spec.batching is not None:
        argv += ["--enable_batching=true", f"--batching_parameters_file=/{FOLDER}/batching.config"]
    return argv


def _environment(spec: TensorFlowServingSpec) -> dict[str, str]:
    return {
        "LD_LIBRARY_PATH": f"/{IMAGE}/{RUNTIME}:/{IMAGE}/{SYSTEM}",
        "LD_PRELOAD": f"/{IMAGE}/{RUNTIME}/{LIBRARY}",
        "SECRET_PROVISION_CONSTRUCTOR": "1",
        "SECRET_PROVISION_SET_KEY": KEY_NAME,
        "SECRET_PROVISION_CA_CHAIN_PATH": f"/{AUTHORITY}",
        "SECRET_PROVISION_SERVERS": spec.servers(),
        "MALLOC_ARENA_MAX": str(HEAPS),
        # The host reads what an enclave prints: errors, and no more.
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "GRPC_VERBOSITY": "NONE",
    }


def _mounts(spec: TensorFlowServingSpec) -> list[dict[str, str]]:
    folder = f"models/{spec.model}"
    encrypted = [(f"/{folder}", f"file:{folder}"), (f"/{SSL_CONFIG}", f"file:{SSL_CONFIG}")]
    return [
        *({"type": "encrypted", "path": path, "uri": uri, "key_name": KEY_NAME} for path, uri in encrypted),
        *(
            {"path": f"/etc/{name}", "uri": f"file:{FOLDER}/{name}"}
            for name in ("hosts", "resolv.conf", "nsswitch.conf", "host.conf")
        ),
        {"type": "tmpfs", "path": "/tmp"},  # noqa: S108 (inside the enclave, and in its memory only)
    ]


def _models(spec: TensorFlowServingSpec) -> str:
    config = ModelServerConfig()
    model = config.model_config_list.config.add()
    model.name, model.base_path, model.model_platform = spec.model, f"/models/{spec.model}", "tensorflow"
    model.model_version_policy.specific.versions.append(spec.version)
    for label in sorted(spec.labels):
        model.version_labels[label] = spec.labels[label]
    return str(text_format.MessageToString(config))


def _batching(batching: BatchingConfig) -> str:
    parameters = BatchingParameters()
    for name, given in batching.model_dump(exclude_none=True).items():
        if isinstance(given, list):
            getattr(parameters, name).extend(given)
        elif name == "pad_variable_length_inputs":
            parameters.pad_variable_length_inputs = given
        else:
            getattr(parameters, name).value = given
    return str(text_format.MessageToString(parameters))
