"""Direct calls: what is left of a run, however it ended."""

from __future__ import annotations

import asyncio
import gc
import sys
import traceback
import weakref
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

import pytest

from prefect_lite import Task, clock, run_history, task
from prefect_lite.context import TaskRunContext, get_run_context
from prefect_lite.exceptions import MissingContextError, TaskRunTimeoutError
from prefect_lite.runs import MAX_KEPT_MESSAGE
from prefect_lite.states import Completed


class Boom(Exception):
    pass


class Leave(BaseException):
    """Like SystemExit."""


class Big:
    """An argument that tells when it is gone."""


def raises(_: Big) -> None:
    raise Boom


async def araises(_: Big) -> None:
    raise Boom


def leaves(_: Big) -> None:
    raise Leave


async def aleaves(_: Big) -> None:
    raise Leave


def returns(big: Big) -> Big:
    return big


@pytest.fixture
def uncollected() -> Generator[None]:
    """What is not freed by itself stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def last_run() -> Any:
    return run_history.recent()[-1]


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("fn", [raises, araises, leaves, aleaves, returns])
@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("options", [{}, {"return_state": True}, {"wait_for": [Completed()]}], ids=str)
def test_nothing_keeps_arguments_and_exceptions(
    fn: Callable[..., Any], retries: int, options: dict[str, Any]
) -> None:
    made: Any = Task(fn, retries=retries)

    # Nobody here keeps the state: its exception leads to the frames of all callers.
    def call() -> Any:
        big = Big()
        with suppress(Boom, Leave):
            made(big, **options)
        return weakref.ref(big)

    async def acall() -> Any:
        big = Big()
        with suppress(Boom, Leave):
            await made(big, **options)
        return weakref.ref(big)

    left = asyncio.run(acall()) if made.isasync else call()
    assert left() is None


@pytest.mark.usefixtures("uncollected")
def test_nothing_keeps_collections_whose_futures_were_replaced() -> None:
    def call() -> Any:
        big = Big()
        assert task(lambda items: items[1])([big, Completed(data=5)]) == 5
        return weakref.ref(big)

    assert call()() is None


def test_the_traceback_is_that_of_the_function() -> None:
    def inner() -> None:
        raise Boom

    @task
    def outer() -> None:
        inner()

    with pytest.raises(Boom) as caught:
        outer()
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[-2:] == ["outer", "inner"]
    assert "drive_sync" not in frames


def test_a_timeout_in_the_cleanup_of_a_cancelled_task_is_a_timeout() -> None:
    @task(timeout_seconds=0.02)
    async def hang() -> None:
        await asyncio.Event().wait()

    errors: list[BaseException] = []

    async def cleans_up() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await hang()
            except BaseException as exc:
                errors.append(exc)

    async def main() -> None:
        running = asyncio.create_task(cleans_up())
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    assert [type(error) for error in errors] == [TaskRunTimeoutError]


def test_a_run_is_crashed_when_ctrl_c_hits_the_wait_for_its_retry() -> None:
    class Interrupted(clock.Clock):
        def sleep(self, seconds: float) -> None:
            raise KeyboardInterrupt

    @task(retries=1, retry_delay_seconds=60)
    def fails() -> None:
        raise Boom

    before = clock.replace(Interrupted())
    try:
        with pytest.raises(KeyboardInterrupt):
            fails()
    finally:
        clock.replace(before)
    assert [state.name for state in last_run().states] == ["Pending", "Running", "AwaitingRetry", "Crashed"]


def test_a_run_is_crashed_when_it_is_cancelled() -> None:
    @task
    async def hang() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        running = asyncio.create_task(hang())
        await asyncio.sleep(0)
        running.cancel()
        await running

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert [state.name for state in last_run().states] == ["Pending", "Running", "Crashed"]


@pytest.mark.parametrize("outermost", [False, True])
def test_a_coroutine_that_is_thrown_away_with_its_loop_ends_in_silence(
    outermost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect_lite.direct import run_async, task_context
    from prefect_lite.run_creation import new_record

    told: list[Any] = []

    async def hook(*_: object) -> None:
        await asyncio.sleep(0)
        told.append("hook")

    @task(on_failure=[hook])
    async def hang() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(sys, "unraisablehook", lambda problem: told.append(problem.exc_value))
    loop = asyncio.new_event_loop()
    coroutine = (
        run_async(task_context(hang, (), {}, new_record(hang, (), {})), outermost=True)
        if outermost
        else hang()
    )
    running = loop.create_task(coroutine)
    running._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    del running, coroutine
    gc.collect()
    assert told == []
    assert TaskRunContext.get() is None


def test_a_record_keeps_the_beginning_of_a_long_message() -> None:
    @task
    def fails() -> None:
        raise Boom("x" * 1_000_000)

    with pytest.raises(Boom):
        fails()
    assert len(last_run().state.message) < MAX_KEPT_MESSAGE + 10


def test_a_run_is_named_once_whatever_its_attempts() -> None:
    names: list[str] = []

    def name() -> str:
        names.append(f"name {len(names)}")
        return names[-1]

    @task(task_run_name=name, retries=1, retry_delay_seconds=0.001)
    def fails() -> None:
        raise Boom

    with pytest.raises(Boom):
        fails()
    assert names == ["name 0"]
    assert last_run().name == "name 0"


def test_outside_of_runs_there_is_no_context() -> None:
    with pytest.raises(MissingContextError, match="You are not in a flow or task run context"):
        get_run_context()
