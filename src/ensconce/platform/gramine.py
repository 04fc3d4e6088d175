"""Gramine's attestation files: write the report data, read the quote.

Source: Gramine 1.9, "Attestation and Secret Provisioning", `/dev/attestation`.
"""

from __future__ import annotations

import threading
from pathlib import Path

from ensconce.errors import EvidenceError, InputError

__all__ = ["GraminePlatform"]

_MAX_QUOTE_SIZE = 16 * 1024
# Report data of a version 3 quote: the last 64 bytes of the body that follows a header of 48 (DCAP, appendix A).
_REPORT_DATA = slice(48 + 320, 48 + 384)


class GraminePlatform:
    """The platform of a process inside Gramine with `sgx.remote_attestation = "dcap"`."""

    name = "gramine"

    def __init__(self, root: Path = Path("/dev/attestation")) -> None:
        """Use the attestation files in ``root``."""
        self._root = root
        # Report data and quote are one pair of files for the whole process.
        self._lock = threading.Lock()

    def quote(self, report_data: bytes) -> bytes:
        """A quote of this enclave over ``report_data``.

        Args:
            report_data: 64 bytes.

        Raises:
            InputError: not 64 bytes, or Gramine offers no quotes here.
            EvidenceError: the quote does not carry the report data.
        """
        if len(report_data) != 64:
            raise InputError(
                "platform.report_data", "report data has the wrong length", found=f"{len(report_data)}", rule="64 bytes"
            )
        try:
            with self._lock:
                # In one write each: Gramine takes what one call brings.
                with (self._root / "user_report_data").open("wb", buffering=0) as file:
                    file.write(report_data)
                with (self._root / "quote").open("rb") as file:
                    quote = file.read(_MAX_QUOTE_SIZE + 1)
        except OSError as error:
            raise InputError(
                "platform.gramine",
                f"Gramine offers no quote: {error.strerror}",
                found=str(error.filename) if error.filename else None,
                rule='sgx.remote_attestation = "dcap"',
                remedy="set it in the manifest, and check that the host runs the quoting service (aesmd)",
            ) from error
        if len(quote) > _MAX_QUOTE_SIZE or quote[_REPORT_DATA] != report_data:
            raise EvidenceError(
                "platform.quote",
                "Gramine's quote does not carry the report data that was asked for",
                found=f"{len(quote)} bytes",
                rule="a DCAP quote of version 3 over the given report data",
                remedy="ask again; if it happens again, the host's quoting service is broken",
            )
        return quote
