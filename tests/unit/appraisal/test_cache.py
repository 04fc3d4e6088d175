"""The cache, over the simulated vendor's documents; origin and time are the tests', stores are folders."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

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

START = 1_790_000_000
HOUR, DAY = 3600, 86_400
FMSPC = SimulatedVendor.FMSPC.hex().upper()
KIND = PlatformKind("sgx", FMSPC, "platform")
Wait = Callable[[Callable[[], object], str], None]


@dataclass
class Shelf:
    """An origin whose collateral, clock and health a test decides."""

    vendor: SimulatedVendor
    now: int = START
    down: bool = False
    recipe: CollateralRecipe = field(default_factory=CollateralRecipe)
    change: Callable[[Collateral], Collateral] = lambda collateral: collateral
    asked: list[PlatformKind] = field(default_factory=list)
    hold: threading.Event | None = None
    name: str = "https://pccs.test"
    refresh_s: int = DAY

    def clock(self) -> int:
        return self.now

    def fetch(self, platform: PlatformKind) -> Collateral:
        self.asked.append(platform)
        if self.hold:
            assert self.hold.wait(10)
        if self.down:
            raise UnreachableError("pccs.connect", "nobody there")
        return self.change(self.vendor.collateral(self.now, self.recipe.of_tee(platform.tee).of_ca(platform.ca)))


@pytest.fixture
def shelf(vendor: SimulatedVendor) -> Shelf:
    return Shelf(vendor)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def open_cache(shelf: Shelf, folder: Path) -> Callable[[], CollateralCache]:
    """What a new process, or another server of the deployment, has."""
    return lambda: CollateralCache(FolderStore(folder), shelf, shelf.clock, roots=(shelf.vendor.root_name,))


@pytest.fixture
def cache(open_cache: Callable[[], CollateralCache]) -> CollateralCache:
    return open_cache()


@pytest.fixture
def fetched(shelf: Shelf, wait_for: Wait) -> Callable[[CollateralCache, int], None]:
    """Waits until the origin was asked so often, and what it said has been dealt with."""

    def wait(cache: CollateralCache, times: int) -> None:
        wait_for(lambda: len(shelf.asked) == times and not cache._fetches, f"fetch {times}")

    return wait


Fetched = Callable[[CollateralCache, int], None]
Open = Callable[[], CollateralCache]


def test_once_is_enough_for_a_day_and_nobody_waits_for_the_next(
    shelf: Shelf, cache: CollateralCache, open_cache: Open, fetched: Fetched
) -> None:
    first = cache.get(KIND)
    shelf.now += DAY - 1
    assert cache.get(PlatformKind("sgx", FMSPC.lower(), "platform")) == first
    assert open_cache().get(KIND) == first
    assert len(shelf.asked) == 1
    shelf.now += 1
    shelf.hold = threading.Event()
    for _ in range(3):
        assert cache.get(KIND) == first
    shelf.hold.set()
    fetched(cache, 2)
    assert cache.get(KIND) != first
    assert len(shelf.asked) == 2


def test_a_quote_says_which(
    shelf: Shelf,
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


def test_trust_domains_have_an_entry_of_their_own(shelf: Shelf, cache: CollateralCache) -> None:
    tdx = PlatformKind("tdx", FMSPC, "platform")
    assert json.loads(cache.get(tdx).tcb_info)["id"] == "TDX"
    assert json.loads(cache.get(KIND).tcb_info)["id"] == "SGX"
    assert shelf.asked == [tdx, KIND]


def test_quotes_that_say_nothing(cache: CollateralCache, shelf: Shelf, quote: Callable[..., bytes]) -> None:
    for data in (b"", quote()[:-10], quote()[:1046] + b"\1" + quote()[1047:]):
        with pytest.raises(EvidenceError):
            cache.get_for(data)
    assert shelf.asked == []


@pytest.mark.parametrize("part", ["tcb_info", "qe_identity", "root_crl", "pck_crl"])
def test_the_last_fifth_of_life_is_for_fetching(
    shelf: Shelf, cache: CollateralCache, part: str, fetched: Fetched
) -> None:
    kind = CrlRecipe if part.endswith("crl") else DocumentRecipe
    shelf.recipe = CollateralRecipe(**{part: kind(issued=0, next_update=10 * HOUR)})  # type: ignore[arg-type]
    cache.get(KIND)
    shelf.now += 8 * HOUR - 1
    cache.get(KIND)
    assert len(shelf.asked) == 1
    shelf.now += 1
    cache.get(KIND)
    fetched(cache, 2)


def test_a_server_keeps_fresh_what_nobody_asks_for(shelf: Shelf, cache: CollateralCache, fetched: Fetched) -> None:
    first = cache.get(KIND)
    cache.refresh()
    assert len(shelf.asked) == 1
    shelf.now += DAY
    cache.refresh()
    fetched(cache, 2)
    shelf.down = True
    assert cache.get(KIND) != first


def test_collateral_that_did_not_hold_is_fetched_again_after_a_minute(
    shelf: Shelf, cache: CollateralCache, open_cache: Open, quote: Callable[..., bytes]
) -> None:
    """Whoever spoke for the PCCS once does not stop verification for a day, not even by way of the store."""
    first = cache.get_for(quote())
    cache.doubt(quote())
    assert cache.get_for(quote()) == first
    assert len(shelf.asked) == 1
    other = open_cache()
    assert other.get_for(quote()) == first
    other.doubt(quote())
    shelf.now += 60
    second = cache.get_for(quote())
    assert second != first
    assert other.get_for(quote()) == second
    shelf.now += 60
    assert cache.get_for(quote()) == second
    assert len(shelf.asked) == 2


def test_an_outage_is_bridged_until_expiry(
    shelf: Shelf, cache: CollateralCache, open_cache: Open, fetched: Fetched
) -> None:
    first = cache.get(KIND)
    shelf.down = True
    shelf.now = START + 30 * DAY - 1
    assert cache.get(KIND) == first
    fetched(cache, 2)
    assert cache.get(KIND) == first
    assert len(shelf.asked) == 2  # not for every appraisal
    other = open_cache()
    assert other.get(KIND) == first
    fetched(other, 3)
    shelf.now = START + 30 * DAY
    for one in (cache, open_cache()):
        with pytest.raises(UnreachableError) as caught:
            one.get(KIND)
        assert caught.value.check == "collateral.expired"
        assert caught.value.remedy
        assert shelf.name in str(caught.value)
    shelf.down = False
    shelf.now += 60
    assert cache.get(KIND) != first


def test_with_nothing_cached_the_origins_own_error_is_told(shelf: Shelf, cache: CollateralCache, folder: Path) -> None:
    shelf.down = True
    for _ in range(2):
        with pytest.raises(UnreachableError) as caught:
            cache.get(KIND)
        assert caught.value.check == "pccs.connect"
    assert len(shelf.asked) == 1
    assert not folder.exists()
    shelf.down = False
    shelf.now += 60
    cache.get(KIND)


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (PlatformKind("sgx", "00606A000000", "platform"), "collateral.tcb_info.fmspc"),
        (PlatformKind("tdx", FMSPC, "platform"), "collateral.tcb_info.id"),
        (PlatformKind("sgx", FMSPC, "processor"), "collateral.pck_crl.issuer"),
    ],
)
def test_an_answer_for_another_platform_is_not_kept(
    shelf: Shelf, cache: CollateralCache, folder: Path, kind: PlatformKind, check: str
) -> None:
    shelf.change = lambda _: shelf.vendor.collateral(shelf.now)
    with pytest.raises(EvidenceError) as caught:
        cache.get(kind)
    assert caught.value.check == check
    assert cache.refused == 1
    assert not folder.exists()


def test_a_lie_does_not_take_the_place_of_the_truth(
    shelf: Shelf, cache: CollateralCache, stranger: SimulatedVendor, fetched: Fetched, folder: Path
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


def test_what_has_expired_already_is_not_kept(shelf: Shelf, cache: CollateralCache) -> None:
    shelf.recipe = CollateralRecipe(tcb_info=DocumentRecipe(issued=-9 * DAY, next_update=0))
    with pytest.raises(UnreachableError) as caught:
        cache.get(KIND)
    assert caught.value.check == "collateral.expired"


@pytest.mark.parametrize("part", ["tcb_info", "qe_identity"])
def test_there_is_no_way_back(
    shelf: Shelf, cache: CollateralCache, open_cache: Open, part: str, fetched: Fetched
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


def test_revoked_once_is_revoked_for_good(
    shelf: Shelf, cache: CollateralCache, open_cache: Open, fetched: Fetched, quote: Callable[..., bytes]
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
    shelf: Shelf, cache: CollateralCache, fetched: Fetched, quote: Callable[..., bytes], who: str
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
    "damage", [lambda d: b"", lambda d: d[:-1], lambda d: b"[]", lambda d: d.replace(b"SGX", b"TDX")]
)
def test_a_damaged_document_is_replaced(
    shelf: Shelf, open_cache: Open, folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    open_cache().get(KIND)
    path = folder / f"collateral_{str(KIND).lower()}"
    path.write_bytes(damage(path.read_bytes()))
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


def test_a_clock_that_goes_back_fetches_anew(shelf: Shelf, cache: CollateralCache, fetched: Fetched) -> None:
    cache.get(KIND)
    shelf.now -= 10 * DAY
    cache.get(KIND)
    fetched(cache, 2)


def test_another_process_may_have_been_faster(
    shelf: Shelf, cache: CollateralCache, open_cache: Open, wait_for: Wait, fetched: Fetched
) -> None:
    first = cache.get(KIND)
    shelf.now += DAY
    other = open_cache()
    assert other.get(KIND) == first
    fetched(other, 2)
    newer = other.get(KIND)
    assert newer != first
    cache.get(KIND)
    wait_for(lambda: cache.get(KIND) == newer, "what the other fetched")
    assert len(shelf.asked) == 2


def test_many_threads_fetch_once(shelf: Shelf, cache: CollateralCache) -> None:
    shelf.hold = threading.Event()
    threads = [threading.Thread(target=cache.get, args=(KIND,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    shelf.hold.set()
    for thread in threads:
        thread.join(10)
    assert len(shelf.asked) == 1


def test_one_slow_answer_does_not_hold_up_the_others(shelf: Shelf, cache: CollateralCache, wait_for: Wait) -> None:
    tdx = PlatformKind("tdx", FMSPC, "platform")
    hold = shelf.hold = threading.Event()
    slow = threading.Thread(target=cache.get, args=(tdx,))
    slow.start()
    try:
        wait_for(lambda: shelf.asked, "the first to be asked for")
        shelf.hold = None
        cache.get(KIND)
        assert slow.is_alive()
    finally:
        hold.set()
        slow.join(10)


def test_strangers_cannot_make_it_ask_without_end(shelf: Shelf, cache: CollateralCache, wait_for: Wait) -> None:
    shelf.hold = threading.Event()
    shelf.down = True
    kinds = [PlatformKind("sgx", f"{number:012X}", "platform") for number in range(16)]

    def ask(kind: PlatformKind) -> None:
        with pytest.raises(UnreachableError):
            cache.get(kind)

    threads = [threading.Thread(target=ask, args=(kind,)) for kind in kinds]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(shelf.asked) == 16, "all to be asked for")
        with pytest.raises(UnreachableError) as caught:
            cache.get(KIND)
        assert caught.value.check == "collateral.missing"
    finally:
        shelf.hold.set()
        for thread in threads:
            thread.join(10)


def test_what_cannot_be_remembered_is_not_used(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = FolderStore(tmp_path / "file" / "state")
    cache = CollateralCache(store, shelf, shelf.clock, roots=(shelf.vendor.root_name,))
    with pytest.raises(InputError):
        cache.get(KIND)


def test_a_fault_in_the_origin_is_an_error_and_no_silence(shelf: Shelf, cache: CollateralCache) -> None:
    shelf.change = lambda collateral: collateral.nothing  # type: ignore[attr-defined]
    with pytest.raises(Exception, match=r"collateral\.fetch"):
        cache.get(KIND)
