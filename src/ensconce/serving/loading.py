"""How one version is loaded: the options, the threads, and what is made of an error."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ensconce.errors import EnsconceError, InputError, IntegrityError
from ensconce.serving.engines import LoadError, Servable
from ensconce.serving.manager import State, VersionStatus
from ensconce.serving.unforeseen import unforeseen
from ensconce.tfserving.refusal import Code, RequestError

__all__ = ["LoadOptions", "Loader", "Threads", "told", "why_ended"]


Loader = Callable[[str, int, Path], Servable]
"""Makes a servable of a version's folder: model's name, version, folder. Called in any thread, several at once."""

_CODES: Final[dict[type[EnsconceError], Code]] = {
    InputError: Code.INVALID_ARGUMENT,
    IntegrityError: Code.DATA_LOSS,
}


@dataclass(frozen=True)
class LoadOptions:
    """How versions are loaded; names and defaults of the original's flags.

    Attributes:
        max_num_load_retries: how often a load that failed is tried again.
        load_retry_interval_micros: microseconds between two tries; negative for none.
        num_load_threads: loads at once; 0 is one after the other in the thread that decides.
        num_unload_threads: threads that free what was unloaded; 0 is in the thread that decides.
    """

    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    num_load_threads: int = 0
    num_unload_threads: int = 0


class Threads:
    """Runs jobs in so many threads; in the caller's where there are none."""

    def __init__(self, name: str, number: int) -> None:
        """Make the threads, which are called ``name``."""
        self._name = name
        self._pool = self._made(number)

    def _made(self, number: int) -> ThreadPoolExecutor | None:
        return ThreadPoolExecutor(number, thread_name_prefix=self._name) if number > 0 else None

    def resize(self, number: int) -> None:
        """Run jobs in so many from now on; those that were given before end where they are."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
        self._pool = self._made(number)

    def run(self, job: Callable[[], None]) -> None:
        """Run a job, now or when a thread is free."""
        if self._pool is None:
            job()
        else:
            self._pool.submit(job)

    def close(self) -> None:
        """Wait for jobs that run; begin no other."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def why_ended(version: int, error: Exception) -> VersionStatus:
    """How a load ended. Of an unforeseen error the kind and the place alone: its text may hold what was loaded."""
    if isinstance(error, RequestError | LoadError):
        return VersionStatus(version, State.END, error.code, error.problem)
    if isinstance(error, EnsconceError):
        return VersionStatus(version, State.END, _CODES.get(type(error), Code.UNKNOWN), str(error))
    if isinstance(error, OSError):
        code = Code.NOT_FOUND if isinstance(error, FileNotFoundError) else Code.UNKNOWN
        return VersionStatus(version, State.END, code, f"{error.filename}: {error.strerror}")
    return VersionStatus(version, State.END, Code.INTERNAL, unforeseen(error))


def told(status: VersionStatus) -> str:
    """The error of a status as the original writes it, ``absl::Status::ToString``."""
    return f"{status.code.name}: {status.text}"
