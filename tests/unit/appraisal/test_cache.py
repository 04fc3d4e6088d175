"""The cache, over the simulated platform's own PCCS documents and a real HTTP server; time is injected."""

from __future__ import annotations

import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ensconce.appraisal.cache import CollateralCache
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.root import root_named
from ensconce.errors import EvidenceError, InputError, UnreachableError
from ensconce.evidence.report import SgxReport
from ensconce.platform.simulated.collateral import CollateralRecipe, CrlRecipe, DocumentRecipe
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import QuoteRecipe, make_quote

START = 1_790_000_000
HOUR, DAY = 3600, 86_400
FMSPC = SimulatedVendor.FMSPC.hex().upper()


@dataclass
class Pccs:
    """A PCCS whose collateral, clock and health a test decides."""

    vendor: SimulatedVendor
    now: int = START
    down: bool = False
    recipe: CollateralRecipe = field(default_factory=CollateralRecipe)
    asked: int = 0
    url: str = ""
    hold: threading.Event | None = None
    second: threading.Event = field(default_factory=threading.Event)

    def clock(self) -> int:
        return self.now

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if path.startswith("/sgx/certification/v4/pckcrl"):
            self.asked += 1
            if self.asked == 2:
                self.second.set()
            if self.hold:
                self.hold.wait(10)
        if self.down:
            return 502, {}, b""
        ca = "processor" if "ca=processor" in path else "platform"
        papers = self.vendor.collateral(self.now, self.recipe.of_ca(ca))  # type: ignore[arg-type]
        quoted = urllib.parse.quote
        if "pckcrl" in path:
            return 200, {"SGX-PCK-CRL-Issuer-Chain": quoted(papers.pck_crl_issuer_chain)}, papers.pck_crl
        if "rootcacrl" in path:
            return 200, {}, papers.root_ca_crl.hex().encode()
        if "/tcb" in path:
            name, header = "tcbInfo", "TCB-Info-Issuer-Chain"
            text, signature, chain = papers.tcb_info, papers.tcb_info_signature, papers.tcb_info_issuer_chain
        else:
            name, header = "enclaveIdentity", "SGX-Enclave-Identity-Issuer-Chain"
            text, signature, chain = papers.qe_identity, papers.qe_identity_signature, papers.qe_identity_issuer_chain
        return 200, {header: quoted(chain)}, f'{{"{name}":{text},"signature":"{signature.hex()}"}}'.encode()


@pytest.fixture
def pccs(vendor: SimulatedVendor) -> Iterator[Pccs]:
    state = Pccs(vendor)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            status, headers, body = state.answer(self.path)
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "collateral"


@pytest.fixture
def cache(pccs: Pccs, folder: Path) -> CollateralCache:
    return CollateralCache(folder, pccs.url, pccs.clock)


def again(pccs: Pccs, folder: Path) -> CollateralCache:
    """What a new process has."""
    return CollateralCache(folder, pccs.url, pccs.clock)


def test_once_is_enough_for_a_day(pccs: Pccs, cache: CollateralCache, folder: Path) -> None:
    first = cache.get(FMSPC, "platform")
    pccs.now += DAY - 1
    assert cache.get(FMSPC.lower(), "platform") == first
    assert again(pccs, folder).get(FMSPC, "platform") == first
    assert pccs.asked == 1
    pccs.now += 1
    assert cache.get(FMSPC, "platform") != first
    assert pccs.asked == 2


def test_a_quote_says_which(
    pccs: Pccs, cache: CollateralCache, vendor: SimulatedVendor, report: Callable[..., SgxReport], folder: Path
) -> None:
    for ca in ("platform", "processor"):
        quote = make_quote(vendor, report(), QuoteRecipe(ca=ca))  # type: ignore[arg-type]
        collateral = cache.get_for(quote)
        root = root_named(vendor.root_name, collateral)
        assert verify_quote(quote, collateral, at=pccs.now, root=root).fmspc == FMSPC
    assert sorted(path.name for path in folder.iterdir()) == [f"{FMSPC}-platform.json", f"{FMSPC}-processor.json"]


def test_quotes_that_say_nothing(cache: CollateralCache, pccs: Pccs, quote: Callable[..., bytes]) -> None:
    for data in (b"", quote()[:-10], quote()[:1046] + b"\1" + quote()[1047:]):
        with pytest.raises(EvidenceError):
            cache.get_for(data)
    assert pccs.asked == 0


@pytest.mark.parametrize("part", ["tcb_info", "qe_identity", "root_crl", "pck_crl"])
def test_the_last_fifth_of_life_is_for_fetching(pccs: Pccs, cache: CollateralCache, part: str) -> None:
    kind = CrlRecipe if part.endswith("crl") else DocumentRecipe
    pccs.recipe = CollateralRecipe(**{part: kind(issued=0, next_update=10 * HOUR)})  # type: ignore[arg-type]
    cache.get(FMSPC, "platform")
    pccs.now += 8 * HOUR - 1
    cache.get(FMSPC, "platform")
    assert pccs.asked == 1
    pccs.now += 1
    cache.get(FMSPC, "platform")
    assert pccs.asked == 2


