"""The tasks that a process has defined."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from prefect_lite import known_tasks, task


def test_a_defined_task_is_found_by_its_key_and_aliases() -> None:
    @task(key="known.first", aliases=["known.old"])
    def first() -> None: ...

    assert known_tasks.find("known.first") is first
    assert known_tasks.find("known.old") is first
    assert known_tasks.find("known.nothing") is None
    assert first in known_tasks.known()


def test_the_last_definition_counts_and_copies_do_not() -> None:
    def defined() -> Any:
        @task(key="known.again")
        def again() -> None: ...

        return again

    before, after = defined(), defined()
    assert before is not after
    assert known_tasks.find("known.again") is after
    assert after.with_options(retries=3) is not after
    assert known_tasks.find("known.again") is after
    other = after.with_options(key="known.other")
    assert known_tasks.find("known.other") is other


def test_a_task_that_nobody_keeps_is_forgotten() -> None:
    @task(key="known.gone")
    def gone() -> None: ...

    assert known_tasks.find("known.gone") is gone
    del gone
    gc.collect()
    assert known_tasks.find("known.gone") is None
    assert "known.gone" not in known_tasks._known


def test_a_short_lived_definition_does_not_push_out_the_first() -> None:
    @task(key="known.kept")
    def kept() -> None: ...

    assert known_tasks.find("known.kept") is kept
    other: Any = task(key="known.kept")(kept.fn)
    assert known_tasks.find("known.kept") is other
    del other
    gc.collect()
    assert known_tasks.find("known.kept") is kept
    assert [each for each in known_tasks.known() if each.key == "known.kept"] == [kept]


def test_who_listens_is_told() -> None:
    told: list[str] = []

    def listener(defined: Any) -> None:
        told.append(defined.key)

    known_tasks.listen(listener)
    try:

        @task(key="known.told")
        def one() -> None: ...

        one.with_options(retries=1)
    finally:
        known_tasks.stop_listening(listener)

    @task(key="known.untold")
    def two() -> None: ...

    assert told == ["known.told"]


def test_a_definition_in_the_midst_of_which_another_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The garbage collector may run at any moment, in any thread."""

    @task(key="known.midst")
    def first() -> None: ...

    kept: list[Any] = [first]
    del first

    def forget_first(*args: Any) -> Any:
        kept.clear()
        gc.collect()
        return weakref.ref(*args)

    monkeypatch.setattr(known_tasks, "ref", forget_first)

    @task(key="known.midst")
    def second() -> None: ...

    assert known_tasks.find("known.midst") is second
    assert len(known_tasks._known["known.midst"]) == 1


def test_tasks_that_are_defined_and_forgotten_in_many_threads() -> None:
    def define(n: int) -> list[Any]:
        kept: list[Any] = []
        for turn in range(100):
            defined: Any = task(key="known.crowd")(lambda: None)
            if turn == n:
                kept.append(defined)
        return kept

    with ThreadPoolExecutor(4) as pool:
        kept = [*pool.map(define, range(4))]
    gc.collect()
    assert len(known_tasks._known["known.crowd"]) == len(kept) == 4
