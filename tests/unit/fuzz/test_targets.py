"""Every target over its corpus, and over what its mutator makes of it; no fuzzer is needed for either."""

from __future__ import annotations

import gc
import random
import time

import pytest
from fuzz.seeds import CORPUS, FOUND
from fuzz.targets import load, names
from pydantic import ValidationError

ROUNDS = 100


def havoc(rng: random.Random) -> object:
    """A little of what libFuzzer does: flips, inserts, cuts and doubles."""

    def bend(part: bytes) -> bytes:
        at = rng.randrange(len(part) + 1)
        return rng.choice(
            (
                part[:at] + bytes([rng.randrange(256)]) + part[at + 1 :],
                part[:at] + rng.randbytes(rng.randrange(5)) + part[at:],
                part[:at],
                part[:at] + part[at // 2 :],
            )
        )

    return bend


def validation_errors() -> int:
    """How many of pydantic's errors are alive; other tests may have left some."""
    gc.collect()
    return sum(type(each) is ValidationError for each in gc.get_objects())


@pytest.mark.parametrize("name", names())
def test_corpus(name: str) -> None:
    target = load(name)
    for file in sorted((CORPUS / name).iterdir()):
        accepted = target.check(file.read_bytes())
        if not file.name.startswith(FOUND):
            wanted = file.name.startswith("good")
            assert accepted == wanted, f"{file.name}: if the format has changed, run python -m fuzz.seeds"


@pytest.mark.parametrize("name", names())
def test_what_mutators_make(name: str) -> None:
    target, rng = load(name), random.Random(name)
    assert target.check(b"") in (True, False)
    seeds = [seed for seed in target.seeds().values() if seed]
    before, start = validation_errors(), time.process_time()
    for _ in range(ROUNDS):
        data, bend = rng.choice(seeds), havoc(rng)
        for _ in range(rng.randrange(1, 4)):
            data = target.mutate(data, rng, bend) if target.mutate else bend(data)
            assert isinstance(data, bytes)
        target.check(data[: target.max_size])
    assert time.process_time() - start < ROUNDS * target.cpu_s
    # A cycle through one of these is never collected, so a parser that keeps them lets strangers fill the memory.
    assert validation_errors() <= before


@pytest.mark.parametrize("name", names())
def test_seeds_are_in_the_corpus(name: str) -> None:
    kept = {file.name: file.read_bytes() for file in (CORPUS / name).iterdir() if not file.name.startswith(FOUND)}
    seeds = load(name).seeds()
    assert set(kept) == set(seeds), "run python -m fuzz.seeds"
    if name != "client-hello":  # The machine's OpenSSL writes those.
        assert kept == seeds, "run python -m fuzz.seeds; or they are others in each process"
    assert all(len(seed) <= load(name).max_size for seed in seeds.values())


def test_the_corpus_is_small() -> None:
    assert sum(file.stat().st_size for file in CORPUS.rglob("*") if file.is_file()) < 300_000
    assert {folder.name for folder in CORPUS.iterdir()} == set(names())
