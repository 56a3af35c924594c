"""Direct calls and the drivers' decisions: what an attempt's end leads to."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from prefect_lite import Task, task
from prefect_lite.context import TaskRunContext
from prefect_lite.exceptions import MissingContextError, ParameterBindError, TaskRunTimeoutError
from prefect_lite.interrupts import Permits, RunInterrupted
from prefect_lite.logging import get_run_logger
from prefect_lite.run_ends import describe


def test_a_direct_call_returns_the_value() -> None:
    @task
    def add(x: int, y: int) -> int:
        return x + y

    assert add(1, y=2) == 3


def test_a_direct_call_of_a_coroutine_function_is_awaited() -> None:
    @task
    async def add(x: int, y: int) -> int:
        await asyncio.sleep(0)
        return x + y

    assert asyncio.run(add(1, 2)) == 3


@pytest.mark.parametrize("isasync", [False, True])
def test_retries_count_failures(isasync: bool) -> None:
    attempts: list[int] = []

    def body() -> str:
        context = TaskRunContext.get()
        assert context is not None
        attempts.append(context.task_run.run_count)
        if len(attempts) < 3:
            raise ValueError("not yet")
        return "done"

    async def abody() -> str:
        return body()

    if isasync:
        assert asyncio.run(task(retries=2)(abody)()) == "done"
    else:
        assert task(retries=2)(body)() == "done"
    assert attempts == [1, 2, 3]


def test_the_last_failure_is_raised() -> None:
    @task(retries=1)
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        fail()


def test_delays_are_waited_for() -> None:
    times: list[float] = []

    @task(retries=2, retry_delay_seconds=[0.02, 0.05])
    def fail() -> None:
        times.append(time.monotonic())
        raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert times[1] - times[0] >= 0.02
    assert times[2] - times[1] >= 0.05


@pytest.mark.parametrize("options", [{}, {"return_state": True}], ids=str)
def test_arguments_that_do_not_bind_are_refused_at_once(options: dict[str, Any]) -> None:
    calls: list[int] = []

    def one(x: int) -> int:
        return x

    async def aone(x: int) -> int:
        return x

    def ones(x: int) -> Iterator[int]:
        yield x

    for fn in (one, aone, ones):
        bad: Any = Task(fn, retries=5, on_running=[lambda *_: calls.append(1)])
        with pytest.raises(ParameterBindError, match="missing a required argument: 'x'"):
            bad(**options)
    assert not calls


def test_a_type_error_inside_the_task_is_retried() -> None:
    calls: list[int] = []

    @task(retries=2)
    def one() -> int:
        calls.append(1)
        return int(None)  # type: ignore[arg-type]

    with pytest.raises(TypeError):
        one()
    assert len(calls) == 3


def test_a_timeout_in_a_busy_thread() -> None:
    @task(timeout_seconds=0.05)
    def spin() -> None:
        while True:
            pass

    with pytest.raises(TaskRunTimeoutError, match=r"spin exceeded timeout of 0\.05 second"):
        spin()


def test_a_timeout_of_a_coroutine() -> None:
    @task(timeout_seconds=0.02)
    async def hang() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TaskRunTimeoutError):
        asyncio.run(hang())


def test_a_timeout_error_of_the_tasks_own_is_a_plain_failure() -> None:
    @task(timeout_seconds=5)
    def own() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine") as caught:
        own()
    assert not isinstance(caught.value, TaskRunTimeoutError)


def test_timeouts_are_retried() -> None:
    attempts: list[float] = []

    @task(timeout_seconds=0.05, retries=1)
    def slow_once() -> str:
        attempts.append(0)
        while len(attempts) == 1:
            pass
        return "done"

    assert slow_once() == "done"


def test_cancelling_a_direct_coroutine_goes_through() -> None:
    @task(retries=3, timeout_seconds=5)
    async def hang() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        running = asyncio.create_task(hang())
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())


def test_system_exit_belongs_to_the_caller() -> None:
    @task(retries=3)
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        leave()


def test_an_outer_timeout_ends_an_inner_task() -> None:
    inner_ended: list[str] = []

    @task(retries=3)
    def inner() -> None:
        try:
            while True:
                pass
        finally:
            inner_ended.append("once")

    @task(timeout_seconds=0.05)
    def outer() -> None:
        inner()

    with pytest.raises(TaskRunTimeoutError, match="outer"):
        outer()
    assert inner_ended == ["once"]


def test_hooks_see_the_run_and_the_state() -> None:
    seen: list[tuple[str, int]] = []

    def note(_task: object, run: object, state: object) -> None:
        seen.append((state.name, run.run_count))  # type: ignore[attr-defined]

    async def anote(_task: object, run: object, state: object) -> None:
        note(_task, run, state)

    @task(retries=1, on_running=[note], on_completion=[note], on_failure=[anote])
    def maybe(fails: bool) -> int:
        if fails:
            raise ValueError
        return 1

    maybe(False)
    with pytest.raises(ValueError):
        maybe(True)
    assert seen == [("Running", 1), ("Completed", 1), ("Running", 1), ("Retrying", 2), ("Failed", 2)]


def test_a_hook_that_raises_changes_nothing() -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("hook")

    @task(on_completion=[broken])
    def fine() -> int:
        return 1

    assert fine() == 1


def test_prints_go_to_the_log(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    @task(log_prints=True)
    def chatty() -> None:
        print("one", 2)
        print("half", end="")

    with caplog.at_level("INFO", logger="prefect_lite"):
        chatty()
    print("outside")
    assert [record.getMessage() for record in caplog.records] == ["one 2", "half"]
    assert capsys.readouterr().out == "outside\n"
    assert caplog.records[0].task_key.endswith("chatty")  # type: ignore[attr-defined]


def test_prints_of_other_threads_and_tasks_go_through(capsys: pytest.CaptureFixture[str]) -> None:
    @task(log_prints=True)
    def chatty() -> None:
        other = threading.Thread(target=print, args=("from a thread",))
        other.start()
        other.join()

    chatty()
    assert capsys.readouterr().out == "from a thread\n"


def test_the_run_logger_needs_a_run() -> None:
    with pytest.raises(MissingContextError, match="inside a run"):
        get_run_logger()


def test_parameters_are_named() -> None:
    seen: dict[str, object] = {}

    @task
    def three(x: int, y: int = 2, *rest: int, **more: int) -> None:
        context = TaskRunContext.get()
        assert context is not None
        seen.update(context.parameters)

    three(1, z=4)
    assert seen == {"x": 1, "y": 2, "rest": (), "more": {"z": 4}}
    assert TaskRunContext.get() is None


def test_describe() -> None:
    assert describe(ValueError("boom")) == "ValueError: boom"
    assert describe(ValueError()) == "ValueError"

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert describe(Mute()) == "Mute: (its text raised RuntimeError)"


def test_an_interrupt_never_hits_later_work() -> None:
    """Interrupt at random moments around the end of many short pieces of work."""
    permits = Permits()
    current = [0]
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            permits.interrupt(current[0])

    thread = threading.Thread(target=disturb)
    thread.start()
    interrupted = 0
    try:
        for number in range(1, 3_000):
            current[0] = number
            try:
                permits.grant(number)
                sum(range(50))
            except RunInterrupted:
                interrupted += 1
            try:
                permits.withdraw(number)
            except RunInterrupted:  # before its first line; what drive_sync does
                permits.withdraw(number)
            for _ in range(50):  # other work, which must not be hit
                pass
    finally:
        stop.set()
        thread.join()
    assert not permits._threads
    assert not permits._sent