def test_collateral_that_did_not_hold_is_fetched_again_after_a_minute(
    pccs: Pccs, cache: CollateralCache, folder: Path, quote: Callable[..., bytes]
) -> None:
    """Whoever spoke for the PCCS once does not stop verification for a day, not even by way of the file."""
    first = cache.get_for(quote())
    cache.doubt(quote())
    assert cache.get_for(quote()) == first
    assert pccs.asked == 1
    other = again(pccs, folder)
    assert other.get_for(quote()) == first
    other.doubt(quote())
    pccs.now += 60
    second = cache.get_for(quote())
    assert second != first
    assert other.get_for(quote()) == second
    pccs.now += 60
    assert cache.get_for(quote()) == second
    assert pccs.asked == 2


def test_an_outage_is_bridged_until_expiry(pccs: Pccs, cache: CollateralCache, folder: Path) -> None:
    first = cache.get(FMSPC, "platform")
    pccs.down = True
    pccs.now = START + 30 * DAY - 1
    for one in (cache, again(pccs, folder)):
        assert one.get(FMSPC, "platform") == first
    asked = pccs.asked
    assert cache.get(FMSPC, "platform") == first
    assert pccs.asked == asked  # not for every appraisal
    pccs.now = START + 30 * DAY
    for one in (cache, again(pccs, folder)):
        with pytest.raises(UnreachableError) as caught:
            one.get(FMSPC, "platform")
        assert caught.value.check == "collateral.expired"
        assert caught.value.remedy
    pccs.down = False
    pccs.now += 60
    assert cache.get(FMSPC, "platform") != first


def test_with_nothing_cached_the_pccs_own_error_is_told(pccs: Pccs, cache: CollateralCache, folder: Path) -> None:
    pccs.down = True
    for _ in range(2):
        with pytest.raises(UnreachableError) as caught:
            cache.get(FMSPC, "platform")
        assert caught.value.check == "pccs.status"
    assert pccs.asked == 1
    assert not folder.exists()
    pccs.down = False
    pccs.now += 60
    cache.get(FMSPC, "platform")


def test_an_answer_for_another_platform_is_not_kept(pccs: Pccs, cache: CollateralCache, folder: Path) -> None:
    with pytest.raises(EvidenceError) as caught:
        cache.get("00606A000000", "platform")
    assert caught.value.check == "collateral.tcb_info.fmspc"
    assert not folder.exists()


def test_an_answer_that_is_no_collateral_does_not_replace_one(pccs: Pccs, cache: CollateralCache) -> None:
    first = cache.get(FMSPC, "platform")
    pccs.now += DAY
    pccs.recipe = CollateralRecipe(tcb_info=DocumentRecipe(changes={"version": 2}))
    assert cache.get(FMSPC, "platform") == first


@pytest.mark.parametrize(
    "damage", [lambda d: b"", lambda d: d[:-1], lambda d: b"[]", lambda d: d.replace(b"SGX", b"TDX")]
)
def test_a_damaged_file_is_replaced(pccs: Pccs, folder: Path, damage: Callable[[bytes], bytes]) -> None:
    again(pccs, folder).get(FMSPC, "platform")
    (path,) = folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    again(pccs, folder).get(FMSPC, "platform")
    assert pccs.asked == 2
    assert json.loads(path.read_bytes())["fetched"] == pccs.now


def test_a_clock_that_goes_back_fetches_anew(pccs: Pccs, cache: CollateralCache) -> None:
    cache.get(FMSPC, "platform")
    pccs.now -= 10 * DAY
    cache.get(FMSPC, "platform")
    assert pccs.asked == 2


def test_another_process_may_have_been_faster(pccs: Pccs, cache: CollateralCache, folder: Path) -> None:
    cache.get(FMSPC, "platform")
    pccs.now += DAY
    newer = again(pccs, folder).get(FMSPC, "platform")
    assert cache.get(FMSPC, "platform") == newer
    assert pccs.asked == 2


def test_while_one_thread_fetches_others_go_on(pccs: Pccs, cache: CollateralCache) -> None:
    first = cache.get(FMSPC, "platform")
    pccs.now += DAY
    pccs.hold = threading.Event()
    fetching = threading.Thread(target=cache.get, args=(FMSPC, "platform"))
    fetching.start()
    try:
        assert pccs.second.wait(10)
        assert cache.get(FMSPC, "platform") == first
    finally:
        pccs.hold.set()
        fetching.join(10)
    assert cache.get(FMSPC, "platform") != first
    assert pccs.asked == 2


def test_many_threads_fetch_once(pccs: Pccs, cache: CollateralCache) -> None:
    threads = [threading.Thread(target=cache.get, args=(FMSPC, "platform")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert pccs.asked == 1


def test_a_folder_that_cannot_be_written_stops_nothing(pccs: Pccs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = CollateralCache(tmp_path / "file" / "cache", pccs.url, pccs.clock)
    assert cache.get(FMSPC, "platform") == cache.get(FMSPC, "platform")
    assert pccs.asked == 1


@pytest.mark.parametrize("fmspc", ["", "../../../etc", "00606A00000G"])
def test_platforms_that_are_none(cache: CollateralCache, fmspc: str) -> None:
    with pytest.raises(InputError):
        cache.get(fmspc, "platform")
