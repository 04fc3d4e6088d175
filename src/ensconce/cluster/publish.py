"""What the owner publishes: a new list made from the last one, recorded in her log, and then written out.

``published.json`` is what anybody may have. The log says which list was the last, so that a folder that was put back,
and with it a withdrawal that was lost, is noticed. ``published.next.json`` is a signed list on its way: it counts from
the moment at which the log has it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

from ensconce import strict_json
from ensconce.appraisal.policy_owners import key_name
from ensconce.appraisal.published import Image, Measurements, PolicyReference, PublishedEnclave, Source, Withdrawn
from ensconce.audit.check import prove_entry
from ensconce.audit.entry import Entry, canonical
from ensconce.audit.reader import LogReader
from ensconce.audit.storage import LogStorage
from ensconce.audit.tree import LogTree
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.policy import policy_store
from ensconce.cluster.state import open_state
from ensconce.enclave.build import SIGSTRUCT
from ensconce.enclave.show import read_signature
from ensconce.errors import InputError, IntegrityError
from ensconce.files import alone_in, file_sha256, read_bounded, write_aside
from ensconce.keys import get_private_key
from ensconce.publication.dsse import seal
from ensconce.publication.file import EVENT, MAX_CONTINUES, MAX_FILE, PublishedFile, open_envelope, parse_published
from ensconce.publication.statement import statement_bytes
from ensconce.times import unix_now, utc_text

__all__ = ["MAX_WITHDRAWN", "PUBLISHED", "add_enclave", "parse_image", "parse_source", "publish", "withdraw"]

PUBLISHED = "published.json"
"""The file, in the owner's folder."""

_NEXT = "published.next.json"
_DAY = 24 * 3600
MAX_WITHDRAWN = 64
"""So many withdrawals, the last ones, are in a list with their reasons. The others hold as well: what a list leaves out
is not accepted, and the log knows what was ever in one, so that it does not come back."""

_Lists = tuple[tuple[PublishedEnclave, ...], tuple[Withdrawn, ...]]
Change = Callable[[_Lists, str], _Lists]
"""Makes the new enclaves and the withdrawn ones from the last list's, and the time as text."""
Sign = Callable[[bytes], Mapping[str, Any]]
"""Has a statement signed by an identity; gives the Sigstore bundle, as JSON."""


def publish(
    owner: OwnerFolder,
    change: Change | None,
    days: int,
    now: Callable[[], int] = unix_now,
    sign: Sign | None = None,
    *,
    by_key_alone: bool = False,
) -> PublishedFile:
    """Sign a new list, record it as ``published``, and write ``published.json``.

    Args:
        owner: her folder.
        change: what is to be different; None renews the list as it is.
        days: until the new list ends, at least 1.
        now: the clock, seconds since 1970.
        sign: has the statement signed by an identity as well, before anything is recorded.
        by_key_alone: leave that out though the last list had it: clients that go by the identity refuse the new one.

    Raises:
        EnsconceError: what ``sign`` raises.
        InputError: ``publish.*``: there is no such change to be made; ``published.size``; a file cannot be written.
        IntegrityError: ``publish.behind``: the folder has an older list than the log; ``audit.*``.
        UnreachableError: ``state.unreachable``.
    """
    with alone_in(owner.path, InputError("publish.busy", "somebody else publishes", remedy="wait for it to end")):
        place = _Place(owner.path, open_state(owner).log, owner.public_key())
        last = place.settled()
        if sign is None and last is not None and last.bundle is not None and not by_key_alone:
            raise InputError(
                "publish.by_key_alone",
                "an identity signed the last list, and clients that go by it would refuse this one",
                remedy="give --sigstore; or --no-sigstore, if they are to go by the key, or to accept nothing",
            )
        keystore = owner.keystore()
        log = owner.audit_log(keystore)
        at = now()
        lists: _Lists = ((), ()) if last is None else (last.measurements.enclaves, last.measurements.withdrawn)
        if change is not None:
            lists = change(lists, utc_text(at))
            place.refuse_withdrawn(lists[0])
        elif last is None:
            raise InputError("publish.nothing", "nothing was published yet", remedy="publish an enclave first")
        with _checking("list", f"{len(lists[0])} enclaves", "at most 64 enclaves, each name once"):
            measurements = Measurements(
                service=owner.deployment().service.domain,
                serial=1 if last is None else last.measurements.serial + 1,
                created=utc_text(at),
                expires=utc_text(at + days * _DAY),
                policy=_policy(owner),
                log_key=key_name(place.key),
                enclaves=lists[0],
                withdrawn=lists[1][-MAX_WITHDRAWN:],
            )
        body = statement_bytes(measurements)
        envelope = seal(body, get_private_key(keystore, "signing/owner", "ed25519"))
        on_its_way: dict[str, Any] = {"envelope": envelope.model_dump(mode="json")}
        if sign is not None:
            on_its_way["sigstore"] = sign(body)
        write_aside(place.next_file, canonical(on_its_way))
        log.append(
            EVENT,
            serial=measurements.serial,
            sha256=hashlib.sha256(body).hexdigest(),
            enclaves=[each.mr_enclave for each in lists[0]],
        )
        settled = place.settled()
        assert settled is not None
        return settled


