"""Verification in processes: the same verdicts and refusals, and what happens when a process dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.pool import VerifierPool
from ensconce.appraisal.root import SimulatedRoot
from ensconce.errors import EvidenceError, InputError, UnreachableError
from ensconce.evidence.report import SgxReport
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import make_quote

NOW = 1_800_000_000


@pytest.fixture(scope="module")
def vendor() -> SimulatedVendor:
    return SimulatedVendor(bytes(32), NOW)


@pytest.fixture(scope="module")
def case(vendor: SimulatedVendor, sound_report: Callable[..., SgxReport]) -> dict[str, Any]:
    return {
        "quote": make_quote(vendor, sound_report(vendor)),
        "collateral": vendor.collateral(NOW),
        "at": NOW,
        "root": SimulatedRoot(vendor.root_certificate_der),
    }


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    pool = VerifierPool(2)
    yield pool
    pool.close()


@pytest.fixture
def own_pool() -> Iterator[VerifierPool]:
    """A test's own, whose processes it may kill."""
    pool = VerifierPool(2)
    yield pool
    pool.close()


def processes(pool: VerifierPool) -> list[subprocess.Popen[bytes]]:
    return [worker._process for worker in pool._workers]


def test_the_verdict_is_that_of_verify_quote(pool: VerifierPool, case: dict[str, Any]) -> None:
    assert pool.verify(**case) == verify_quote(**case)


def test_refusals_keep_their_kind_and_fields(pool: VerifierPool, case: dict[str, Any]) -> None:
    for changes, kind in (
        ({"quote": case["quote"][:-1]}, EvidenceError),
        ({"quote": b"nothing"}, EvidenceError),
        ({"at": NOW + 10**9}, EvidenceError),
        ({"at": -1}, InputError),
    ):
        with pytest.raises(kind) as here:
            verify_quote(**(case | changes))
        with pytest.raises(kind) as there:
            pool.verify(**(case | changes))
        assert there.value.fields() == here.value.fields()


def test_whatever_else_goes_wrong_is_a_refusal_without_its_values(pool: VerifierPool, case: dict[str, Any]) -> None:
    with pytest.raises(Exception) as caught:
        pool.verify(**(case | {"root": "something secret"}))
    assert caught.value.check == "appraisal.bug"
    assert "secret" not in str(caught.value)
    assert pool.verify(**case)


def test_a_process_that_died_costs_one_request(own_pool: VerifierPool, case: dict[str, Any]) -> None:
    before = processes(own_pool)
    for process in before:
        process.kill()
        process.wait()
    outcomes = []
    for _ in range(4):
        try:
            outcomes.append(own_pool.verify(**case) is not None)
        except UnreachableError as error:
            outcomes.append(error.check)
    # The one that is asked next is the one that was put back last.
    assert outcomes == ["appraisal.worker", True, True, True]
    assert len(processes(own_pool)) == 2
    assert sum(process.poll() is None for process in processes(own_pool)) == 1


def test_a_process_that_hangs_is_killed(case: dict[str, Any], wait_for: Any) -> None:
    pool = VerifierPool(1, patience=20.0)
    try:
        assert pool.verify(**case)
        [hung] = processes(pool)
        os.kill(hung.pid, signal.SIGSTOP)
        pool._patience = 0.2
        with pytest.raises(UnreachableError):
            pool.verify(**case)
        assert hung.poll() == -signal.SIGKILL
        pool._patience = 20.0
        assert pool.verify(**case)
    finally:
        pool.close()


def test_the_verdict_of_one_quote_is_never_given_for_another(
    vendor: SimulatedVendor, case: dict[str, Any], sound_report: Callable[..., SgxReport]
) -> None:
    class GaveUpError(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise GaveUpError

    def interrupted() -> None:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        pool.verify(**case)

    pool = VerifierPool(1)
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        assert pool.verify(**case)
        [process] = processes(pool)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(GaveUpError):
            interrupted()
        # Whoever asked is gone, and the process has the quote: the next who asks must not get its verdict.
        process.send_signal(signal.SIGCONT)
        quote = make_quote(vendor, sound_report(vendor, report_data=b"\x07" * 64))
        assert pool.verify(**(case | {"quote": quote})).report.report_data == b"\x07" * 64
    finally:
        signal.signal(signal.SIGUSR1, before)
        pool.close()


def test_a_process_that_hangs_over_more_than_the_pipe_holds_is_killed(case: dict[str, Any]) -> None:
    pool = VerifierPool(1)
    try:
        assert pool.verify(**case)
        [hung] = processes(pool)
        os.kill(hung.pid, signal.SIGSTOP)
        pool._patience = 0.2
        # More than it would take in while it stands still: writing waited for ever, and a thread of the server with it.
        with pytest.raises(UnreachableError) as caught:
            pool.verify(**(case | {"quote": bytes(4_000_000)}))
        assert caught.value.check == "appraisal.worker"
        assert hung.poll() == -signal.SIGKILL
    finally:
        pool.close()


def test_threads_share_it(pool: VerifierPool, case: dict[str, Any]) -> None:
    results: list[Any] = []

    def ask() -> None:
        for _ in range(5):
            results.append(pool.verify(**case).report)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == 30
    assert all(isinstance(result, SgxReport) for result in results)


def test_it_ends_with_the_process_that_began_it(wait_for: Any) -> None:
    parent = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "from ensconce.appraisal.pool import VerifierPool\n"
            "pool = VerifierPool(1)\n"
            "print(pool._workers[0]._process.pid, flush=True)\n"
            "input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()

    def gone() -> bool:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return True
        with open(f"/proc/{worker}/stat") as stat:  # noqa: PTH123
            return stat.read().rpartition(")")[2].split()[0] == "Z"

    wait_for(gone, "the worker's end")
