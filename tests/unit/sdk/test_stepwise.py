"""Generator functions as tasks, called here: what they yield comes one by one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest

from prefect_lite import Task, task
from prefect_lite.context import TaskRun, TaskRunContext
from prefect_lite.exceptions import TaskRunTimeoutError, UpstreamFailedRun
from prefect_lite.states import Failed


def current_run() -> TaskRun:
    context = TaskRunContext.get()
    assert context is not None
    return context.task_run


def everything(made: Any) -> list[Any]:
    """All that a generator task yields."""

    async def collect() -> list[Any]:
        return [item async for item in made()]

    return asyncio.run(collect()) if made.isasync else list(made())


def test_items_come_one_by_one_and_the_run_is_current_in_each_step() -> None:
    seen: list[int] = []

    @task
    def count(n: int) -> Generator[str]:
        for number in range(n):
            seen.append(number)
            yield current_run().run_id

    steps = count(3)
    assert seen == []
    first = next(steps)
    assert seen == [0]
    assert TaskRunContext.get() is None, "what runs between the steps is no part of the run"
    assert [*steps] == [first, first]


def test_values_and_exceptions_can_be_sent_in_and_the_return_value_comes_out() -> None:
    @task
    def echo() -> Generator[Any, Any, str]:
        got: Any = None
        while got != "end":
            try:
                got = yield got
            except KeyError as exc:
                got = str(exc)
        return "done"

    steps = echo()
    assert next(steps) is None
    assert steps.send(5) == 5
    assert steps.throw(KeyError("x")) == "'x'"
    with pytest.raises(StopIteration) as caught:
        steps.send("end")
    assert caught.value.value == "done"


def test_an_attempt_that_fails_is_repeated_from_the_start() -> None:
    runs: list[TaskRun] = []

    @task(retries=1)
    def fails_once() -> Generator[int]:
        run = current_run()
        runs.append(run)
        yield run.run_count
        if run.run_count == 1:
            raise ValueError("once")
        yield 9

    assert list(fails_once()) == [1, 2, 9]
    assert [state.name for state in runs[0].states] == ["Pending", "Running", "Retrying", "Completed"]


def test_the_last_failure_is_raised_and_hooks_are_told() -> None:
    told: list[str] = []

    @task(on_running=[lambda *_: told.append("running")], on_failure=[lambda *_: told.append("failed")])
    def fails() -> Generator[int]:
        yield 1
        raise ValueError("mine")

    steps = fails()
    assert next(steps) == 1
    with pytest.raises(ValueError, match="mine"):
        next(steps)
    assert told == ["running", "failed"]


def test_a_caller_that_has_enough_ends_the_run() -> None:
    runs: list[TaskRun] = []
    closed: list[bool] = []
    told: list[str] = []

    @task(on_completion=[lambda _task, _run, state: told.append(state.message)])
    def endless() -> Generator[int]:
        runs.append(current_run())
        try:
            while True:
                yield 1
        finally:
            closed.append(current_run() is runs[0])

    steps = endless()
    next(steps)
    steps.close()
    assert closed == [True]
    assert runs[0].state_name == "Completed"
    assert told == ["Its caller has closed it."]
    assert TaskRunContext.get() is None


def test_one_that_fails_when_it_is_closed_has_failed() -> None:
    told: list[str] = []

    @task(retries=3, on_failure=[lambda _task, _run, state: told.append(state.name)])
    def fails() -> Generator[int]:
        try:
            yield 1
        finally:
            raise ValueError("in the end")

    steps = fails()
    next(steps)
    with pytest.raises(ValueError, match="in the end"):
        steps.close()
    assert told == ["Failed"]


@pytest.mark.parametrize("isasync", [False, True])
def test_it_has_its_name_from_the_first_step_on(isasync: bool) -> None:
    def name() -> Generator[str]:
        yield current_run().name

    async def aname() -> AsyncGenerator[str]:
        yield current_run().name

    assert everything(Task(aname if isasync else name, task_run_name="mine")) == ["mine"]


@pytest.mark.parametrize("isasync", [False, True])
def test_one_that_can_not_be_named_fails_before_the_first_step(isasync: bool) -> None:
    told: list[str] = []

    def never() -> Generator[str]:
        told.append("ran")
        yield ""

    async def anever() -> AsyncGenerator[str]:
        told.append("ran")
        yield ""

    made = Task(
        anever if isasync else never,
        task_run_name="{nothing}",
        retries=1,
        on_failure=[lambda _task, _run, state: told.append(state.name)],
    )
    with pytest.raises(KeyError, match="nothing"):
        everything(made)
    assert told == ["Failed"]


def test_one_that_goes_on_after_its_timeout_is_closed() -> None:
    told: list[str] = []

    @task(timeout_seconds=0.02)
    async def stubborn() -> AsyncGenerator[int]:
        try:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                yield 1
        finally:
            told.append("closed")

    async def main() -> None:
        with pytest.raises(TaskRunTimeoutError):
            await anext(stubborn())  # type: ignore[call-overload]
        assert told == ["closed"]

    asyncio.run(main())


def test_an_asynchronous_one_may_be_closed_by_another_task() -> None:
    runs: list[TaskRun] = []
    told: list[str] = []

    async def hook(_task: object, _run: object, state: Any) -> None:
        await asyncio.sleep(0)
        told.append(state.name)

    @task(on_completion=[hook])
    async def endless() -> AsyncGenerator[int]:
        runs.append(current_run())
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            told.append(current_run().run_id)

    async def main() -> None:
        steps = endless()
        assert await anext(steps) == 1
        await asyncio.create_task(steps.aclose())  # type: ignore[arg-type]
        assert TaskRunContext.get() is None

    asyncio.run(main())
    assert told == [runs[0].run_id, "Completed"]


def test_a_cancelled_caller_ends_an_asynchronous_one_as_crashed() -> None:
    runs: list[TaskRun] = []

    @task(retries=3)
    async def hangs() -> AsyncGenerator[int]:
        runs.append(current_run())
        await asyncio.Event().wait()
        yield 1

    async def main() -> None:
        running = asyncio.create_task(anext(hangs()))  # type: ignore[call-overload]
        await asyncio.sleep(0)
        running.cancel()
        await running

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert [run.state_name for run in runs] == ["Crashed"]


def test_the_timeout_is_for_the_function_and_not_for_its_caller() -> None:
    @task(timeout_seconds=0.2)
    def slow(seconds: float) -> Generator[int]:
        yield 1
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        yield 2

    steps = slow(0.0)
    next(steps)
    time.sleep(0.3)  # the caller's own time
    assert next(steps) == 2
    with pytest.raises(TaskRunTimeoutError, match=r"slow exceeded timeout of 0\.2"):
        list(slow(10))


def test_a_failed_upstream_ends_it_before_the_first_step() -> None:
    @task
    def takes(value: object) -> Generator[object]:
        yield value

    with pytest.raises(UpstreamFailedRun):
        list(takes(Failed(message="no")))


def test_asynchronous_generators_do_the_same() -> None:
    told: list[str] = []

    @task(retries=1, on_completion=[lambda *_: told.append("completed")])
    async def count(n: int) -> AsyncGenerator[int]:
        run = current_run()
        for number in range(n):
            await asyncio.sleep(0)
            yield number
        if run.run_count == 1:
            raise ValueError

    async def collect() -> list[int]:
        return [item async for item in count(2)]

    assert asyncio.run(collect()) == [0, 1, 0, 1]
    assert told == ["completed"]


def test_an_asynchronous_generator_that_is_too_slow() -> None:
    @task(timeout_seconds=0.05)
    async def slow() -> AsyncGenerator[int]:
        yield 1
        await asyncio.sleep(10)

    async def collect() -> list[int]:
        return [item async for item in slow()]

    with pytest.raises(TaskRunTimeoutError):
        asyncio.run(collect())


def test_with_return_state_the_result_is_all_of_it() -> None:
    @task
    def count(n: int) -> Generator[int]:
        yield from range(n)

    state: Any = count(3, return_state=True)  # type: ignore[call-arg]
    assert state.is_completed()
    assert state.result() == [0, 1, 2]
