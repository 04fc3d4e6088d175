"""What identifies an enclave on the simulated platform: the counterpart of MRENCLAVE.

A CPU hashes the pages that it loads. Gramine's first page holds the manifest, and the manifest lists the SHA-256 of
every trusted file, so its MRENCLAVE covers argv, environment and every file. Here the manifest's bytes are hashed
directly: what changes the one changes the other.
"""

from __future__ import annotations

import hashlib

from ensconce.platform.manifest import Manifest

__all__ = ["measure"]

_DOMAIN = b"ensconce simulated MRENCLAVE v1\0"


def measure(manifest: Manifest) -> bytes:
    """MRENCLAVE of the enclave that ``manifest`` describes: SHA-256 over a domain, the length and the bytes."""
    return hashlib.sha256(_DOMAIN + len(manifest.raw).to_bytes(8, "big") + manifest.raw).digest()
