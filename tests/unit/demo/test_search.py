"""The search must find what is there: everything the demo claims about the host rests on it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ensconce.demo.search import Needles, image_needles, key_needles, search, weight_needles


def test_finds_a_window_at_every_offset_and_across_pieces(tmp_path: Path) -> None:
    secret = os.urandom(24)
    needles = Needles()
    needles.add("secret", secret)
    piece = 1 << 18
    for offset in (0, 1, 2, 3, 7, 1000, piece - 30, piece - 12, piece - 1, piece, 2 * piece - 5):
        haystack = bytearray(3 * piece)
        haystack[offset : offset + len(secret)] = secret
        path = tmp_path / "haystack"
        path.write_bytes(haystack)
        found = search([path], needles)
        assert found.hits == (("secret", str(path), offset),), offset
        assert found.bytes == len(haystack)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(before=st.binary(max_size=300), after=st.binary(max_size=300), seed=st.integers(0, 2**32 - 1))
def test_agrees_with_bytes_find(tmp_path: Path, before: bytes, after: bytes, seed: int) -> None:
    rng = np.random.default_rng(seed)
    windows = [rng.bytes(int(size)) for size in rng.integers(8, 40, 5)]
    needles = Needles()
    for window in windows:
        needles.add(window.hex(), window)
    planted = windows[seed % 5]
    data = before + planted + after
    (tmp_path / "file").write_bytes(data)
    found = {(what, offset) for what, _, offset in search([tmp_path], needles).hits}
    expected = {(what, data.find(window)) for window, what in needles.windows.items() if window in data}
    assert expected <= found


def test_finds_nothing_where_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(os.urandom(1 << 20))
    found = search([tmp_path], weight_needles(os.urandom(4096)))
    assert found.hits == ()
    assert (found.files, found.bytes) == (1, 1 << 20)


def test_weights_are_found_in_any_run_of_40_bytes(tmp_path: Path) -> None:
    weights = os.urandom(5000)
    needles = weight_needles(weights)
    for start in (0, 1, 15, 777, 4900):
        (tmp_path / "leak").write_bytes(b"\0" * 13 + weights[start : start + 40] + b"\0" * 9)
        assert search([tmp_path], needles).hits, start


@pytest.mark.parametrize("form", [bytes, lambda key: key.hex().encode(), lambda key: key.hex().upper().encode()])
def test_keys_are_found_raw_and_as_text(tmp_path: Path, form: object) -> None:
    key = os.urandom(16)
    (tmp_path / "log").write_bytes(b"key=" + form(key) + b"\n")  # type: ignore[operator]
    assert [what for what, _, _ in search([tmp_path], key_needles("model/m/1", key)).hits] == ["key model/m/1"]


def test_pixels_are_found_as_bytes_floats_and_json(tmp_path: Path) -> None:
    image = np.random.default_rng(1).permutation(64).astype(np.uint8).reshape(1, 8, 8) % 17
    needles = image_needles(image)
    assert needles.windows
    for leak in (image.tobytes(), image.astype("<f4").tobytes(), str(image.astype(float).ravel().tolist()).encode()):
        (tmp_path / "leak").write_bytes(b"xy" + leak)
        assert search([tmp_path], needles).hits


def test_links_are_not_followed_and_windows_are_not_trivial(tmp_path: Path) -> None:
    needles = Needles()
    needles.add("zeros", bytes(32))
    assert not needles.windows
    with pytest.raises(ValueError, match="8 bytes"):
        needles.add("short", b"1234567")
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert search([tmp_path], needles).files == 0
