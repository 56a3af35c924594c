"""Code that must not be interrupted in the middle."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from prefect_lite import thread_starts
from prefect_lite.interrupts import PERMITS, Permits, RunInterrupted
from tests.tools.waiting import wait_until


def interrupted_by(permits: Permits, work: object) -> None:
    thread = threading.Thread(target=permits.interrupt, args=(work,))
    thread.start()
    thread.join()


def busy() -> None:
    while True:
        pass


def endless(permits: Permits, function: Any) -> None:
    while True:
        permits.uninterrupted(function)


def test_an_interruption_waits_for_what_must_be_done_as_a_whole() -> None:
    permits = Permits()
    seen: list[str] = []

    def whole() -> None:
        interrupted_by(permits, "work")
        permits.uninterrupted(lambda: seen.append("inside"))  # one inside the other
        seen.append("done")

    permits.grant("work")
    try:
        with pytest.raises(RunInterrupted):
            endless(permits, whole)
    finally:
        assert permits.withdraw("work")
    assert seen == ["inside", "done"]
    wait_until(lambda: not permits._due)
    assert not permits._held


def test_work_that_begins_inside_may_be_interrupted() -> None:
    permits = Permits()

    def whole() -> str:
        permits.grant("inner")
        try:
            interrupted_by(permits, "inner")
            busy()
        except RunInterrupted:
            return "interrupted" if permits.withdraw("inner") else ""
        return ""

    permits.grant("outer")
    assert permits.uninterrupted(whole) == "interrupted"
    assert not permits.withdraw("outer")


def test_code_that_is_nearly_always_inside_is_found_all_the_same() -> None:
    permits = Permits()
    permits.grant("work")
    thread: Any = None

    def whole() -> None:
        nonlocal thread
        if thread is None:
            thread = threading.Thread(target=permits.interrupt, args=("work",))
            thread.start()
        sum(range(2_000))
        nonlocal rounds
        rounds += 1

    rounds = 0
    try:
        with pytest.raises(RunInterrupted):
            endless(permits, whole)
    finally:
        thread.join()
        assert permits.withdraw("work")
    assert rounds < 2_000


def test_what_is_raised_inside_comes_out_and_nothing_is_held_afterwards() -> None:
    permits = Permits()
    permits.grant("work")
    with pytest.raises(ZeroDivisionError):
        permits.uninterrupted(lambda: 1 / 0)
    assert not permits._held
    permits.withdraw("work")


def test_threads_are_started_as_a_whole() -> None:
    started = threading.Event()
    thread = threading.Thread(target=started.set)
    held: list[Any] = []
    start, thread.start = thread.start, lambda: (held.append(dict(PERMITS._held)), start())  # type: ignore[method-assign]
    PERMITS.grant("work")
    try:
        thread_starts.start(thread)
    finally:
        PERMITS.withdraw("work")
    thread.join()
    assert started.is_set()
    assert held == [{threading.get_ident(): frozenset({"work"})}]
