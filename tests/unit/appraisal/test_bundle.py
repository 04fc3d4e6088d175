"""Bundles: read, written, picked from, and used by a cache in place of a server."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.appraisal.bundle import MAX_BUNDLE_SIZE, CollateralBundle
from ensconce.appraisal.cache import CollateralCache
from ensconce.appraisal.collateral import Collateral, PlatformKind
from ensconce.appraisal.origin import BundleOrigin
from ensconce.errors import EvidenceError, InputError, UnreachableError
from ensconce.platform.simulated.collateral import CollateralRecipe, DocumentRecipe
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import QuoteRecipe
from ensconce.state.folder import FolderStore

NOW = 1_790_000_000
FMSPC = SimulatedVendor.FMSPC.hex().upper()
KIND = PlatformKind("sgx", FMSPC, "platform")


@pytest.fixture
def several(vendor: SimulatedVendor) -> tuple[Collateral, ...]:
    recipes = [CollateralRecipe(), CollateralRecipe(ca="processor"), CollateralRecipe(tee="tdx")]
    return tuple(vendor.collateral(NOW, recipe) for recipe in recipes)


def test_what_is_written_is_read_and_picked_by_kind_of_platform(several: tuple[Collateral, ...]) -> None:
    made = CollateralBundle.of(several)
    read = CollateralBundle.from_json(made.to_json().encode())
    assert read == made
    assert read.platforms == (KIND, PlatformKind("sgx", FMSPC, "processor"), PlatformKind("tdx", FMSPC, "platform"))
    for kind, each in zip(read.platforms, several, strict=True):
        assert read.get(kind) == each


def test_a_quote_picks_its_own(several: tuple[Collateral, ...], quote: Callable[..., bytes]) -> None:
    bundle = CollateralBundle.of(several)
    assert bundle.get_for(quote()) == several[0]
    assert bundle.get_for(quote(QuoteRecipe(ca="processor"))) == several[1]
    with pytest.raises(EvidenceError):
        bundle.get_for(b"no quote")
    with pytest.raises(UnreachableError) as caught:
        CollateralBundle.of(several[1:]).get_for(quote())
    assert caught.value.check == "collateral.missing"
    assert str(KIND) in str(caught.value)


def test_of_two_for_one_kind_the_last_counts(vendor: SimulatedVendor) -> None:
    older, newer = vendor.collateral(NOW), vendor.collateral(NOW + 1)
    assert CollateralBundle.of([older, newer]).entries == (newer,)


def test_what_dcap_qvl_writes_is_a_bundle_of_one(several: tuple[Collateral, ...]) -> None:
    assert CollateralBundle.from_json(several[0].to_json().encode()).entries == several[:1]


@pytest.mark.parametrize(
    "change",
    [
        lambda b: {**b, "more": 1},
        lambda b: {**b, "version": 2},
        lambda b: {**b, "version": True},
        lambda b: {**b, "version": "1"},
        lambda b: {"collateral": b["collateral"]},
        lambda b: {**b, "collateral": []},
        lambda b: {**b, "collateral": {}},
        lambda b: {**b, "collateral": b["collateral"] * 2},
        lambda b: {**b, "collateral": b["collateral"] * 100},
        lambda b: {**b, "collateral": [None]},
        lambda b: {**b, "collateral": [{}]},
        lambda b: {**b, "collateral": [{**b["collateral"][0], "tcb_info": 1}]},
        lambda b: {**b, "collateral": [{**b["collateral"][0], "tcb_info": "{}"}, b["collateral"][1]]},
        lambda b: {**b, "collateral": [{**b["collateral"][0], "tcb_info": '{"fmspc":"x"}'}]},
        lambda b: {**b, "collateral": [{**b["collateral"][0], "pck_crl_issuer_chain": "x"}]},
        lambda b: [b],
        lambda b: None,
    ],
)
def test_files_that_are_no_bundle(several: tuple[Collateral, ...], change: Callable[[Any], Any]) -> None:
    value = change(json.loads(CollateralBundle.of(several).to_json()))
    with pytest.raises(InputError) as caught:
        CollateralBundle.from_json(json.dumps(value).encode())
    assert caught.value.check in ("collateral.format", "collateral.entry")
    assert caught.value.remedy


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'{"version":1,"version":1,"collateral":[]}', b"[" * 100_000])
def test_files_that_are_no_json(data: bytes) -> None:
    with pytest.raises(InputError):
        CollateralBundle.from_json(data)


def test_files_have_a_bound() -> None:
    with pytest.raises(InputError):
        CollateralBundle.from_json(bytes(MAX_BUNDLE_SIZE + 1))


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(InputError):
        CollateralBundle.from_json(data)


def test_a_cache_takes_a_bundle_for_a_server_and_a_new_file_within_a_minute(
    vendor: SimulatedVendor, quote: Callable[..., bytes], tmp_path: Path, wait_for: Callable[..., None]
) -> None:
    path, now = tmp_path / "bundle.json", [NOW]
    first, second = vendor.collateral(NOW), vendor.collateral(NOW + 1)
    path.write_text(CollateralBundle.of([first]).to_json())
    cache = CollateralCache(
        FolderStore(tmp_path / "state"), BundleOrigin(path), lambda: now[0], roots=(vendor.root_name,)
    )
    assert cache.get_for(quote()) == first
    path.write_text(CollateralBundle.of([second]).to_json())
    assert cache.get_for(quote()) == first
    now[0] += 60
    wait_for(lambda: cache.get_for(quote()) == second, "the new file to be seen")
    # A file that is gone, or spoilt, or older than what was seen, changes nothing until expiry.
    older = vendor.collateral(NOW, CollateralRecipe(tcb_info=DocumentRecipe(issued=-7200)))
    for spoil in (
        lambda: path.write_text("{"),
        lambda: path.write_text(CollateralBundle.of([older]).to_json()),
        path.unlink,
    ):
        spoil()
        now[0] += 60
        assert cache.get_for(quote()) == second
        wait_for(lambda: not cache._fetches, "the file to be read")
        assert cache.get_for(quote()) == second
    assert cache.refused == 1


def test_a_bundle_is_vetted_as_a_server_is(
    vendor: SimulatedVendor, stranger: SimulatedVendor, quote: Callable[..., bytes], tmp_path: Path
) -> None:
    path = tmp_path / "bundle.json"
    forged = replace(vendor.collateral(NOW), tcb_info_signature=bytes(64))
    for number, (bad, kind) in enumerate(((forged, EvidenceError), (stranger.collateral(NOW), EvidenceError))):
        path.write_text(CollateralBundle.of([bad]).to_json())
        store = FolderStore(tmp_path / f"state{number}")
        with pytest.raises(kind):
            CollateralCache(store, BundleOrigin(path), lambda: NOW, roots=(vendor.root_name,)).get_for(quote())
    path.unlink()
    with pytest.raises(InputError):
        CollateralCache(store, BundleOrigin(path), lambda: NOW, roots=(vendor.root_name,)).get_for(quote())
