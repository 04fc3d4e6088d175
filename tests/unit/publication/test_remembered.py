"""No way back: what a client saw once of a publisher, no host can make it forget."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ensconce.errors import EnsconceError, EvidenceError, IntegrityError
from ensconce.publication.remembered import admit
from ensconce.state.folder import FolderStore

CODE, OTHER = bytes(range(32)), bytes(range(1, 33))


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "state")


def remembered(folder: Path) -> list[str]:
    """Names of documents."""
    return [each.name.replace("_", "/") for each in folder.glob("published_*")]


def refusal(act: Callable[[], object]) -> EnsconceError:
    with pytest.raises(EnsconceError) as caught:
        act()
    return caught.value


def test_the_first_is_believed_and_the_next_follow(publisher: Any, store: FolderStore) -> None:
    for serial in (1, 2, 2, 5):
        file = publisher.publish(publisher.measurements(CODE, serial=serial))
        admit(store, file)
        admit(store, file)


def test_an_earlier_list_is_refused(publisher: Any, store: FolderStore) -> None:
    first = publisher.publish(publisher.measurements(CODE, OTHER))
    admit(store, publisher.publish(publisher.measurements(CODE, serial=2)))
    error = refusal(lambda: admit(store, first))
    assert (type(error), error.check) == (EvidenceError, "published.rollback")


def test_two_lists_of_one_serial_are_refused(publisher: Any, store: FolderStore) -> None:
    admit(store, publisher.publish(publisher.measurements(CODE)))
    two = publisher.publish(publisher.measurements(OTHER))
    assert refusal(lambda: admit(store, two)).check == "published.fork"


def test_a_second_log_is_refused(publisher: Any, store: FolderStore, tmp_path: Path) -> None:
    """The same key keeps another log, for those whom it tells something else."""
    admit(store, publisher.publish(publisher.measurements(CODE)))
    other = type(publisher)(tmp_path / "for-others")
    same_size = other.publish(other.measurements(OTHER, serial=2))
    assert refusal(lambda: admit(store, same_size)).check == "audit.fork"
    # Longer, and with a proof, which leads from its own earlier head.
    longer = other.publish(other.measurements(OTHER, serial=3))
    assert [each.first for each in longer.continues] == [1]
    error = refusal(lambda: admit(store, longer))
    assert (type(error), error.check) == (IntegrityError, "merkle.consistency")


def test_a_log_that_went_back_is_refused(publisher: Any, store: FolderStore, tmp_path: Path) -> None:
    for serial in (1, 2):
        admit(store, publisher.publish(publisher.measurements(CODE, serial=serial)))
    other = type(publisher)(tmp_path / "shorter")
    file = other.publish(other.measurements(CODE, serial=3))
    assert refusal(lambda: admit(store, file)).check == "audit.rollback"


def test_no_proof_from_what_was_seen(publisher: Any, store: FolderStore) -> None:
    admit(store, publisher.publish(publisher.measurements(CODE)))
    file = publisher.publish(publisher.measurements(CODE, serial=2))
    assert refusal(lambda: admit(store, replace(file, continues=()))).check == "merkle.consistency"
    admit(store, file)


def test_publishers_are_apart(publisher: Any, store: FolderStore, tmp_path: Path) -> None:
    admit(store, publisher.publish(publisher.measurements(CODE, serial=9)))
    other = type(publisher)(tmp_path / "other", seed=8)
    admit(store, other.publish(other.measurements(OTHER)))


def test_services_of_one_publisher_are_apart(publisher: Any, store: FolderStore, tmp_path: Path) -> None:
    """Each with a log of its own, and with lists that are newer or older than the other's."""
    admit(store, publisher.publish(publisher.measurements(CODE, serial=9)))
    other = type(publisher)(tmp_path / "log-of-the-other-service")
    admit(store, other.publish(other.measurements(OTHER, service="faces.example.test")))
    assert len(remembered(tmp_path / "state")) == 2
    old = other.publish(other.measurements(OTHER, serial=8))
    assert refusal(lambda: admit(store, old)).check == "published.rollback"


def test_what_is_remembered_is_not_bent_unnoticed(publisher: Any, store: FolderStore, tmp_path: Path) -> None:
    file = publisher.publish(publisher.measurements(CODE))
    admit(store, file)
    (name,) = remembered(tmp_path / "state")
    good = json.loads(store.read(name) or b"")
    more = (json.dumps(good | {field: "x.test"}).encode() for field in ("service", "publisher"))
    for bent in (b"", b"{}", json.dumps(good | {"head": good["head"] | {"size": 0}}).encode(), *more):
        with store.locked(name) as slot:
            slot.write(bent)
        assert refusal(lambda: admit(store, file)).check == "published.remembered"
