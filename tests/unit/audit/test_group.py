from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from ensconce.audit.group import GroupCommit
from ensconce.errors import InputError


def group(commit: Callable[[Sequence[int]], Sequence[int]]) -> GroupCommit[int, int]:
    return GroupCommit[int, int](commit, most=4, heaviest=100)


def test_one_thread_commits_its_own_at_once() -> None:
    batches: list[list[int]] = []

    def commit(items: Sequence[int]) -> Sequence[int]:
        batches.append(list(items))
        return [item * 10 for item in items]

    assert group(commit).submit([(1, 1), (2, 1)]) == [10, 20]
    assert batches == [[1, 2]]


def test_batches_are_bounded_in_number_and_weight() -> None:
    batches: list[list[int]] = []

    def commit(items: Sequence[int]) -> Sequence[int]:
        batches.append(list(items))
        return items

    assert group(commit).submit([(n, 1) for n in range(6)]) == list(range(6))
    assert group(commit).submit([(1, 60), (2, 60), (3, 500), (4, 1)]) == [1, 2, 3, 4]
    assert batches == [[0, 1, 2, 3], [4, 5], [1], [2], [3], [4]]


def test_who_comes_meanwhile_shares_the_next_batch(wait_for: Callable[[Callable[[], object], str], None]) -> None:
    first, go = threading.Event(), threading.Event()
    batches: list[list[int]] = []

    def commit(items: Sequence[int]) -> Sequence[int]:
        if not batches:
            batches.append(list(items))
            first.set()
            assert go.wait(30)
        else:
            batches.append(list(items))
        return [item * 10 for item in items]

    shared = group(commit)
    results: dict[int, list[int]] = {}

    def submit(n: int) -> None:
        results[n] = shared.submit([(n, 1)])

    threads = [threading.Thread(target=submit, args=(n,)) for n in range(4)]
    threads[0].start()
    assert first.wait(30)
    for thread in threads[1:]:
        thread.start()
    wait_for(lambda: len(shared._queue) == 3, "the others to queue")
    go.set()
    for thread in threads:
        thread.join(30)
    assert batches[0] == [0]
    assert sorted(batches[1]) == [1, 2, 3]
    assert results == {n: [n * 10] for n in range(4)}


def test_a_failure_is_every_submitters_and_no_later_ones() -> None:
    fail = True

    def commit(items: Sequence[int]) -> Sequence[int]:
        if fail:
            raise InputError("audit.write", "full")
        return items

    shared = group(commit)
    with pytest.raises(InputError, match=r"audit\.write"):
        shared.submit([(1, 1), (2, 1)])
    fail = False
    assert shared.submit([(3, 1)]) == [3]


def test_an_interrupt_ends_its_thread_and_leaves_the_group_working() -> None:
    calls: list[int] = []

    def commit(items: Sequence[int]) -> Sequence[int]:
        calls.extend(items)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return items

    shared = group(commit)
    with pytest.raises(KeyboardInterrupt):
        shared.submit([(1, 1)])
    assert shared.submit([(2, 1)]) == [2]


def test_a_defect_is_not_taken_for_success() -> None:
    def commit(items: Sequence[int]) -> Sequence[int]:
        return []

    with pytest.raises(RuntimeError):
        group(commit).submit([(1, 1)])
