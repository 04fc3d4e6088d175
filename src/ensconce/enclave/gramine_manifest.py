"""Gramine's manifest for a replica, with a word on each choice; the same text from the same inputs.

Source of the keys: Gramine 1.9, "Manifest syntax". Everything that a replica executes or is told is a trusted file in
its own folder; argv and environment are fixed; what is left to the host is which ciphertext lies in ``models/`` and
the file in which the replica says where it listens.
"""

from __future__ import annotations

import hashlib

from ensconce.enclave.closing import LIBOS, RUNTIME, SYSTEM
from ensconce.enclave.contents import GRAMINE_ENTRY_MODULE
from ensconce.enclave.image import Image
from ensconce.enclave.manifest import BULK, CHECKED, CONFIG, FOLDER, HARMLESS_FILES, EnclaveSpec
from ensconce.enclave.manifest_text import lines, value
from ensconce.enclave.sizes import Sizes
from ensconce.enclave.trace import ENVIRONMENT, FLAGS

__all__ = ["IMAGE", "names_files", "render_gramine"]

IMAGE = f"{FOLDER}/image"
"""The image's folder, seen from a replica's working folder."""

_LIBRARIES = f"/{IMAGE}/{RUNTIME}:/{IMAGE}/{SYSTEM}:/{CHECKED}"
_WHY_ALLOWED = {
    "file:models/": "ciphertext: the replica opens it under the owner's key and its own path, or not at all",
    "file:ready.json": "where the replica listens, for whoever routes requests; the replica never reads it",
    "file:ready.json.part": "the same file before it has its name",
    f"file:{BULK}/": "the largest libraries: the replica reads each once and compares its SHA-256 with bulk.json below"
    " before a byte\n  # of it runs (ensconce.enclave.early); Gramine's own check takes a second longer",
}


def names_files(spec: EnclaveSpec) -> dict[str, bytes]:
    """The files by which names are looked up inside, by their names in ``enclave/``."""
    hosts = {"localhost": "127.0.0.1", **spec.hosts}
    return {
        "hosts": "".join(f"{address} {name}\n" for name, address in hosts.items()).encode(),
        "nsswitch.conf": b"hosts: files dns\n",
        "resolv.conf": "".join(f"nameserver {address}\n" for address in spec.nameservers).encode(),
    }


def render_gramine(spec: EnclaveSpec, image: Image, sizes: Sizes) -> str:
    """The text of ``server.manifest``: what ``gramine-sgx-sign`` takes, with the hash of every file that may be opened.

    Args:
        spec: the enclave.
        image: closed (:func:`ensconce.enclave.closing.close`), and cut to what is opened.
        sizes: of the enclave.
    """
    hashes = {file.path: file.sha256 for file in image.files}
    trusted = {CONFIG: _sha256(spec.config().dump())}
    trusted |= {f"{FOLDER}/{name}": _sha256(data) for name, data in names_files(spec).items()}
    trusted |= {f"{IMAGE}/{path}": digest for path, digest in hashes.items() if path != LIBOS}
    interpreter = f"/{IMAGE}/{image.interpreter}"
    return "".join(
        (
            "# Rendered by `ensconce enclave build`; the same deployment gives the same bytes. What gramine-sgx-sign\n"
            "# makes of this file, server.manifest.sgx, is what the measurement covers.\n",
            *lines((
                ("The library OS that was measured, not the one that the host has.", "loader.entrypoint", {
                    "uri": f"file:{IMAGE}/{LIBOS}", "sha256": hashes[LIBOS]}),
                ("The program, and all of its command line: the host adds and drops nothing.", "libos.entrypoint",
                 interpreter),
                (None, "loader.argv", [interpreter, *FLAGS, "-m", GRAMINE_ENTRY_MODULE, CONFIG]),
                ("The whole environment; nothing is passed through. The C library would set 64 MiB of the enclave aside"
                 " for each\nthread's heap; one for all is enough.", "loader.env",
                 {"LD_LIBRARY_PATH": _LIBRARIES, "MALLOC_ARENA_MAX": "1", **ENVIRONMENT}),
                ("Other levels tell the host of system calls and their arguments.", "loader.log_level", "error"),
                ("Names are looked up here, and nowhere in the host's /etc; and a folder in the enclave's own memory is"
                 " for libraries\nonce they are checked.", "fs.mounts", [
                     *({"path": f"/etc/{name}", "uri": f"file:{FOLDER}/{name}"} for name in names_files(spec)),
                     {"type": "tmpfs", "path": f"/{CHECKED}"}]),
                ("How the host asks for a clean end. It can end the enclave anyway; the handler only sets an event.",
                 "sys.enable_sigterm_injection", True),
                ("The replica starts no process; each would be another enclave of this size.",
                 "sys.disallow_subprocesses", True),
                ("As many connections as the server takes, and what it has open beside them.", "sys.fds.limit", 4096),
                ("What Gramine gives a thread by itself: enough for JSON nested 980 deep, and models of 8,000 layers.",
                 "sys.stack.size", "256K"),
                ("The host cannot look into a production enclave.", "sgx.debug", spec.debug),
                ("Quotes for the owner's provisioning server.", "sgx.remote_attestation", "dcap"),
                ("What a policy by MRSIGNER goes by.", "sgx.isvprodid", spec.isv_prod_id),
                (None, "sgx.isvsvn", spec.isv_svn),
                ("Memory is added before the start and not page by page at work, which costs an exit and a system call"
                 " each time;\nthis works on every SGX machine. EDMM would start sooner where most of the size is never"
                 " used.", "sgx.edmm_enable", False),
                ("Touching all of the heap first would delay readiness by the time that it takes to page it in.",
                 "sgx.preheat_enclave", False),
                (f"Needed: {sizes.size_reason}.", "sgx.enclave_size", spec.enclave_size or sizes.size_text),
                (sizes.threads_reason + ".", "sgx.max_threads", sizes.threads),
            )),
            "# What the host may change at any time, and why that is harmless.\nsgx.allowed_files = [\n",
            *(f"  # {_WHY_ALLOWED[uri]}\n  {value(uri)},\n" for uri in HARMLESS_FILES),
            "]\n",
            "# What the replica opens, and the bytes that it must find there.\nsgx.trusted_files = [\n",
            *(f'  {{ uri = {value(f"file:{path}")}, sha256 = "{digest}" }},\n' for path, digest in trusted.items()),
            "]\n",
        )
    )  # fmt: skip


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
