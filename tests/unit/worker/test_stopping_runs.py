"""Timeouts, cancellation and lost leases, with code that lets go and code that does not."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from typing import Any

import pytest
from scripted_broker import wait_until

from prefect_lite import task
from prefect_lite.context import TaskRunContext
from prefect_lite.exceptions import CancelledRun, TaskRunTimeoutError

release = threading.Event()
seen: list[str] = []


@pytest.fixture(autouse=True)
def _let_go(serve: Any) -> Any:
    """Before the worker is stopped, which waits for its loop."""
    release.clear()
    seen.clear()
    yield
    release.set()


@task(key="s.spin")
def spin() -> None:
    try:
        while not release.is_set():
            pass
    finally:
        seen.append("spin ended")


@task(key="s.blocked")
def blocked() -> None:
    release.wait(20)
    seen.append("blocked ended")


@task(key="s.stubborn")
def stubborn() -> None:
    while not release.is_set():
        try:
            while not release.is_set():
                pass
        except BaseException:
            seen.append("swallowed")


@task(key="s.sleeps")
async def sleeps() -> None:
    await asyncio.sleep(20)


@task(key="s.swallows")
async def swallows() -> None:
    while not release.is_set():
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            seen.append("swallowed")


@task(key="s.blocks")
async def blocks() -> None:
    release.wait(20)


@task(key="s.quick")
def quick() -> str:
    return "quick"


@task(key="s.aquick")
async def aquick() -> str:
    return "aquick"


EVERY = (spin, blocked, stubborn, sleeps, swallows, blocks)


@pytest.mark.parametrize("slow", EVERY, ids=lambda value: value.name)
def test_every_kind_of_code_ends_at_its_timeout(slow: Any, broker: Any, serve: Any) -> None:
    serve(slow, quick, aquick, limit=1, max_stray_threads=100)
    began = time.monotonic()
    run_id = broker.push(slow.key, options={"timeout_seconds": 0.2})
    with pytest.raises(TaskRunTimeoutError, match=r"exceeded timeout of 0.2 second"):
        broker.outcome(run_id)
    took = time.monotonic() - began
    assert 0.2 <= took < 1.5
    assert broker.finished[run_id].name == "TimedOut"
    # The slot is free, and the interruption hits nothing else.
    assert broker.outcome(broker.push("s.quick")) == "quick"
    assert broker.outcome(broker.push("s.aquick")) == "aquick"


@pytest.mark.parametrize("slow", EVERY, ids=lambda value: value.name)
def test_every_kind_of_code_ends_when_cancelled(slow: Any, broker: Any, serve: Any) -> None:
    serve(slow, quick, aquick, limit=2, max_stray_threads=100)
    run_id = broker.push(slow.key)
    broker.wait_running(run_id)
    broker.cancel(run_id)
    with pytest.raises(CancelledRun, match="was cancelled while it ran"):
        broker.outcome(run_id)
    assert broker.finished[run_id].type == "CANCELLED"
    assert broker.outcome(broker.push("s.quick")) == "quick"
    assert broker.outcome(broker.push("s.aquick")) == "aquick"


def test_a_run_that_waits_for_a_blocked_loop_moves_on(broker: Any, serve: Any) -> None:
    serve(blocks, aquick, limit=5)
    stuck = broker.push("s.blocks", options={"timeout_seconds": 0.2})
    broker.wait_running(stuck)
    waiting = [broker.push("s.aquick") for _ in range(3)]
    for run_id in waiting:
        assert broker.outcome(run_id) == "aquick"
    assert broker.end(stuck).name == "TimedOut"


def test_a_run_that_has_not_started_is_cancelled_at_once(broker: Any, serve: Any) -> None:
    serve(blocks, aquick, limit=5)
    stuck = broker.push("s.blocks")
    broker.wait_running(stuck)
    waiting = broker.push("s.aquick")
    wait_until(lambda: not broker._waiting)
    broker.cancel(waiting)
    assert broker.end(waiting).message == "aquick was cancelled before it started."
    release.set()
    assert broker.outcome(stuck) is None


def test_a_timed_out_attempt_is_retried(broker: Any, serve: Any) -> None:
    serve(spin)
    run_id = broker.push("s.spin", options={"timeout_seconds": 0.1, "retries": 1, "retry_delay_seconds": 3})
    wait_until(lambda: run_id in broker.retried)
    assert broker.retried[run_id].attempt == 2
    assert seen == ["spin ended"]


def test_a_revoked_run_is_stopped_and_reports_nothing(broker: Any, serve: Any) -> None:
    serve(spin, sleeps, quick, limit=2)
    runs = [broker.push("s.spin"), broker.push("s.sleeps")]
    for run_id in runs:
        broker.wait_running(run_id)
        broker.revoke(run_id)
    wait_until(lambda: seen == ["spin ended"])
    assert [broker.outcome(broker.push("s.quick")) for _ in range(4)] == ["quick"] * 4
    assert not set(runs) & set(broker.finished)


def test_a_task_may_be_cancelled_as_soon_as_it_arrives(broker: Any, serve: Any) -> None:
    serve(sleeps, spin, limit=50)
    for _ in range(10):  # more that spin at once leave no time for the worker's own connection
        runs = [broker.push(key) for key in ("s.sleeps", "s.spin", "s.sleeps")]
        wait_until(lambda: not broker._waiting)
        for run_id in runs:
            broker.cancel(run_id)
        assert {broker.end(run_id).name for run_id in runs} == {"Cancelled"}


def test_timeouts_at_the_very_end_never_hit_the_next_run(broker: Any, serve: Any) -> None:
    @task(key="s.edge")
    def edge(seconds: float) -> str:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        return "edge"

    serve(edge, quick, limit=1)
    runs = []
    for number in range(60):
        seconds = 0.01 + number % 7 * 0.0005
        runs.append(broker.push("s.edge", seconds, options={"timeout_seconds": 0.0115}))
        assert broker.outcome(broker.push("s.quick")) == "quick"
    names = {broker.end(run_id).name for run_id in runs}
    assert names <= {"Completed", "TimedOut"}


ONCE_MORE = {"timeout_seconds": 0.1, "retries": 1, "retry_delay_seconds": 3}


@pytest.mark.parametrize("slow", EVERY, ids=lambda value: value.name)
def test_every_kind_of_code_is_retried_after_its_timeout(slow: Any, broker: Any, serve: Any) -> None:
    serve(slow, max_stray_threads=100)
    run_id = broker.push(slow.key, options=ONCE_MORE)
    wait_until(lambda: run_id in broker.retried)
    retry = broker.retried[run_id]
    assert (retry.attempt, retry.after_seconds) == (2, 3)
    assert "exceeded timeout of 0.1 second" in retry.message
    last = broker.push(slow.key, options=ONCE_MORE, attempt=2)
    assert (broker.end(last).name, broker.end(last).attempt) == ("TimedOut", 2)


@pytest.mark.parametrize("agrees", [True, False])
def test_the_condition_of_a_stuck_run_is_asked_in_a_thread_of_its_own(
    agrees: bool, broker: Any, serve: Any
) -> None:
    asked = threading.Event()
    answer = threading.Event()

    async def condition(_task: Any, run: Any, state: Any) -> bool:
        assert (run.run_count, state.name) == (1, "TimedOut")
        asked.set()
        await asyncio.to_thread(answer.wait, 10)
        return agrees

    @task(key="s.asks", timeout_seconds=0.1, retries=1, retry_delay_seconds=1, retry_condition_fn=condition)
    def asks() -> None:
        release.wait(20)

    serve(asks, quick, limit=2)
    run_id = broker.push("s.asks")
    assert asked.wait(10)
    assert broker.outcome(broker.push("s.quick")) == "quick", "the connection goes on"
    answer.set()
    wait_until(lambda: run_id in (broker.retried if agrees else broker.finished))


@pytest.mark.parametrize("isasync", [False, True])
def test_a_hook_may_take_longer_than_the_timeout(isasync: bool, broker: Any, serve: Any) -> None:
    hooked = threading.Event()

    def slow_hook(*_: object) -> None:
        hooked.set()
        release.wait(20)

    async def slow_ahook(*_: object) -> None:
        hooked.set()
        await asyncio.to_thread(release.wait, 20)

    def body() -> str:
        return "in time"

    async def abody() -> str:
        return "in time"

    decorate = task(key="s.hooked", timeout_seconds=0.2, on_completion=[slow_ahook if isasync else slow_hook])
    served = serve(decorate(abody if isasync else body))
    run_id = broker.push("s.hooked")
    assert hooked.wait(10)
    broker.wait_running(run_id)
    stops = served.app._parts.work.stops
    wait_until(lambda: len(stops.deadlines) == 0)  # the timeout has come and gone
    release.set()
    assert broker.outcome(run_id) == "in time"
    assert stops.stuck == 0


def test_a_loop_that_was_blocked_for_a_while_is_used_again(broker: Any, serve: Any) -> None:
    served = serve(blocks, aquick, limit=5)
    loops = served.app._parts.loops
    for _ in range(3):
        release.clear()
        run_id = broker.push("s.blocks", options={"timeout_seconds": 0.1})
        assert broker.end(run_id).name == "TimedOut"
        wait_until(lambda: loops.stuck == 1)
        assert broker.outcome(broker.push("s.aquick")) == "aquick"
        release.set()
        wait_until(lambda: loops.stuck == 0)
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("prefect-lite-loop")]
    assert len(names) == 1


def test_an_ended_run_keeps_nothing_alive(broker: Any, serve: Any) -> None:
    class Argument:
        pass

    kept: list[weakref.ref[Argument]] = []

    @task(key="s.keeps", timeout_seconds=1_000)
    async def keeps(number: int) -> None:
        argument = Argument()
        kept.append(weakref.ref(argument))
        context = TaskRunContext.get()
        assert context is not None
        context.kwargs["argument"] = argument
        await asyncio.sleep(0.02 * number)

    serve(keeps)
    run_id = broker.push("s.keeps", 1)
    broker.wait_running(run_id)  # its deadline is in the heap
    broker.end(run_id)
    wait_until(lambda: gc.collect() is not None and kept[0]() is None)
