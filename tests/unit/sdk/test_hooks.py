"""State hooks of runs in this process: called directly, submitted and mapped."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any

import pytest

from prefect_lite import Task, task
from prefect_lite.context import TaskRunContext
from prefect_lite.exceptions import OptionTypeError

Told = list[Any]


class Boom(Exception):
    pass


def returns() -> str:
    return "value"


def fails() -> None:
    raise Boom("no")


def as_coroutine(fn: Callable[[], Any]) -> Callable[[], Any]:
    async def coroutine() -> Any:
        return fn()

    return coroutine


def call(task: Task[..., Any]) -> Any:
    value = task(return_state=True)
    return asyncio.run(value) if task.isasync else value


def submit(task: Task[..., Any]) -> Any:
    return task.submit(return_state=True)


@pytest.fixture(params=["call", "async call", "submit", "async submit"])
def make(request: pytest.FixtureRequest, client_home: Any) -> Callable[..., tuple[Task[..., Any], Any]]:
    """``make(fn, **options)`` gives a task of ``fn`` and what runs it until its final state."""

    def make(fn: Callable[[], Any], **options: Any) -> tuple[Task[..., Any], Any]:
        made = Task(as_coroutine(fn) if "async" in request.param else fn, **options)
        return made, functools.partial(submit if "submit" in request.param else call, made)

    return make


def teller(told: Told, label: str) -> Callable[..., None]:
    def hook(task: Any, run: Any, state: Any) -> None:
        told.append((label, state.name, run.state is state, run.run_count, task.name))

    return hook


def test_they_see_every_step_of_a_run(make: Any) -> None:
    told: Told = []
    attempts: list[int] = []

    def twice() -> str:
        attempts.append(1)
        told.append("body")
        if len(attempts) < 3:
            raise Boom
        return "value"

    hooks = {name: [teller(told, name)] for name in ("on_running", "on_completion", "on_failure")}
    _, run = make(twice, name="t", retries=2, **hooks)
    assert run().is_completed()
    assert told == [
        ("on_running", "Running", True, 1, "t"),
        "body",
        ("on_running", "Retrying", True, 2, "t"),
        "body",
        ("on_running", "Retrying", True, 3, "t"),
        "body",
        ("on_completion", "Completed", True, 3, "t"),
    ]


def test_they_see_the_failure_after_the_last_retry(make: Any) -> None:
    told: Told = []
    failed: list[Any] = []
    made, run = make(
        fails,
        name="t",
        retries=1,
        on_completion=[teller(told, "completed")],
        on_failure=[teller(told, "failed"), lambda task, run, state: failed.append((task, run, state))],
    )
    assert run().is_failed()
    assert told == [("failed", "Failed", True, 2, "t")]
    ((seen_task, record, state),) = failed
    assert seen_task is made
    assert record.task_name == "t"
    assert isinstance(state.data, Boom)
    assert "no" in state.message


class Hook:
    def __init__(self, told: Told) -> None:
        self.told = told

    def __call__(self, _task: Any, _run: Any, _state: Any) -> None:
        self.told.append("object")

    def method(self, _task: Any, _run: Any, _state: Any) -> None:
        self.told.append("method")


class AsyncHook(Hook):
    async def __call__(self, _task: Any, _run: Any, _state: Any) -> None:
        await asyncio.sleep(0)
        self.told.append("async object")


def test_all_kinds_in_the_order_given(make: Any) -> None:
    told: Told = []

    async def coroutine(_task: Any, _run: Any, _state: Any) -> None:
        await asyncio.sleep(0)
        told.append("coroutine")

    def named(word: str, _task: Any, _run: Any, _state: Any) -> None:
        told.append(word)

    async def anamed(word: str, _task: Any, _run: Any, _state: Any) -> None:
        told.append(word)

    hooks: list[Any] = [
        coroutine,
        Hook(told),
        Hook(told).method,
        AsyncHook(told),
        functools.partial(named, "partial"),
        functools.partial(anamed, "async partial"),
        lambda *_: told.append("lambda"),
    ]
    made, run = make(returns, on_completion=hooks)

    @made.on_completion
    def decorated(_task: Any, _run: Any, _state: Any) -> None:
        told.append("decorated")

    assert run().is_completed()
    assert told == [
        "coroutine", "object", "method", "async object", "partial", "async partial", "lambda", "decorated",
    ]  # fmt: skip


class Broken:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, *_: Any) -> None:
        raise self.error


def takes_two(_task: Any, _run: Any) -> None: ...


@pytest.mark.parametrize("broken", [Broken(RuntimeError("hook")), Broken(SystemExit(3)), takes_two])
def test_one_that_raises_is_logged_and_changes_nothing(
    make: Any, broken: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="prefect_lite")

    async def abroken(*arguments: Any) -> None:
        broken(*arguments)

    told: Told = []
    after = teller(told, "after")
    hooks = {name: [broken, abroken, after] for name in ("on_running", "on_completion", "on_failure")}
    _, run = make(returns, name="t", **hooks)
    state = run()
    assert state.is_completed()
    assert state.data == "value"
    _, run = make(fails, name="t", **hooks)
    assert isinstance(run().data, Boom)
    assert [label for label, *_ in told] == ["after"] * 4
    problems = [record for record in caplog.records if "hook" in record.getMessage()]
    assert len(problems) == 8
    assert all(record.levelno == logging.ERROR and record.exc_info for record in problems)


def test_they_run_inside_the_run(make: Any) -> None:
    inside: list[Any] = []

    def hook(_task: Any, run: Any, _state: Any) -> None:
        context = TaskRunContext.get()
        inside.append(context is not None and context.task_run is run)

    _, run = make(returns, on_running=[hook], on_completion=[hook])
    run()
    assert inside == [True, True]


@pytest.mark.usefixtures("client_home")
def test_mapped_runs_have_them(client_home: Any) -> None:
    told: list[int] = []

    @task(on_completion=[lambda _task, _run, state: told.append(state.data)])
    def double(x: int) -> int:
        return 2 * x

    assert double.map([1, 2, 3]).result() == [2, 4, 6]
    assert sorted(told) == [2, 4, 6]


@pytest.mark.parametrize("name", ["on_running", "on_completion", "on_failure", "on_commit", "on_rollback"])
def test_decorators(name: str) -> None:
    made = Task(returns)

    def hook(*_: Any) -> None: ...
    async def ahook(*_: Any) -> None: ...

    for one in (hook, ahook, functools.partial(hook), Hook([]), Hook([]).method):
        assert getattr(made, name)(one) is one
    assert len(getattr(made, f"{name}_hooks")) == 5
    for wrong in (3, "hook", None, [hook]):
        with pytest.raises(OptionTypeError, match=f"Expected `{name}` to be callable"):
            getattr(made, name)(wrong)
    assert len(getattr(made, f"{name}_hooks")) == 5


def test_a_timeout_is_a_failure_and_has_its_name() -> None:
    told: Told = []

    @task(name="t", timeout_seconds=0.01, on_failure=[teller(told, "failed")])
    async def slow() -> None:
        await asyncio.sleep(30)

    assert asyncio.run(slow(return_state=True)).name == "TimedOut"
    assert told == [("failed", "TimedOut", True, 1, "t")]
