"""Published files as a web server answers them.

What is accepted says what the publisher signed, in one spelling, and is remembered; nothing earlier is accepted then.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

from ensconce.appraisal.published import Measurements
from ensconce.audit.entry import Entry, StoredValue, sign_entry
from ensconce.audit.head import sign_head
from ensconce.audit.merkle import Tree
from ensconce.audit.proofs import ConsistencyProof, InclusionProof
from ensconce.errors import EvidenceError, IntegrityError
from ensconce.publication.dsse import seal
from ensconce.publication.file import EVENT, PublishedFile, parse_published
from ensconce.publication.remembered import admit
from ensconce.publication.statement import parse_statement, statement_bytes
from ensconce.times import utc_text
from fuzz import world
from fuzz.mutation import by_tree
from fuzz.target import Refused, Target, attempt, holds

__all__ = ["TARGET", "check"]

_PUBLIC = world.AUDIT_KEY.public_key()
_COUNT = 3


def check(data: bytes) -> bool:
    """Read a file, and by itself the statement that a publisher might have signed; see the module."""
    statement = attempt(lambda: parse_statement(data), EvidenceError)
    if not isinstance(statement, Refused):
        holds(statement_bytes(statement) == data, "a statement with two spellings")
    file = attempt(lambda: parse_published(data, [_PUBLIC]), EvidenceError, IntegrityError)
    if isinstance(file, Refused):
        return not isinstance(statement, Refused)
    holds(file.to_bytes() == data, "a file with two spellings")
    holds(file.measurements in [each.measurements for each in _files()], "a list that nobody signed")
    store = _Memory()
    if not isinstance(attempt(lambda: admit(store, file), EvidenceError, IntegrityError), Refused):
        for earlier in _files()[: file.measurements.serial - 1]:
            again = attempt(functools.partial(admit, store, earlier), EvidenceError, IntegrityError)
            holds(isinstance(again, Refused), "an earlier list is accepted")
    return True


class _Memory:
    """A store that is gone afterwards."""

    def __init__(self) -> None:
        self._data: bytes | None = None

    def read(self, _name: str = "") -> bytes | None:
        return self._data

    def write(self, data: bytes) -> None:
        self._data = data

    @contextmanager
    def locked(self, _name: str) -> Iterator[_Memory]:
        yield self


@functools.cache
def _files() -> list[PublishedFile]:
    """The publisher's lists, one after the other."""
    tree, files, entries = Tree(), list[PublishedFile](), list[Entry]()
    for serial in range(1, _COUNT + 1):
        body = statement_bytes(_measurements(serial))
        previous = entries[-1].hash if entries else bytes(32)
        fields: dict[str, StoredValue] = {"serial": serial, "sha256": hashlib.sha256(body).hexdigest()}
        entry = sign_entry(serial - 1, utc_text(world.NOW), EVENT, fields, previous, world.AUDIT_KEY)
        entries.append(entry)
        tree.append(entry.leaf_hash())
        head = sign_head(serial, tree.root(serial), entry.hash, utc_text(world.NOW), world.AUDIT_KEY)
        proof = InclusionProof(entry, head, tuple(tree.inclusion(serial - 1, serial)))
        continues = tuple(
            ConsistencyProof(first, serial, tuple(tree.consistency(first, serial))) for first in range(1, serial)
        )
        files.append(PublishedFile(seal(body, world.AUDIT_KEY), proof, continues, _PUBLIC, _measurements(serial)))
    return files


def _measurements(serial: int) -> Measurements:
    enclave = {
        "name": "digits",
        "mr_enclave": f"{serial:064x}",
        "mr_signer": "11" * 32,
        "isv_prod_id": 1,
        "isv_svn": serial,
        "sigstruct": f"{serial:064x}",
        "published": "2026-01-01T00:00:00Z",
        "images": [{"name": "registry.test/server", "sha256": "22" * 32}],
        "source": {"commit": "33" * 20, "uri": "git+https://example.test/a"},
    }
    gone = {"mr_enclave": "44" * 32, "reason": "it reads too far", "withdrawn": "2026-01-01T00:00:00Z"}
    value = {
        "service": "digits.example.test",
        "serial": serial,
        "created": "2026-01-01T00:00:00Z",
        "expires": "2026-02-01T00:00:00Z",
        "policy": {"serial": 1, "sha256": "55" * 32},
        "enclaves": [enclave],
        "withdrawn": [gone],
    }
    return Measurements.model_validate_json(json.dumps(value))


def seeds() -> dict[str, bytes]:
    """The first list, the last, and a statement by itself."""
    files = _files()
    return {
        "good-first": files[0].to_bytes(),
        "good-last": files[-1].to_bytes(),
        "good-statement": statement_bytes(files[-1].measurements),
    }


TARGET = Target(
    "published",
    check,
    seeds,
    by_tree(json.loads, lambda tree: json.dumps(tree, sort_keys=True, separators=(",", ":")).encode() + b"\n"),
    max_size=16 * 1024,
)