def add_enclave(owner: OwnerFolder, name: str | None, images: Sequence[Image], source: Source | None) -> Change:
    """The change that adds the enclave in the bundle, or says something else about it.

    Args:
        owner: her folder.
        name: in the list; without, the service's and the measurement's beginning.
        images: that bring it.
        source: what it was built from.

    Raises:
        InputError: ``enclave.*``: there is none; ``publish.debug``.
        EvidenceError: its signature does not hold.
    """
    path = owner.bundle / SIGSTRUCT
    signed = read_signature(path)
    if signed.debug:
        raise InputError(
            "publish.debug",
            "this is a debug enclave: whoever runs it reads its memory",
            found=str(path),
            remedy="build, sign and publish an enclave without debug",
        )
    measured = signed.mr_enclave.hex()

    def change(lists: _Lists, at: str) -> _Lists:
        enclaves, withdrawn = lists
        before = next((each for each in enclaves if each.mr_enclave == measured), None)
        with _checking("name", name or "", "1 to 100 printable characters; at most 32 images"):
            enclave = PublishedEnclave(
                name=name or f"{owner.deployment().service.domain} {measured[:8]}",
                mr_enclave=measured,
                mr_signer=signed.mr_signer.hex(),
                isv_prod_id=signed.isv_prod_id,
                isv_svn=signed.isv_svn,
                sigstruct=file_sha256(path).hex(),
                published=at if before is None else before.published,
                images=tuple(images),
                source=source,
            )
        return (*(each for each in enclaves if each is not before), enclave), withdrawn

    return change


def withdraw(mr_enclave: str, reason: str) -> Change:
    """The change that takes an enclave out of the list.

    Args:
        mr_enclave: hexadecimal.
        reason: what those are told who meet it.
    """

    def change(lists: _Lists, at: str) -> _Lists:
        enclaves, withdrawn = lists
        left = tuple(each for each in enclaves if each.mr_enclave != mr_enclave.lower())
        if len(left) == len(enclaves):
            raise InputError(
                "publish.unknown",
                "no such enclave is published",
                found=ascii(mr_enclave)[:100],
                rule=", ".join(each.mr_enclave for each in enclaves)[:400] or "the list is empty",
                remedy="name the MRENCLAVE of a published one, all 64 digits",
            )
        with _checking("reason", reason, "1 to 200 printable characters"):
            return left, (*withdrawn, Withdrawn(mr_enclave=mr_enclave.lower(), reason=reason, withdrawn=at))

    return change


def parse_image(text: str) -> Image:
    """An image as ``NAME@sha256:HEX`` names it.

    Raises:
        InputError: ``publish.image``.
    """
    name, _, digest = text.rpartition("@sha256:")
    with _checking("image", text, "NAME@sha256: and 64 hexadecimal digits"):
        return Image(name=name, sha256=digest)


