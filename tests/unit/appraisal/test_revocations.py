"""Revocations that stick, over the simulated vendor's genuine lists and a store in a folder."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.appraisal.revocations import REVOCATIONS, Revocations, _read
from ensconce.appraisal.vetting import RevocationList, links_of, vet
from ensconce.errors import EvidenceError, IntegrityError, UnreachableError
from ensconce.platform.simulated.collateral import CollateralRecipe, CrlRecipe
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.state.folder import FolderStore
from ensconce.state.store import Slot

NOW = 1_790_000_000
HOUR = 3600
Lists = Callable[..., tuple[RevocationList, ...]]


class AwayStore(FolderStore):
    """A store that can be away, as a database can."""

    away = False

    def read(self, name: str) -> bytes | None:
        if self.away:
            raise UnreachableError("state.unreachable", "the database is away")
        return super().read(name)

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[Slot]:
        if self.away:
            raise UnreachableError("state.unreachable", "the database is away")
        with super().locked(name) as slot:
            yield slot


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> AwayStore:
    return AwayStore(tmp_path / "state")


@pytest.fixture
def lists(vendor: SimulatedVendor) -> Lists:
    """What genuine lists say that revoke these serial numbers, issued so many seconds ago."""

    def make(*serials: int, ago: int = HOUR) -> tuple[RevocationList, ...]:
        recipe = CollateralRecipe(pck_crl=CrlRecipe(revoked=serials, issued=-ago))
        return vet(vendor.collateral(NOW, recipe), (vendor.root_name,)).lists

    return make


def revoked(revocations: Revocations, vendor: SimulatedVendor) -> bool:
    try:
        revocations.refuse(links_of((vendor.pck().certificate, vendor.pck_ca().certificate), "pck_chain"))
    except EvidenceError as error:
        return error.check == "pck_chain.revoked"
    return False


def test_a_list_that_leaves_out_what_another_had_changes_nothing_and_is_reported_once(
    store: AwayStore, vendor: SimulatedVendor, lists: Lists, caplog: pytest.LogCaptureFixture
) -> None:
    revocations = Revocations(store)
    serial = vendor.pck().serial
    revocations.learn(lists(1, 2, serial, ago=3 * HOUR))
    assert revoked(revocations, vendor)
    assert revocations.left_out == 0
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            revocations.learn(lists(2, 3, ago=HOUR))
    assert revoked(revocations, vendor)
    assert revocations.left_out == 2
    (said,) = caplog.messages
    assert "leaves out 2 certificates" in said
    assert "Intel SGX PCK Platform CA" in said
    # Once the issuer lists them again, there is no more to report.
    revocations.learn(lists(1, 2, 3, serial, ago=0))
    assert revocations.left_out == 0


def test_an_older_list_knows_less_without_anybody_having_taken_anything_back(
    store: AwayStore, vendor: SimulatedVendor, lists: Lists, caplog: pytest.LogCaptureFixture
) -> None:
    revocations = Revocations(store)
    revocations.learn(lists(1, 2))
    with caplog.at_level(logging.WARNING):
        revocations.learn(lists(1, ago=2 * HOUR))
        Revocations(store).learn(lists(1, ago=2 * HOUR))
    assert revocations.left_out == 0
    assert caplog.messages == []
    # What an older list alone has counts all the same, and is missing from the newer from then on.
    revocations.learn(lists(1, vendor.pck().serial, ago=2 * HOUR))
    assert revoked(revocations, vendor)
    revocations.learn(lists(1, 2))
    assert revocations.left_out == 1


def test_it_outlives_the_process_and_other_servers_see_it(
    store: AwayStore, vendor: SimulatedVendor, lists: Lists, clock: Clock
) -> None:
    one, other = Revocations(store), Revocations(store, clock)
    assert not revoked(other, vendor)
    one.learn(lists(vendor.pck().serial))
    assert revoked(Revocations(store), vendor)
    assert not revoked(other, vendor)
    clock.now += 5
    assert revoked(other, vendor)


def test_servers_add_to_what_others_added(store: AwayStore, lists: Lists) -> None:
    servers = [Revocations(store) for _ in range(8)]
    threads = [threading.Thread(target=server.learn, args=(lists(number),)) for number, server in enumerate(servers, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    data = json.loads(store.read(REVOCATIONS) or b"")
    assert {"1", "2", "3", "4", "5", "6", "7", "8"} in [set(each["serials"]) for each in data["issuers"].values()]


def test_issuers_are_told_apart_by_their_keys(
    store: AwayStore, vendor: SimulatedVendor, stranger: SimulatedVendor, lists: Lists
) -> None:
    """Names are not unique: every simulated vendor has Intel's, and serial numbers are unique for one issuer alone."""
    revocations = Revocations(store)
    serial = vendor.pck().serial
    recipe = CollateralRecipe(pck_crl=CrlRecipe(revoked=(serial,)))
    revocations.learn(vet(stranger.collateral(NOW, recipe), (stranger.root_name,)).lists)
    assert not revoked(revocations, vendor)
    revocations.learn(vet(vendor.collateral(NOW, recipe), (vendor.root_name,)).lists)
    assert revoked(revocations, vendor)


def test_while_the_store_is_away_what_is_known_counts(
    store: AwayStore, vendor: SimulatedVendor, lists: Lists, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    revocations = Revocations(store, clock)
    revocations.learn(lists(1))
    store.away = True
    clock.now += 60
    revocations.learn(lists(1, vendor.pck().serial))
    assert revoked(revocations, vendor)
    assert any("not written yet" in message for message in caplog.messages)
    store.away = False
    assert not revoked(Revocations(store), vendor)
    revocations.learn(lists(1))
    assert revoked(Revocations(store), vendor)


def test_with_nothing_known_a_store_that_is_away_lets_nothing_pass(
    store: AwayStore, vendor: SimulatedVendor, lists: Lists
) -> None:
    store.away = True
    revocations = Revocations(store)
    with pytest.raises(UnreachableError):
        revoked(revocations, vendor)
    with pytest.raises(UnreachableError):
        revocations.learn(lists(1))


KEY = "0" * 64
SOUND = {"name": "x", "issued": 1, "serials": ["1f"]}


@pytest.mark.parametrize(
    "value",
    [
        *({}, [], None, {"version": 1}, {"version": 2, "issuers": {}}, {"version": 1, "issuers": {}, "more": 1}),
        *({"version": 1, "issuers": []}, {"version": 1, "issuers": {"short": SOUND}}),
        *(
            {"version": 1, "issuers": {KEY: {**SOUND, **wrong}}}
            for wrong in ({"more": 1}, {"name": 1}, {"issued": "1"})
        ),
        *({"version": 1, "issuers": {KEY: {**SOUND, "serials": wrong}}} for wrong in ("1f", [1], ["1F"], [""], ["-1"])),
        *({"version": 1, "issuers": {KEY: wrong}} for wrong in (None, [], {})),
    ],
)
def test_a_document_that_cannot_be_read_lets_nothing_pass(
    store: AwayStore, vendor: SimulatedVendor, lists: Lists, value: object
) -> None:
    with store.locked(REVOCATIONS) as slot:
        slot.write(json.dumps(value).encode())
    with pytest.raises(IntegrityError) as caught:
        revoked(Revocations(store), vendor)
    assert caught.value.check == "revocations.document"
    with pytest.raises(IntegrityError):
        Revocations(store).learn(lists(1))


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(IntegrityError):
        _read(data)
