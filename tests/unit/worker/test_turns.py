"""Shorter turns in the interpreter while long runs are under way."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from prefect_lite_worker.app import WorkerApp
from prefect_lite_worker.turns import TURN_SECONDS, Turns
from scripted_broker import wait_until

from prefect_lite import task

go = threading.Event()


@task(key="turns.waits")
def waits() -> None:
    go.wait(20)


@pytest.fixture(autouse=True)
def usual() -> Iterator[float]:
    seconds = sys.getswitchinterval()
    yield seconds
    sys.setswitchinterval(seconds)


def are_short() -> bool:
    return sys.getswitchinterval() == pytest.approx(TURN_SECONDS)


def test_long_runs_make_turns_short_and_many_small_ones_do_not(usual: float) -> None:
    turns = Turns()
    turns.adapt(100.0, 0)
    assert are_short()
    turns.adapt(100.05, 1)
    assert are_short(), "of 50 ms each"
    turns.adapt(100.1, 50)
    assert sys.getswitchinterval() == usual, "of 1 ms each"
    turns.adapt(100.15, 1)
    assert are_short()
    turns.restore()
    assert sys.getswitchinterval() == usual


def test_shorter_ones_stay_as_they_are() -> None:
    sys.setswitchinterval(TURN_SECONDS / 2)
    turns = Turns()
    turns.adapt(100.0, 0)
    assert sys.getswitchinterval() == pytest.approx(TURN_SECONDS / 2)


def test_a_worker_that_owns_the_process_adapts_them(broker: Any, settings: Any, usual: float) -> None:
    app = WorkerApp([waits], settings=settings)
    seen: list[bool] = []

    def drive() -> None:
        try:
            wait_until(lambda: broker.readies)
            run_id = broker.push("turns.waits")
            wait_until(are_short)
            seen.append(are_short())
            go.set()
            broker.end(run_id)
        finally:
            go.set()
            app.stop("the test is over", grace_seconds=0.0)

    driver = threading.Thread(target=drive)
    driver.start()
    app.serve()
    driver.join(10)
    assert seen == [True]
    assert sys.getswitchinterval() == usual


def test_a_guest_leaves_them_alone(broker: Any, serve: Any, usual: float) -> None:
    go.clear()
    serve(waits)
    run_id = broker.push("turns.waits")
    broker.wait_running(run_id)  # told by a tick, which would have done it
    assert sys.getswitchinterval() == usual
    go.set()
    broker.end(run_id)
