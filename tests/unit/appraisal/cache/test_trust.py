"""What the cache believes, keeps and remembers of what its origin says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ensconce.appraisal.cache import CollateralCache
from ensconce.appraisal.collateral import Collateral, PlatformKind
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.root import root_named
from ensconce.errors import EvidenceError, InputError, IntegrityError, UnreachableError
from ensconce.evidence.report import SgxReport
from ensconce.platform.simulated.collateral import CollateralRecipe, CrlRecipe, DocumentRecipe
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import QuoteRecipe, make_quote
from ensconce.state.folder import FolderStore

DAY = 86_400
FMSPC = SimulatedVendor.FMSPC.hex().upper()
KIND = PlatformKind("sgx", FMSPC, "platform")
Fetched = Callable[[CollateralCache, int], None]
Open = Callable[[], CollateralCache]


def test_a_quote_says_which(
    shelf: Any,
    cache: CollateralCache,
    vendor: SimulatedVendor,
    report: Callable[..., SgxReport],
    folder: Path,
) -> None:
    for ca in ("platform", "processor"):
        quote = make_quote(vendor, report(), QuoteRecipe(ca=ca))  # type: ignore[arg-type]
        collateral = cache.get_for(quote)
        root = root_named(vendor.root_name, collateral)
        assert verify_quote(quote, collateral, at=shelf.now, root=root).fmspc == FMSPC
    kept = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    names = {f"collateral_sgx-{FMSPC.lower()}-{ca}" for ca in ("platform", "processor")}
    assert kept == names | {"collateral_newest"}


def test_trust_domains_have_an_entry_of_their_own(shelf: Any, cache: CollateralCache) -> None:
    tdx = PlatformKind("tdx", FMSPC, "platform")
    assert json.loads(cache.get(tdx).tcb_info)["id"] == "TDX"
    assert json.loads(cache.get(KIND).tcb_info)["id"] == "SGX"
    assert shelf.asked == [tdx, KIND]


def test_quotes_that_say_nothing(cache: CollateralCache, shelf: Any, quote: Callable[..., bytes]) -> None:
    for data in (b"", quote()[:-10], quote()[:1046] + b"\1" + quote()[1047:]):
        with pytest.raises(EvidenceError):
            cache.get_for(data)
    assert shelf.asked == []


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (PlatformKind("sgx", "00606A000000", "platform"), "collateral.tcb_info.fmspc"),
        (PlatformKind("tdx", FMSPC, "platform"), "collateral.tcb_info.id"),
        (PlatformKind("sgx", FMSPC, "processor"), "collateral.pck_crl.issuer"),
    ],
)
def test_an_answer_for_another_platform_is_not_kept(
    shelf: Any, cache: CollateralCache, folder: Path, kind: PlatformKind, check: str
) -> None:
    shelf.change = lambda _: shelf.vendor.collateral(shelf.now)
    with pytest.raises(EvidenceError) as caught:
        cache.get(kind)
    assert caught.value.check == check
    assert cache.refused == 1
    assert not folder.exists()


def test_a_lie_does_not_take_the_place_of_the_truth(
    shelf: Any, cache: CollateralCache, stranger: SimulatedVendor, fetched: Fetched, folder: Path
) -> None:
    """Nor does it set the marks that later truth would be measured by, nor revoke anything."""
    first = cache.get(KIND)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    lies: list[Callable[[Collateral], Collateral]] = [
        lambda c: replace(c, tcb_info=c.tcb_info.replace('"tcbEvaluationDataNumber":1', '"tcbEvaluationDataNumber":9')),
        lambda c: replace(c, qe_identity_signature=bytes(64)),
        lambda _: stranger.collateral(shelf.now),
        lambda c: replace(c, pck_crl=stranger.collateral(shelf.now).pck_crl),
        lambda c: replace(c, pck_crl_issuer_chain="no chain"),
    ]
    for times, each in enumerate(lies, 1):
        shelf.now += DAY
        shelf.change = each
        assert cache.get(KIND) == first
        fetched(cache, 1 + times)
        assert cache.refused == times
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert cache.get(KIND) == first


@pytest.mark.parametrize("part", ["tcb_info", "qe_identity"])
def test_there_is_no_way_back(
    shelf: Any, cache: CollateralCache, open_cache: Open, part: str, fetched: Fetched
) -> None:
    newer = DocumentRecipe(changes={"tcbEvaluationDataNumber": 2})
    shelf.recipe = CollateralRecipe(**{part: newer})  # type: ignore[arg-type]
    first = cache.get(KIND)
    shelf.now += DAY
    shelf.recipe = CollateralRecipe()  # genuine, dated later, of the number before
    assert cache.get(KIND) == first
    fetched(cache, 2)
    assert cache.get(KIND) == first
    assert cache.refused == 1
    shelf.now += 31 * DAY
    with pytest.raises(UnreachableError) as caught:
        open_cache().get(KIND)
    assert caught.value.check == "collateral.expired"


@pytest.mark.parametrize("all_of_it", [False, True], ids=["one document", "the whole store"])
def test_nor_for_who_can_write_the_store(
    shelf: Any, cache: CollateralCache, folder: Path, fetched: Fetched, all_of_it: bool
) -> None:
    older = cache.get(KIND)
    before = {path: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}
    shelf.now += DAY
    shelf.recipe = CollateralRecipe(tcb_info=DocumentRecipe(changes={"tcbEvaluationDataNumber": 2}))
    cache.get(KIND)
    fetched(cache, 2)
    newer = cache.get(KIND)
    assert newer != older
    shelf.now += DAY
    for path, data in before.items():
        if path.name == f"collateral_{str(KIND).lower()}":
            path.write_bytes(json.dumps(json.loads(data) | {"fetched": shelf.now}).encode())
        elif all_of_it:
            path.write_bytes(data)
    shelf.down = True
    for _ in range(2):
        assert cache.get(KIND) == newer
        fetched(cache, 3)


def test_revoked_once_is_revoked_for_good(
    shelf: Any, cache: CollateralCache, open_cache: Open, fetched: Fetched, quote: Callable[..., bytes]
) -> None:
    serial = shelf.vendor.pck().serial
    cache.get_for(quote())
    shelf.now += DAY
    shelf.recipe = CollateralRecipe(pck_crl=CrlRecipe(revoked=(7, serial)))
    cache.refresh()
    fetched(cache, 2)
    shelf.now += DAY
    shelf.recipe = CollateralRecipe()
    cache.refresh()
    fetched(cache, 3)
    assert cache.revocations.left_out == 2
    for one in (cache, open_cache()):
        with pytest.raises(EvidenceError) as caught:
            one.get_for(quote())
        assert caught.value.check == "pck_chain.revoked"
        assert f"{serial:x}" in str(caught.value)
        one.get(KIND)


@pytest.mark.parametrize("who", ["pck_ca", "tcb_signer"])
def test_so_are_authorities_and_signers(
    shelf: Any, cache: CollateralCache, fetched: Fetched, quote: Callable[..., bytes], who: str
) -> None:
    party = shelf.vendor.pck_ca() if who == "pck_ca" else shelf.vendor.tcb_signer
    shelf.recipe = CollateralRecipe(root_crl=CrlRecipe(revoked=(party.serial,)))
    for _ in range(2):
        with pytest.raises(EvidenceError) as caught:
            cache.get_for(quote())
        assert caught.value.check.endswith("chain.revoked")
        shelf.recipe = CollateralRecipe()
        shelf.now += DAY


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: b"",
        lambda d: d[:-1],
        lambda d: b"[]",
        lambda d: b"{}",
        lambda d: d.replace(b"SGX", b"TDX"),
        lambda d: d.replace(b'"version": 1', b'"version": 2'),
        lambda d: d.replace(b'"version": 1', b'"version": 1, "more": 1'),
        lambda d: d.replace(b'"fetched": 1790000000', b'"fetched": "1790000000"'),
        lambda d: d.replace(b'"fetched": 1790000000', b'"fetched": 1790000000.5'),
    ],
)
def test_a_damaged_document_is_replaced(
    shelf: Any, open_cache: Open, folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    open_cache().get(KIND)
    path = folder / f"collateral_{str(KIND).lower()}"
    data = path.read_bytes()
    path.write_bytes(damage(data))
    assert path.read_bytes() != data
    shelf.now += 1
    open_cache().get(KIND)
    assert len(shelf.asked) == 2
    assert json.loads(path.read_bytes())["fetched"] == shelf.now


def test_revocations_that_cannot_be_read_let_nothing_pass(
    cache: CollateralCache, open_cache: Open, folder: Path, quote: Callable[..., bytes]
) -> None:
    cache.get_for(quote())
    (folder / "revocations").write_bytes(b"{}")
    with pytest.raises(IntegrityError):
        open_cache().get_for(quote())


def test_what_cannot_be_remembered_is_not_used(shelf: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = FolderStore(tmp_path / "file" / "state")
    cache = CollateralCache(store, shelf, shelf.clock, roots=(shelf.vendor.root_name,))
    with pytest.raises(InputError):
        cache.get(KIND)


def test_what_cannot_be_kept_is_used_all_the_same(shelf: Any, cache: CollateralCache, folder: Path) -> None:
    name = f"collateral_{str(KIND).lower()}"
    (folder / f".{name}.lock").mkdir(parents=True)
    first = cache.get(KIND)
    assert not (folder / name).exists()
    shelf.down = True
    assert cache.get(KIND) == first


def test_a_fault_in_the_origin_is_an_error_and_no_silence(shelf: Any, cache: CollateralCache) -> None:
    shelf.change = lambda collateral: collateral.nothing  # type: ignore[attr-defined]
    with pytest.raises(Exception, match=r"collateral\.fetch"):
        cache.get(KIND)
