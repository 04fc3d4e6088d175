"""No way back, over the simulated vendor's genuine documents."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.appraisal.newest import NEWEST, Newest, _read
from ensconce.appraisal.vetting import Vetted, vet
from ensconce.errors import EvidenceError, IntegrityError
from ensconce.platform.simulated.collateral import CollateralRecipe, DocumentRecipe
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.state.folder import FolderStore

NOW = 1_790_000_000
HOUR = 3600


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "state")


@pytest.fixture
def made(vendor: SimulatedVendor) -> Callable[..., Vetted]:
    """Genuine collateral with documents of these numbers, issued so many seconds ago."""

    def make(
        *, tcb: tuple[int, int] = (5, HOUR), qe: tuple[int, int] = (5, HOUR), by: SimulatedVendor = vendor, **kind: str
    ) -> Vetted:
        recipes = [DocumentRecipe(changes={"tcbEvaluationDataNumber": n}, issued=-ago) for n, ago in (tcb, qe)]
        recipe = CollateralRecipe(tcb_info=recipes[0], qe_identity=recipes[1], **kind)  # type: ignore[arg-type]
        return vet(by.collateral(NOW, recipe), (by.root_name,))

    return make


def refused(store: FolderStore, vetted: Vetted) -> str:
    with pytest.raises(EvidenceError) as caught:
        Newest(store).admit(vetted)
    assert caught.value.check == "collateral.rollback"
    assert caught.value.remedy
    return str(caught.value)


@pytest.mark.parametrize("what", ["tcb", "qe"])
def test_neither_number_nor_date_goes_back(store: FolderStore, made: Callable[..., Vetted], what: str) -> None:
    Newest(store).admit(made())
    Newest(store).admit(made())  # the same again is no way back
    assert "number 4" in refused(store, made(**{what: (4, 0)}))
    assert "issued" in refused(store, made(**{what: (5, HOUR + 1)}))
    assert "issued" in refused(store, made(**{what: (6, HOUR + 1)}))
    Newest(store).admit(made(**{what: (5, 0)}))
    Newest(store).admit(made(**{what: (6, 0)}))
    refused(store, made(**{what: (5, 0)}))
    refused(FolderStore(store._folder), made())


def test_what_was_refused_sets_no_mark(store: FolderStore, made: Callable[..., Vetted]) -> None:
    Newest(store).admit(made())
    before = store.read(NEWEST)
    refused(store, made(tcb=(9, 0), qe=(4, 0)))
    assert store.read(NEWEST) == before


def test_numbers_count_for_all_platforms_that_a_document_is_for(
    store: FolderStore, made: Callable[..., Vetted]
) -> None:
    Newest(store).admit(made())
    refused(store, made(tcb=(4, 0), ca="processor"))
    refused(store, made(qe=(4, 0), ca="processor"))
    # Dates do not: the vendor's machines answer with documents some minutes apart.
    Newest(store).admit(made(tcb=(5, 2 * HOUR), qe=(5, 2 * HOUR), ca="processor"))
    Newest(store).admit(made())


def test_enclaves_and_trust_domains_have_numbers_of_their_own(store: FolderStore, made: Callable[..., Vetted]) -> None:
    Newest(store).admit(made())
    Newest(store).admit(made(tcb=(4, 0), qe=(4, 0), tee="tdx"))
    refused(store, made(tcb=(3, 0), qe=(4, 0), tee="tdx"))


def test_so_have_roots(store: FolderStore, made: Callable[..., Vetted], stranger: SimulatedVendor) -> None:
    Newest(store).admit(made())
    Newest(store).admit(made(tcb=(1, 0), qe=(1, 0), by=stranger))


def test_a_store_that_was_put_back_takes_nothing_from_who_saw_more(
    store: FolderStore, made: Callable[..., Vetted]
) -> None:
    Newest(store).admit(made())
    before = store.read(NEWEST)
    assert before is not None
    newest = Newest(store)
    newest.admit(made(tcb=(6, 0)))
    with store.locked(NEWEST) as slot:
        slot.write(before)
    for ask in (newest.admit, newest.check_kept):
        with pytest.raises(EvidenceError):
            ask(made())
    newest.admit(made(tcb=(6, 0)))  # and writes down again what it saw
    refused(store, made(tcb=(5, 0)))


def test_what_was_kept_is_held_against_its_own_kind(store: FolderStore, made: Callable[..., Vetted]) -> None:
    newest = Newest(store)
    newest.admit(made())
    newest.admit(made(qe=(6, HOUR), ca="processor"))
    newest.check_kept(made())  # it serves until it expires, also when the vendor has gone on elsewhere
    with pytest.raises(EvidenceError):
        Newest(store).check_kept(made(tcb=(5, HOUR + 1)))


MARKS = {"tcb_number": 1, "tcb_issued": 1, "qe_number": 1, "qe_issued": 1}


@pytest.mark.parametrize(
    "value",
    [
        *({}, [], None, {"version": 1}, {"version": 2, "seen": {}}, {"version": 1, "seen": []}),
        *({"version": 1, "seen": {"intel": wrong}} for wrong in (None, [], {"x": {}}, {"x": {**MARKS, "more": 1}})),
        *({"version": 1, "seen": {"intel": {"x": {**MARKS, "qe_issued": wrong}}}} for wrong in ("1", 1.5, True, None)),
    ],
)
def test_a_document_that_cannot_be_read_admits_nothing(
    store: FolderStore, made: Callable[..., Vetted], value: object
) -> None:
    with store.locked(NEWEST) as slot:
        slot.write(json.dumps(value).encode())
    with pytest.raises(IntegrityError) as caught:
        Newest(store).admit(made())
    assert caught.value.check == "collateral.newest"


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(IntegrityError):
        _read(data)
