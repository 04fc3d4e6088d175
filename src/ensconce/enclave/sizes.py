"""How large a Gramine enclave must be: derived from what it will hold, never below it, and said in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ensconce.enclave.config import ModelConfig
from ensconce.enclave.present import choose, folders
from ensconce.errors import InputError
from ensconce.models.layout import scan

__all__ = ["GRAMINES_THREADS", "MAX_CORES", "EnclaveSize", "Sizes", "held", "mib", "power_of_two"]

MAX_CORES = 32
"""Cores that are reckoned with when no number of threads is given."""

GRAMINES_THREADS = 4
"""Threads of the library OS itself."""

_MIB = 1 << 20
_SERVERS_THREADS = 16
# Code and data of Python, OpenVINO and the library OS, the libraries' own files in memory, and what OpenVINO compiles:
# all that is mapped, which SGX sets aside, touched or not. Measured with a model of 20 kB and 24 callers: 528 MiB.
_PROGRAM = 544 * _MIB
# A thread's stacks, Gramine's and its own. Its heap is everybody's (MALLOC_ARENA_MAX in the manifest).
_PER_THREAD = 2 * _MIB
# Requests that wait (serving.batching.parameters.Bounds) and answers on their way.
_REQUESTS = 512 * _MIB
_UNKNOWN_MODEL = 256 * _MIB


@dataclass(frozen=True)
class EnclaveSize:
    """How large an enclave is, and why.

    Attributes:
        size: of its memory, in bytes; a power of two, as SGX wants it.
        threads: slots for threads.
        size_reason: what ``size`` is made of.
        threads_reason: what ``threads`` is made of.
    """

    size: int
    threads: int
    size_reason: str
    threads_reason: str

    @property
    def size_text(self) -> str:
        """``size`` as Gramine writes it."""
        return f"{self.size >> 30}G" if self.size >= 1 << 30 else f"{self.size >> 20}M"


class Sizes(EnclaveSize):
    """Of an enclave with our own server."""

    @classmethod
    def of(cls, models: Iterable[int | None], engine_threads: int) -> Sizes:
        """What an enclave needs.

        Args:
            models: bytes of every version that it may hold at once; None for one that is not known yet.
            engine_threads: threads of an engine; 0 for as many as there are cores.
        """
        cores = engine_threads or MAX_CORES
        # As many threads compute, and each may have the engine's own beside it.
        threads = GRAMINES_THREADS + _SERVERS_THREADS + 2 * cores
        listed = [_UNKNOWN_MODEL if each is None else each for each in models]
        # Its plaintext stays, the engine keeps its own form of the weights, and while the next version is loaded,
        # one more of the largest is there.
        for_models = 2 * sum(listed) + 2 * max(listed, default=0)
        needed = _PROGRAM + threads * _PER_THREAD + _REQUESTS + for_models
        return cls(
            power_of_two(needed),
            threads,
            f"{mib(_PROGRAM)} for the program, {mib(_REQUESTS)} for requests, {mib(for_models)} for models"
            f" (weights twice, and the largest once more while its successor is loaded),"
            f" {mib(threads * _PER_THREAD)} for {threads} threads; rounded up to a power of two",
            f"{GRAMINES_THREADS} of Gramine's, {_SERVERS_THREADS} of the server's, and 2 for each of {cores} cores"
            + ("" if engine_threads else f" (engine.threads is 0: the host may have up to {MAX_CORES})"),
        )


def held(models: Path, configs: Iterable[ModelConfig]) -> list[int | None]:
    """Bytes of every version that a replica holds at once, of what lies in ``models``; None for a model without any.

    Raises:
        InputError: a folder cannot be read, or is no version.
    """
    sizes: list[int | None] = []
    for config in configs:
        present = folders(models / config.name)
        chosen = list(choose(config, present, ()))
        sizes += [sum(file.size for file in scan(present[number], InputError)) for number in chosen] or [None]
    return sizes


def power_of_two(size: int) -> int:
    """The smallest that is not below ``size``."""
    return 1 << (size - 1).bit_length()


def mib(size: int) -> str:
    """``size`` in words, rounded up."""
    return f"{-(-size // _MIB)} MiB"
