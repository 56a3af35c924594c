"""Eager mode: the whole way of a run, without a broker."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from prefect_lite import allow_failure, as_completed, clock, get_run_logger, task, wait
from prefect_lite.batch import batch
from prefect_lite.client.orchestration import get_client
from prefect_lite.client.runtime import Runtime, get_runtime
from prefect_lite.context import FlowRunContext, TaskRunContext
from prefect_lite.exceptions import (
    ConfigurationError,
    IdempotencyConflict,
    ObjectNotFound,
    ParameterBindError,
    RunExpired,
    SerializationError,
    UpstreamFailedRun,
)
from prefect_lite.flows import flow
from prefect_lite.futures import PrefectDistributedFuture
from prefect_lite.tagging import tags
from prefect_lite.testing import eager, frozen_clock


@pytest.fixture(autouse=True)
def eagerly() -> Iterator[None]:
    with eager():
        yield


@task
def add(a: Any, b: Any = 1) -> Any:
    return a + b


@task
async def async_add(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


@task
def fail(text: str = "boom") -> None:
    raise ValueError(text)


@task
def describe_error(error: Any) -> str:
    return repr(error)


def test_a_run_has_ended_when_delay_returns() -> None:
    future = add.delay(1, 2)
    assert isinstance(future, PrefectDistributedFuture)
    future.wait(timeout=0)
    assert future.done
    assert future.result() == 3
    assert future.state.is_completed()
    assert future.state.result() == 3


def test_apply_async_and_map() -> None:
    assert add.apply_async((1,), {"b": 5}).result() == 6
    futures = add.map([1, 2, 3], 10, deferred=True)
    assert futures.result() == [11, 12, 13]
    states = add.map([1, 2], 10, deferred=True, return_state=True)
    assert [state.result() for state in states] == [11, 12]


def test_a_future_made_from_its_id_knows_the_run() -> None:
    future = add.delay(1, 2)
    assert PrefectDistributedFuture(future.task_run_id).result() == 3
    with pytest.raises(RunExpired):
        PrefectDistributedFuture(uuid4()).result()


def test_coroutines() -> None:
    assert async_add.delay(1, 2).result() == 3

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        loops: list[Any] = []

        @task
        async def where() -> None:
            loops.append(asyncio.get_running_loop())

        await where.adelay()
        assert loops == [loop]
        return [
            await async_add.delay(1, 2),
            await (await async_add.adelay(3, 4)),
            await (await add.adelay(5, 6)),
            async_add.delay(7, 8).result(),
        ]

    assert asyncio.run(main()) == [3, 7, 11, 15]


def test_a_plain_function_does_not_block_the_loop_under_adelay() -> None:
    @task
    def where() -> str:
        return threading.current_thread().name

    async def main() -> str:
        return await (await where.adelay())

    assert asyncio.run(main()) != threading.current_thread().name


def test_failures() -> None:
    future = fail.delay("broken")
    assert future.state.name == "Failed"
    assert "broken" in (future.state.message or "")
    with pytest.raises(ValueError, match="broken"):
        future.result()
    assert isinstance(future.result(raise_on_failure=False), ValueError)


def test_leaving_the_program_ends_the_run_only() -> None:
    @task
    def leave() -> None:
        raise SystemExit(3)

    assert leave.delay().state.is_crashed()


def test_futures_as_arguments() -> None:
    assert add.delay(add.delay(1, 2), add.delay(3, 4)).result() == 10
    assert add.delay([add.delay(1, 2)], [9]).result() == [3, 9]
    assert "boom" in describe_error.delay(allow_failure(fail.delay())).result()


def test_upstream_failures() -> None:
    future = add.delay(fail.delay("first"))
    assert future.state.name == "UpstreamFailed"
    assert "first" in (future.state.message or "")
    with pytest.raises(UpstreamFailedRun):
        future.result()
    later = add.apply_async((1, 2), wait_for=[fail.delay()])
    assert later.state.name == "UpstreamFailed"
    unknown = add.apply_async((1, 2), wait_for=[PrefectDistributedFuture(uuid4())])
    assert unknown.state.name == "UpstreamFailed"
    assert "unknown" in (unknown.state.message or "")
    assert add.apply_async((1, 2), wait_for=[allow_failure(fail.delay())]).result() == 3


def test_what_cannot_be_sent_is_found() -> None:
    @task
    def give_a_lock() -> Any:
        return threading.Lock()

    with pytest.raises(SerializationError, match="Argument 'a'"):
        add.delay(threading.Lock())
    state = give_a_lock.delay().state
    assert state.is_failed()
    assert "can't be serialized" in (state.message or "")
    with pytest.raises(ParameterBindError):
        add.delay(1, 2, 3)


def test_arguments_are_copies() -> None:
    @task
    def spoil(items: list[int]) -> list[int]:
        items.append(4)
        return items

    mine = [1, 2, 3]
    assert spoil.delay(mine).result() == [1, 2, 3, 4]
    assert mine == [1, 2, 3]


def test_waiting_for_several() -> None:
    futures = [add.delay(n) for n in range(3)]
    done, not_done = wait(futures, timeout=0)
    assert done == set(futures)
    assert not not_done
    assert {future.result() for future in as_completed(futures, timeout=0)} == {1, 2, 3}
    ended: list[Any] = []
    futures[0].add_done_callback(ended.append)
    futures[0].result()
    futures[0].add_done_callback(ended.append)
    assert ended
    assert not futures[0].cancel()


def test_ids_and_idempotency() -> None:
    calls: list[int] = []

    @task
    def count(n: int) -> int:
        calls.append(n)
        return n

    run_id = uuid4()
    assert count.apply_async((1,), run_id=run_id).task_run_id == run_id
    assert count.apply_async((1,), run_id=run_id).result() == 1
    first = count.apply_async((2,), idempotency_key="k")
    second = count.apply_async((2,), idempotency_key="k")
    assert first.task_run_id == second.task_run_id
    assert second.result() == 2
    with pytest.raises(IdempotencyConflict):
        count.apply_async((3,), idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        count.apply_async((3,), run_id=run_id)
    assert calls == [1, 2]
    assert count.apply_async((4,), idempotency_key="other").result() == 4


def test_an_idempotent_run_that_is_waited_for() -> None:
    """Who waits for runs one by one has their ends asked for with the SUBMIT."""
    for n in range(3):
        assert add.apply_async((1,), idempotency_key="same").result() == 2
        assert add.delay(n).result() == n + 1


def test_conditions_on_time_are_checked_and_ignored() -> None:
    began = time.monotonic()
    assert add.apply_async((1,), countdown=3600).result() == 2
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert add.apply_async((1,), eta=tomorrow, expires=10, priority=9).result() == 2
    with pytest.raises(ConfigurationError):
        add.apply_async((1,), countdown=-1)
    assert time.monotonic() - began < 30


def test_retries_take_no_time() -> None:
    attempts: list[float] = []

    @task(retries=2, retry_delay_seconds=3600)
    def flaky() -> int:
        attempts.append(clock.monotonic())
        if len(attempts) < 3:
            raise ValueError("again")
        return len(attempts)

    future = flaky.delay()
    assert future.result() == 3
    assert future.state.state_details.attempt == 3
    assert attempts[2] - attempts[0] >= 7200


def test_retry_delays_are_noted_by_a_clock_that_stands_still() -> None:
    with frozen_clock() as frozen, eager():
        assert fail.with_options(retries=2, retry_delay_seconds=[60, 600]).delay().state.is_failed()
        assert frozen.slept == [60, 600]


def test_a_run_outlives_its_cancelled_caller() -> None:
    ended: list[str] = []

    async def main() -> None:
        loop, release = asyncio.get_running_loop(), asyncio.Event()
        wait_for_thread = threading.Event()

        @task
        async def coroutine() -> None:
            began.set_result(None)
            await release.wait()
            ended.append("coroutine")

        @task
        def function() -> None:
            loop.call_soon_threadsafe(began.set_result, None)
            wait_for_thread.wait(20)
            ended.append("function")

        run_ids = [uuid4(), uuid4()]
        for each, run_id in zip((coroutine, function), run_ids, strict=True):
            began: asyncio.Future[None] = loop.create_future()
            caller = asyncio.create_task(each.aapply_async(run_id=run_id))
            await began
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
        assert not ended
        release.set()
        wait_for_thread.set()
        for run_id in run_ids:
            future: Any = PrefectDistributedFuture(run_id)
            await future
            assert future.state.is_completed(), future.state

    asyncio.run(main())
    assert sorted(ended) == ["coroutine", "function"]


def test_ctrl_c_ends_the_run_and_what_has_called_it() -> None:
    @task
    def interrupted() -> None:
        signal.raise_signal(signal.SIGINT)

    @task
    async def interrupted_coroutine() -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(20)

    for each in (interrupted, interrupted_coroutine):
        run_id = uuid4()
        with pytest.raises(KeyboardInterrupt):
            each.apply_async(run_id=run_id)
        future: Any = PrefectDistributedFuture(run_id)
        future.wait(timeout=0)
        assert future.state.is_crashed()
    assert add.delay(1).result() == 2


def test_timeouts() -> None:
    @task(timeout_seconds=0.05)
    def slow() -> None:
        while True:
            time.sleep(0.005)

    @task(timeout_seconds=0.05)
    async def slow_coroutine() -> None:
        await asyncio.sleep(60)

    assert slow.delay().state.name == "TimedOut"
    assert slow_coroutine.delay().state.name == "TimedOut"


def test_nested_runs() -> None:
    @task
    def outer(n: int) -> int:
        return add.delay(n).result() + add(n)

    @task
    async def async_outer(n: int) -> int:
        return await async_add.delay(n, 1) + await (await add.adelay(n))

    assert outer.delay(1).result() == 4
    assert async_outer.delay(1).result() == 4


def test_a_run_sees_itself_and_nothing_of_its_caller() -> None:
    mine: contextvars.ContextVar[str] = contextvars.ContextVar("mine", default="nothing")
    seen: list[Any] = []

    @task
    def look() -> None:
        context = TaskRunContext.get()
        assert context is not None
        get_run_logger().info("looking")
        seen.extend((context.task_run.run_id, context.task_run.tags, mine.get(), context.enclosing))

    mine.set("something")
    with tags("blue"):
        future = look.delay()
    assert future.state.is_completed(), future.state
    assert seen[0] == future.task_run_id.hex
    assert seen[1] == {"blue"}
    assert seen[2:] == ["nothing", None]


def test_hooks_and_changed_options() -> None:
    events: list[str] = []

    def ended(_task: Any, _run: Any, state: Any) -> None:
        events.append(state.name)

    @task(on_completion=[ended], on_failure=[ended])
    def work(good: bool) -> None:
        if not good:
            raise ValueError("bad")

    work.delay(True)
    work.delay(False)
    assert events == ["Completed", "Failed"]

    runs: list[int] = []

    @task
    def stubborn() -> None:
        runs.append(1)
        raise ValueError("no")

    stubborn.with_options(retries=2).delay()
    assert len(runs) == 3


def test_runs_inside_a_flow_belong_to_it() -> None:
    @task
    def belongs() -> Any:
        context = TaskRunContext.get()
        assert context is not None
        return context.task_run.flow_run_id

    @flow
    def around() -> tuple[Any, Any]:
        context = FlowRunContext.get()
        assert context is not None
        return context.flow_run.id, belongs.delay().result()

    mine, told = around()
    assert mine == told


def test_methods() -> None:
    class Counter:
        def __init__(self, start: int) -> None:
            self.start = start

        @task
        def plus(self, n: int) -> int:
            return self.start + n

    assert Counter(4).plus.delay(3).result() == 7


def test_batches() -> None:
    with batch():
        futures = [add.delay(n) for n in range(3)]
    assert [future.result() for future in futures] == [1, 2, 3]


def test_the_client_knows_the_runs() -> None:
    @task(retries=1)
    def flaky(seen: list[int]) -> int:
        context = TaskRunContext.get()
        assert context is not None
        if context.task_run.run_count == 1:
            raise ValueError("again")
        return 7

    @task
    def give_a_lock() -> Any:
        return threading.Lock()

    with get_client(sync_client=True) as client:
        future = flaky.delay([])
        run = client.read_task_run(future.task_run_id)
        assert run.state is not None
        assert run.state.result() == 7
        assert run.run_count == 2
        names = [state.name for state in client.read_task_run_states(future.task_run_id)]
        assert names[0] == "Scheduled"
        assert names[-1] == "Completed"
        assert [found.id for found in client.read_task_runs(task_key=flaky.key)] == [future.task_run_id]
        failed = client.read_task_run(give_a_lock.delay().task_run_id)
        assert failed.state_name == "Failed"
        assert failed.states[-1].name == "Failed"
        upstream = client.read_task_run(add.delay(fail.delay()).task_run_id)
        assert upstream.state_name == "UpstreamFailed"
        with pytest.raises(ObjectNotFound):
            client.read_task_run(uuid4())


def test_a_question_that_needs_a_broker_is_refused() -> None:
    answered = get_runtime().ask("stats")
    assert answered.wait(1)
    assert not answered.ok
    assert "eager" in answered.value[1]


def test_the_stand_in_does_what_the_client_does() -> None:
    stand_in = type(get_runtime())
    assert stand_in is not Runtime
    assert [name for name in vars(Runtime) if name[0] != "_" and not hasattr(stand_in, name)] == []


def test_everything_is_put_back() -> None:
    inside, clock_inside = get_runtime(), clock.current()
    with suppress(KeyError), eager():
        assert get_runtime() is not inside
        raise KeyError
    assert get_runtime() is inside
    assert clock.current() is clock_inside
