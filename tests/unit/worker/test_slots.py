"""Runs that wait for other runs lend their slot, once each and never for longer than they live."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import Any

import pytest
from scripted_broker import wait_until

from prefect_lite import task
from prefect_lite.client.latch import Latch
from prefect_lite.context import TaskRunContext
from prefect_lite.logging import get_run_logger
from prefect_lite.waiting import next_ended

go = threading.Event()


@pytest.fixture(autouse=True)
def _closed() -> Any:
    go.clear()
    yield
    go.set()


def lend(waits: int) -> None:
    context = TaskRunContext.get()
    assert context is not None
    assert context.slot is not None
    context.slot(waits)


@task(key="l.inner")
def inner() -> None:
    """What a future's ``result()`` does, in a task that was called directly."""
    lend(1)
    assert go.wait(10)
    lend(-1)
    get_run_logger().info("said by the inner one")


@task(key="l.outer")
def outer() -> str:
    inner()
    return "outer"


@task(key="l.gathers")
async def gathers() -> str:
    for _ in range(5):
        lend(1)
    await asyncio.to_thread(go.wait, 10)
    for _ in range(5):
        lend(-1)
    return "gathered"


@task(key="l.waits")
def waits() -> None:
    """Waits for a run that never ends."""
    lend(1)
    Latch().wait()


@task(key="l.gives")
def gives() -> None:
    """Goes over futures as they end, of which none does."""
    next_ended(queue.SimpleQueue(), None)


@task(key="l.patient")
def patient() -> str:
    """The same, with a timeout of its own."""
    try:
        next_ended(queue.SimpleQueue(), 0.15)
    except queue.Empty:
        return "nothing came"
    return "something came"


@task(key="l.quick")
def quick() -> str:
    go.set()
    return "quick"


@task(key="l.still")
def still() -> None:
    go.wait(10)


def leases(served: Any) -> Any:
    return served.app._parts.leases


def test_a_task_called_by_a_run_lends_the_runs_slot_and_writes_to_its_log(broker: Any, serve: Any) -> None:
    serve(outer, quick, limit=1)
    run_id = broker.push("l.outer")
    broker.wait_running(run_id)
    assert broker.outcome(broker.push("l.quick")) == "quick"
    assert broker.outcome(run_id) == "outer"
    lines = [line[3] for log in broker.logs if log.run_id == run_id for line in log.lines]
    assert any("said by the inner one" in line for line in lines)


def test_one_run_lends_one_slot(broker: Any, serve: Any) -> None:
    served = serve(gathers, still, limit=2)
    run_id = broker.push("l.gathers")
    wait_until(lambda: leases(served).lent == 1)
    runs = [broker.push("l.still") for _ in range(4)]
    wait_until(lambda: len(leases(served).active) == 3)
    assert leases(served).free == 0
    assert served.app._parts.pool.limit == 3
    go.set()
    assert broker.outcome(run_id) == "gathered"
    for each in runs:
        broker.end(each)
    wait_until(lambda: leases(served).lent == 0)


def test_a_run_that_is_stopped_while_it_waits_lets_go_and_lends_no_more(broker: Any, serve: Any) -> None:
    served = serve(waits, quick, limit=1)
    run_id = broker.push("l.waits", options={"timeout_seconds": 0.2})
    assert broker.end(run_id).name == "TimedOut"
    wait_until(lambda: leases(served).lent == 0)
    assert served.app._parts.work.stops.stuck == 0, "its thread could be interrupted"
    assert broker.outcome(broker.push("l.quick")) == "quick"
    assert leases(served).limit == served.app._parts.pool.limit == 1


@pytest.mark.parametrize("how", ["timeout", "cancel", "revoke"])
def test_a_run_is_stopped_while_it_waits_for_the_next_to_end(broker: Any, serve: Any, how: str) -> None:
    served = serve(gives, quick, limit=1)
    run_id = broker.push("l.gives", options={"timeout_seconds": 0.2} if how == "timeout" else None)
    wait_until(lambda: leases(served).lent == 1 or run_id in broker.finished)
    if how == "revoke":
        broker.revoke(run_id)
    else:
        if how == "cancel":
            broker.cancel(run_id)
        assert broker.end(run_id).name == ("TimedOut" if how == "timeout" else "Cancelled")
    wait_until(lambda: not leases(served).active and leases(served).lent == 0)
    assert served.app._parts.work.stops.stuck == 0, "its thread could be interrupted"
    assert broker.outcome(broker.push("l.quick")) == "quick"
    assert served.app._parts.pool.limit == 1


def test_waiting_for_the_next_to_end_has_its_own_timeout(broker: Any, serve: Any) -> None:
    served = serve(patient, limit=1)
    assert broker.outcome(broker.push("l.patient")) == "nothing came"
    wait_until(lambda: leases(served).lent == 0)


def test_what_a_stuck_run_has_lent_is_taken_back(broker: Any, serve: Any) -> None:
    served = serve(inner, limit=2)
    run_id = broker.push("l.inner", options={"timeout_seconds": 0.1})
    assert broker.end(run_id).name == "TimedOut"
    wait_until(lambda: leases(served).lent == 0)
    go.set()
    wait_until(lambda: not served.app._parts.pool.strays)
    assert leases(served).lent == 0, "the late return changes nothing"
