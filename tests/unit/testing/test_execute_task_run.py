"""``TaskWorker.execute_task_run``: what a worker does with a run, without a wire."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from prefect_lite import task
from prefect_lite.context import TaskRunContext, current_context
from prefect_lite.exceptions import ConfigurationError
from prefect_lite.runs import TaskRun
from prefect_lite.task_worker import TaskWorker
from prefect_lite.testing import frozen_clock

own: contextvars.ContextVar[str] = contextvars.ContextVar("own", default="nothing")


@pytest.fixture(autouse=True)
def home(client_home: Path) -> Path:
    return client_home


@task
def add(a: int, b: int = 1) -> int:
    return a + b


@task
async def async_add(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


@task
def collect(a: Any, /, *more: Any, named: Any = 0, **others: Any) -> Any:
    return [a, more, named, others]


@task
def fail() -> None:
    raise ValueError("boom")


@task
def unserved() -> None: ...


def execute(given: Any, parameters: dict[str, Any]) -> tuple[TaskRun, Any]:
    worker = TaskWorker(add, async_add, collect, fail)
    if given.key not in worker.task_keys and given is not unserved:
        worker = TaskWorker(given)

    async def main() -> tuple[TaskRun, Any]:
        run = await given.create_run(parameters=parameters)
        return run, await worker.execute_task_run(run)

    return asyncio.run(main())


def test_a_run_is_executed() -> None:
    run, state = execute(add, {"a": 2})
    assert state.is_completed()
    assert state.result() == 3
    assert run.state is not None
    assert run.state.is_completed()
    assert run.run_count == 1
    assert run.start_time is not None
    assert [each.name for each in run.states][-2:] == ["Running", "Completed"]


def test_coroutines() -> None:
    assert execute(async_add, {"a": 2, "b": 5})[1].result(raise_on_failure=False) == 7


def test_parameters_of_all_kinds() -> None:
    parameters = {"a": 1, "more": (2, 3), "named": 4, "others": {"x": 5}}
    assert execute(collect, parameters)[1].result() == [1, (2, 3), 4, {"x": 5}]
    assert execute(collect, {"a": 1})[1].result() == [1, (), 0, {}]


def test_a_failure_is_the_state() -> None:
    run, state = execute(fail, {})
    assert state.is_failed()
    assert "boom" in (state.message or "")
    assert run.state_name == "Failed"
    with pytest.raises(ValueError, match="boom"):
        state.result()


@pytest.mark.parametrize("parameters", [{}, {"a": 1, "nonsense": 2}])
def test_parameters_that_do_not_fit(parameters: dict[str, Any]) -> None:
    _, state = execute(add, parameters)
    assert state.is_failed()
    assert isinstance(state.result(raise_on_failure=False), TypeError)


def test_retries_hooks_and_timeouts() -> None:
    attempts: list[int] = []
    seen: list[str] = []

    def ended(_task: Any, run: Any, state: Any) -> None:
        seen.append(f"{state.name} {run.run_count}")

    @task(retries=2, retry_delay_seconds=1000, on_completion=[ended])
    def flaky() -> int:
        attempts.append(1)
        if len(attempts) < 3:
            raise ValueError("again")
        return len(attempts)

    @task(timeout_seconds=0.05, on_failure=[ended])
    def slow() -> None:
        while True:
            time.sleep(0.005)

    with frozen_clock() as frozen:
        run, state = execute(flaky, {})
    assert state.result() == 3
    assert run.run_count == 3
    assert frozen.slept == [1000, 1000]
    assert execute(slow, {})[1].name == "TimedOut"
    assert seen == ["Completed 3", "TimedOut 1"]


def test_functions_run_in_a_thread_and_in_a_context_of_their_own() -> None:
    @task
    def look() -> list[Any]:
        context = TaskRunContext.get()
        assert context is not None
        return [threading.current_thread() is threading.main_thread(), own.get(), context.enclosing]

    own.set("something")
    _, state = execute(look, {})
    assert state.result() == [False, "nothing", None]
    assert current_context() is None


def test_who_is_cancelled_ends_the_run_and_learns_of_it() -> None:
    async def main() -> None:
        began = asyncio.Event()

        @task
        async def hang() -> None:
            began.set()
            await asyncio.sleep(60)

        run = await hang.create_run(parameters={})
        executing = asyncio.create_task(TaskWorker(hang).execute_task_run(run))
        await began.wait()
        executing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await executing
        assert run.state is not None
        assert run.state.is_crashed()

    asyncio.run(main())


def test_a_task_that_is_not_served() -> None:
    with pytest.raises(ConfigurationError, match=r"does not serve .*unserved.*it serves .*add"):
        execute(unserved, {})


def test_a_run_without_parameters() -> None:
    worker = TaskWorker(add)
    with pytest.raises(ConfigurationError, match="no parameters"):
        asyncio.run(worker.execute_task_run(TaskRun("0" * 32, add.key, "add")))
