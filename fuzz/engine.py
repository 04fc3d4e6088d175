"""One target under atheris, in this process: ``python -m fuzz.engine TARGET [libFuzzer's arguments]``.

:mod:`fuzz.__main__` starts it with sensible arguments; by itself it is for looking at one input:
``python -m fuzz.engine quote build/fuzz/quote/findings/crash-...``.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable

import atheris  # type: ignore[import-untyped]  # and only where fuzzing is set up

from fuzz.target import InvariantError, Target

# PyYAML is left out: it takes most of the time of what uses it, and its ways are not ours to explore.
_INSTRUMENTED = ["ensconce", "base64", "json", "tomllib"]


def main(arguments: list[str]) -> None:
    """Fuzz until libFuzzer ends the process."""
    name = arguments[1]
    with atheris.instrument_imports(include=_INSTRUMENTED):
        from fuzz.targets import load

        target = load(name)
        # What targets and parsers import or compute when they are first used is not an input's doing.
        for seed in target.seeds().values():
            target.check(seed)
    mutators = {} if target.mutate is None else {"custom_mutator": _mutator(target)}
    atheris.Setup([arguments[0], *arguments[2:]], _once(target), internal_libfuzzer=True, **mutators)
    atheris.Fuzz()


def _once(target: Target) -> Callable[[bytes], None]:
    tried = accepted = 0

    def once(data: bytes) -> None:
        nonlocal tried, accepted
        start = time.process_time()
        accepted += target.check(data)
        spent = time.process_time() - start
        if spent > target.cpu_s:
            raise InvariantError(f"{len(data)} bytes took {spent:.1f} s")
        tried += 1
        # libFuzzer ends the process without asking, so what is to be known at the end is said now and then.
        if tried & 1023 == 0:
            sys.stderr.write(f"stat::accepted_percent: {100 * accepted // tried}\n")

    return once


def _mutator(target: Target) -> Callable[[bytes, int, int], bytes]:
    assert target.mutate is not None
    mutate = target.mutate

    def custom(data: bytes, max_size: int, seed: int) -> bytes:
        def havoc(part: bytes) -> bytes:
            return bytes(atheris.Mutate(part, max(len(part) + 256, 1)))

        return mutate(bytes(data), random.Random(seed), havoc)[:max_size]  # noqa: S311  # libFuzzer's seed is to count

    return custom


if __name__ == "__main__":
    main(sys.argv)