def parse_source(text: str) -> Source:
    """A Git commit, or ``URI@COMMIT``.

    Raises:
        InputError: ``publish.source``.
    """
    uri, _, commit = text.rpartition("@")
    with _checking("source", text, "[URI@]COMMIT, with 40 or 64 hexadecimal digits"):
        return Source(commit=commit, uri=uri or None)


@contextlib.contextmanager
def _checking(what: str, found: str, rule: str) -> Iterator[None]:
    """What the owner typed is hers to correct; in a published file the same would be somebody else's making."""
    try:
        yield
    except ValidationError:
        raise InputError(f"publish.{what}", f"this {what} cannot be published", found=found[:200], rule=rule) from None


@dataclass(frozen=True)
class _Place:
    """The owner's folder and her log, as far as lists go."""

    folder: Path
    log: LogStorage
    key: Ed25519PublicKey

    @property
    def file(self) -> Path:
        return self.folder / PUBLISHED

    @property
    def next_file(self) -> Path:
        return self.folder / _NEXT

    def settled(self) -> PublishedFile | None:
        """The list that the log says is the last; one that was on its way is finished, or dropped."""
        entries = self._entries()
        recorded = entries[-1].fields["sha256"] if entries else None
        last = parse_published(read_bounded(self.file, MAX_FILE), [self.key]) if self.file.exists() else None
        if self.next_file.exists():
            if entries and (last is None or last.sha256 != recorded):
                last = self._finish(entries[-1], last)
            self.next_file.unlink()
        if recorded != (None if last is None else last.sha256):
            raise IntegrityError(
                "publish.behind",
                f"{self.file} is not what was published last",
                found="it is missing" if last is None else f"serial {last.measurements.serial}, sha256 {last.sha256}",
                rule=f"serial {entries[-1].fields['serial']}, sha256 {recorded}" if entries else "nothing in the log",
                remedy="put the newest back, from a backup or from where it is published",
            )
        return last

    def refuse_withdrawn(self, enclaves: Sequence[PublishedEnclave]) -> None:
        """Refuse enclaves that were in some list and are not in the last.

        Raises:
            InputError: ``publish.withdrawn``.
        """
        *earlier, last = [_enclaves_of(entry) for entry in self._entries()] or [frozenset()]
        withdrawn = frozenset[str]().union(*earlier) - last
        for each in enclaves:
            if each.mr_enclave in withdrawn:
                raise InputError(
                    "publish.withdrawn",
                    "this enclave was withdrawn, and nobody who believed that is to be contradicted",
                    found=each.mr_enclave,
                    remedy="publish an enclave that was built anew, from something that differs",
                )

    def _entries(self) -> Sequence[Entry]:
        return LogReader(self.log, self.key, lambda entry: entry.event == EVENT).entries()

    def _finish(self, entry: Entry, last: PublishedFile | None) -> PublishedFile | None:
        value = strict_json.loads(read_bounded(self.next_file, MAX_FILE))
        if not isinstance(value, dict):
            return last
        envelope, measurements = open_envelope(value.get("envelope"), [self.key])
        proof = prove_entry(self.log, self.key, entry.seq)
        tree = LogTree(self.log, self.key)
        seen = [] if last is None else [*(each.first for each in last.continues), last.proof.head.size]
        size = proof.head.size
        file = PublishedFile(
            envelope=envelope,
            proof=proof,
            continues=tuple(tree.consistency(first, size) for first in seen[-MAX_CONTINUES:] if first < size),
            publisher=self.key,
            measurements=measurements,
            bundle=value.get("sigstore"),
        )
        if file.sha256 != entry.fields["sha256"]:
            return last
        write_aside(self.file, file.to_bytes())
        return file


def _enclaves_of(entry: Entry) -> frozenset[str]:
    measured = entry.fields["enclaves"]
    assert isinstance(measured, tuple)  # as publish() writes it
    return frozenset(map(str, measured))


def _policy(owner: OwnerFolder) -> PolicyReference | None:
    in_force = policy_store(owner).follow(None, None)
    return None if in_force is None else PolicyReference(serial=in_force.policy.serial, sha256=in_force.policy.sha256)
