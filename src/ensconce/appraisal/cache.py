"""Collateral on disk, so that verification goes on while the PCCS is away.

One file for each kind of platform and PCK authority. Collateral is fetched again once a day, and in the last fifth of
its life; when that fails, what there is serves until it expires. Nothing here is trusted: a file that was tampered with
makes verification fail, as a PCCS that lies does. What did not hold is fetched again within a minute, so that a lie, or
somebody who spoke for the PCCS once, does not last.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from ensconce.appraisal.collateral import MAX_COLLATERAL_SIZE, Collateral
from ensconce.appraisal.documents import read_qe_identity, read_tcb_info
from ensconce.appraisal.pccs import fetch_collateral, parse_fmspc
from ensconce.appraisal.pck import PckCa, read_pck
from ensconce.errors import EnsconceError, EvidenceError, InputError, UnreachableError
from ensconce.evidence.quote import parse_quote
from ensconce.files import read_bounded, write_aside

__all__ = ["CollateralCache"]

_REFRESH = 24 * 3600
_RETRY = 60
_MAX_ENTRIES = 1024
_log = logging.getLogger(__name__)

_Key = tuple[str, PckCa]


@dataclass(frozen=True, slots=True)
class _Entry:
    """Collateral with the times that decide about it, all in seconds since 1970."""

    collateral: Collateral
    fetched: int
    begin: int
    end: int

    def usable(self, now: int) -> bool:
        return now < self.end

    def stale(self, now: int) -> bool:
        ageing = self.end - (self.end - self.begin) // 5
        return not max(self.fetched, self.begin) <= now < min(self.fetched + _REFRESH, ageing)


class CollateralCache:
    """Collateral for SGX platforms, from a PCCS by way of a folder. Safe to share between threads and processes.

    Args:
        directory: where the files are; made when there is something to keep.
        source_url: the PCCS, see :func:`ensconce.appraisal.pccs.fetch_collateral`.
        now: the clock, seconds since 1970.
        ca_certificate: PEM file of the authority to expect the PCCS's TLS certificate from.
        timeout: for each answer of the PCCS, in seconds.
    """

    def __init__(
        self,
        directory: Path,
        source_url: str,
        now: Callable[[], int],
        *,
        ca_certificate: Path | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._directory = directory
        self._source_url = source_url
        self._now = now
        self._ca_certificate = ca_certificate
        self._timeout = timeout
        self._entries: dict[_Key, _Entry] = {}
        # What did not hold, by the time at which it was fetched.
        self._doubted: dict[_Key, int] = {}
        self._tried: dict[_Key, tuple[int, EnsconceError | None]] = {}
        self._fetching = threading.Lock()

    def get_for(self, quote: bytes) -> Collateral:
        """Collateral for the platform that an SGX quote says it is from, which nobody has verified yet.

        Raises:
            EvidenceError: the quote is malformed, not of SGX, or does not say.
            UnreachableError: as :meth:`get`.
        """
        parsed = parse_quote(quote)
        if parsed.tee != "sgx":
            raise EvidenceError(
                "quote.tee_type", "collateral is fetched for SGX only", found=parsed.tee, rule="an SGX quote"
            )
        pck = read_pck(parsed)
        return self.get(pck.fmspc, pck.ca)

    def doubt(self, quote: bytes) -> None:
        """The collateral for this quote's platform did not hold: ask the PCCS again before it is used, if it answers.

        Args:
            quote: as it was given to :meth:`get_for`.
        """
        pck = read_pck(parse_quote(quote))
        key: _Key = (parse_fmspc(pck.fmspc), pck.ca)
        if (entry := self._entries.get(key)) is not None:
            _make_room(self._doubted)
            self._doubted[key] = entry.fetched

    def get(self, fmspc: str, ca: PckCa) -> Collateral:
        """Collateral for one kind of platform.

        Args:
            fmspc: 12 hexadecimal digits.
            ca: which authority issued the platform's PCK certificate.

        Raises:
            UnreachableError: there is none, or only an expired one (``collateral.expired``), and the PCCS gives none.
            EvidenceError: what the PCCS gives cannot be used, and there is none in the cache.
            InputError: ``fmspc`` is malformed, or the URL is.
        """
        key: _Key = (parse_fmspc(fmspc), ca)
        entry = self._entries.get(key) or self._newest(key)
        if entry and not self._stale(key, entry):
            return entry.collateral
        # While one thread asks the PCCS, others go on with what there is, if it is still good.
        waiting = entry is None or not entry.usable(self._now())
        if not self._fetching.acquire(blocking=waiting):
            assert entry is not None  # or this thread had waited
            return entry.collateral
        try:
            return self._refreshed(key)
        finally:
            self._fetching.release()

    def _refreshed(self, key: _Key) -> Collateral:
        now = self._now()
        # Another thread, or another process, may have been faster.
        entry = self._newest(key)
        if entry and not self._stale(key, entry):
            return entry.collateral
        tried, error = self._tried.get(key, (None, None))
        if tried is None or not tried <= now < tried + _RETRY:
            error = self._fetch(key)
            entry = self._entries.get(key)
            _make_room(self._tried)
            self._tried[key] = (now, error)
        if entry is None:
            # A new one each time: the traceback of an exception grows with each raise.
            raise (
                error.altered()
                if error
                else _unusable(self._source_url, "collateral.missing", "there is no collateral")
            )
        if not entry.usable(now):
            raise _unusable(
                self._source_url,
                "collateral.expired",
                "the collateral has expired, and there is no newer one",
                f"expired at {entry.end}, now {now}" + (f"; {error.problem}" if error else ""),
            )
        return entry.collateral

    def _stale(self, key: _Key, entry: _Entry) -> bool:
        return entry.stale(self._now()) or self._doubted.get(key) == entry.fetched

    def _fetch(self, key: _Key) -> EnsconceError | None:
        """Fetch, keep and write; the error, if that fails."""
        fmspc, ca = key
        try:
            collateral = fetch_collateral(
                self._source_url, fmspc=fmspc, ca=ca, ca_certificate=self._ca_certificate, timeout=self._timeout
            )
            entry = _entry(collateral, self._now(), key)
        except (UnreachableError, EvidenceError) as error:
            _log.info("no new collateral for %s (%s CA): %s", fmspc, ca, error)
            return error
        self._keep(key, entry)
        content = {"fetched": entry.fetched, "collateral": json.loads(collateral.to_json())}
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            write_aside(self._path(key), json.dumps(content, indent=2).encode())
        except (InputError, OSError) as error:
            # A full disk is no reason to stop verifying: what is in memory is as good.
            _log.warning("collateral for %s (%s CA) is not kept: %s", fmspc, ca, error)
        return None

    def _newest(self, key: _Key) -> _Entry | None:
        """The newer of what is in memory and in the file; a file that cannot be used is as good as none."""
        entry = self._entries.get(key)
        try:
            content = json.loads(read_bounded(self._path(key), MAX_COLLATERAL_SIZE))
            collateral = Collateral.from_json(json.dumps(content["collateral"]).encode())
            filed = _entry(collateral, int(content["fetched"]), key)
        except (EnsconceError, ValueError, KeyError, TypeError, RecursionError):
            return entry
        if entry is None or filed.fetched > entry.fetched:
            self._keep(key, filed)
        return self._entries[key]

    def _keep(self, key: _Key, entry: _Entry) -> None:
        if key not in self._entries:
            _make_room(self._entries)
        self._entries[key] = entry

    def _path(self, key: _Key) -> Path:
        return self._directory / f"{key[0]}-{key[1]}.json"


def _make_room(table: dict[_Key, Any]) -> None:
    # Whoever sends quotes chooses the keys; what was there longest goes first.
    while len(table) >= _MAX_ENTRIES:
        table.pop(next(iter(table)), None)


def _entry(collateral: Collateral, fetched: int, key: _Key) -> _Entry:
    """Read the times in collateral.

    Raises:
        EvidenceError: it is malformed, or for another kind of platform.
    """
    documents = read_tcb_info(collateral.tcb_info, "sgx"), read_qe_identity(collateral.qe_identity, "sgx")
    if documents[0].fmspc != key[0]:
        raise EvidenceError(
            "collateral.tcb_info.fmspc",
            "the PCCS gave TCB info for another kind of platform",
            found=documents[0].fmspc,
            rule=key[0],
            remedy="check the PCCS",
        )
    begins, ends = [d.issued for d in documents], [d.next_update for d in documents]
    for der in (collateral.root_ca_crl, collateral.pck_crl):
        try:
            crl = x509.load_der_x509_crl(der)
            begins.append(int(crl.last_update_utc.timestamp()))
            ends.append(int(crl.next_update_utc.timestamp()) if crl.next_update_utc else 0)
        except Exception as error:  # cryptography has half a dozen kinds for DER that is not right
            raise EvidenceError(
                "collateral.crl", "the PCCS gave no revocation list", found=str(error)[:200], remedy="check the PCCS"
            ) from error
    return _Entry(collateral, fetched, max(begins), min(ends))


def _unusable(url: str, check: str, problem: str, found: str | None = None) -> UnreachableError:
    return UnreachableError(
        check, problem, found=found, rule=f"from {url}", remedy="check that the PCCS runs, and this machine's clock"
    )
