"""What type checkers see; checked by pyright and mypy, never run.

A line marked ``# error`` must be reported; all others must not. One marked ``# error (pyright)`` is too much
for mypy.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeVar, Unpack, assert_type

from prefect_lite import (
    PrefectDistributedFuture,
    PrefectFuture,
    PrefectFutureList,
    State,
    Task,
    TaskOptions,
    batch,
    task,
)
from prefect_lite.runs import TaskRun
from prefect_lite.tasks import TaskRunNameCallbackWithParameters, exponential_backoff

R = TypeVar("R")


@task
def plain(x: int, y: str = "") -> float:
    return x


@task(retries=3, timeout_seconds=1.5, tags={"a"})
async def coroutine(x: int) -> list[str]:
    return []


@task
def steps(x: int) -> Generator[int, None, str]:
    yield x
    return ""


@task
async def asteps(x: int) -> AsyncGenerator[int, None]:
    yield x


@task
def keywords(x: int, **more: str) -> bytes:
    return b""


@task
def unknown(x: Any) -> Any:
    return x


def undecorated(x: int, *, y: bool = False) -> complex:
    return x


class Box:
    @task
    def method(self, x: int) -> int:
        return x

    @task(retries=1)
    async def amethod(self, x: int) -> str:
        return ""

    @task
    @classmethod
    def cls_inside(cls, x: int) -> int:
        return x

    @task
    @staticmethod
    def static_inside(x: int) -> int:
        return x

    @task(retries=1)
    @classmethod
    def cls_options(cls, x: int) -> int:
        return x


def named(parameters: dict[str, Any]) -> str:
    return ""


class Named(TaskRunNameCallbackWithParameters):
    def __call__(self, parameters: dict[str, Any]) -> str:
        return ""


name_callback: TaskRunNameCallbackWithParameters = Named()


def made(fn: Callable[[int], R], **options: Unpack[TaskOptions]) -> Task[[int], R]:
    return task(fn, **options)


made_task = Task(undecorated, name="x", retries=3, task_run_name=named)


def anything(any_task: Task[..., object]) -> None:
    any_task.delay("x")


async def condition(tried: Any, run: Any, state: Any) -> bool:
    return bool(state.is_failed())


async def use() -> None:
    assert_type(plain(1), float)
    assert_type(await coroutine(1), list[str])
    assert_type(plain.delay(1, y="a"), PrefectDistributedFuture[float])
    assert_type(coroutine.delay(1), PrefectDistributedFuture[list[str]])
    assert_type(await plain.adelay(1), PrefectDistributedFuture[float])
    assert_type(await coroutine.adelay(1), PrefectDistributedFuture[list[str]])
    assert_type(plain.delay(1).result(), float)
    assert_type(await coroutine.delay(1), list[str])
    assert_type(plain.submit(1), PrefectFuture[float])
    assert_type(coroutine.submit(1), PrefectFuture[list[str]])
    assert_type(plain.map([1, 2], deferred=True), PrefectFutureList[float])
    assert_type(coroutine.map([1]).result(), list[list[str]])
    assert_type(plain.map([1], return_state=True), list[State[float]])
    assert_type(plain.apply_async((1,), priority=3), PrefectDistributedFuture[float])
    assert_type(coroutine.apply_async((1,), countdown=3), PrefectDistributedFuture[list[str]])
    assert_type(plain.with_options(retries=3).delay(1), PrefectDistributedFuture[float])
    assert_type(Box().method(1), int)
    assert_type(Box().method.delay(1), PrefectDistributedFuture[int])
    # Called here.
    assert_type(plain(1, return_state=True), State[float])
    assert_type(plain(1, return_state=True).result(), float)
    assert_type(plain(1, wait_for=[plain.submit(1)]), float)
    assert_type(plain(1, "y", wait_for=plain.submit(1), return_state=True), State[float])
    assert_type(await coroutine(1, return_state=True), State[list[str]])
    assert_type(await coroutine(1, wait_for=[]), list[str])
    assert_type(steps(1), Generator[int, None, str])
    assert_type(asteps(1), AsyncGenerator[int, None])
    assert_type([one async for one in asteps(1)], list[int])
    assert_type(keywords(1, other=""), bytes)
    # In threads.
    assert_type(plain.submit(1, return_state=True), State[float])
    assert_type(plain.submit(1, wait_for=[coroutine.submit(1)]), PrefectFuture[float])
    assert_type(plain.submit(1, wait_for=coroutine.submit(1), return_state=True), State[float])
    assert_type(coroutine.submit(1, return_state=True), State[list[str]])
    assert_type(coroutine.submit(1, wait_for=None), PrefectFuture[list[str]])
    assert_type(steps.submit(1), PrefectFuture[list[int]])
    assert_type(steps.submit(1, return_state=True), State[list[int]])
    assert_type(asteps.submit(1), PrefectFuture[list[int]])
    assert_type(keywords.submit(1, return_state=True), State[bytes])
    assert_type(unknown.submit(1), PrefectFuture[Any])
    assert_type(plain.map([1], wait_for=[plain.submit(1)]), PrefectFutureList[float])
    assert_type(coroutine.map([1], return_state=True), list[State[list[str]]])
    assert_type(steps.map([1]), PrefectFutureList[list[int]])
    assert_type(asteps.map([1], return_state=True), list[State[list[int]]])
    # On workers.
    assert_type(steps.delay(1), PrefectDistributedFuture[list[int]])
    assert_type(asteps.apply_async((1,)), PrefectDistributedFuture[list[int]])
    assert_type(await asteps.adelay(1), PrefectDistributedFuture[list[int]])
    assert_type(await plain.aapply_async((1,)), PrefectDistributedFuture[float])
    assert_type(await coroutine.aapply_async((1,), {"x": 1}), PrefectDistributedFuture[list[str]])
    assert_type(plain.apply_async((1,), wait_for=[plain.delay(1)]), PrefectDistributedFuture[float])
    # Other tasks made of them.
    assert_type(plain.with_options(name="other", tags=None).delay(1, "y"), PrefectDistributedFuture[float])
    assert_type(plain.with_options(retries=1)(1), float)
    assert_type(plain.with_options(retries=1)(1, return_state=True), State[float])
    assert_type(coroutine.with_options(retries=1).submit(1), PrefectFuture[list[str]])
    assert_type(coroutine.with_options(retries=1).map([1]), PrefectFutureList[list[str]])
    assert_type(made_task(1, y=True), complex)
    assert_type(made_task.delay(1), PrefectDistributedFuture[complex])
    assert_type(made(undecorated, retries=3)(1), complex)
    assert_type(Task(undecorated)(1), complex)
    # Methods.
    assert_type(await Box().amethod(1), str)
    assert_type(Box().amethod.submit(1), PrefectFuture[str])
    assert_type(Box().method.with_options(retries=1).delay(1), PrefectDistributedFuture[int])
    assert_type(Box().method(1, return_state=True), State[int])
    assert_type(Box.method(Box(), 1), int)
    assert_type(Box.cls_inside(1), int)
    assert_type(Box.cls_options(1), int)
    assert_type(Box().cls_inside.submit(1), PrefectFuture[int])
    assert_type(Box.static_inside(1), int)
    assert_type(Box.static_inside.delay(1), PrefectDistributedFuture[int])
    # As functions.
    assert_type(await asyncio.to_thread(plain, 1), float)
    assert_type(list(map(plain, [1])), list[float])
    callback: Callable[[int], float] = plain
    callback(1)
    # What they are.
    assert_type(plain.retries, int)
    assert_type(plain.tags, frozenset[str])
    assert_type(plain.retry_delay_seconds, float | list[float])
    assert_type(plain.ismethod(), bool)
    assert_type(bool(plain.isclassmethod), bool)
    assert_type(plain.isgenerator, bool)
    assert_type(await plain.create_run(parameters={"x": 1}), TaskRun)
    assert_type(await plain.create_local_run(deferred=True), TaskRun)
    plain.with_options(retry_delay_seconds=exponential_backoff(1.5), task_run_name=named)
    plain.with_options(task_run_name=name_callback, retry_condition_fn=condition)

    @plain.on_failure
    def hook(failed: Task[..., Any], run: TaskRun, state: State[Any]) -> None: ...

    @plain.on_completion
    async def ahook(done: Any, run: Any, state: Any) -> None: ...

    hook(plain, await plain.create_run(), plain.submit(1, return_state=True))
    await ahook(1, 2, 3)
    assert_type(plain.key, str)
    assert_type(plain.name, str)
    with batch() as block:
        assert_type(block, batch)
    anything(plain)
    anything(coroutine)

    plain("x")  # error
    plain.delay("x")  # error
    plain.delay(1, z=2)  # error
    coroutine.delay()  # error
    plain.submit("x")  # error
    plain.apply_async((1,), prio=3)  # error
    plain.with_options(retry=3)  # error
    plain.with_options(retries="3")  # error
    plain.dealy(1)  # error
    Box().method.delay("x")  # error
    Box().amethod("x")  # error
    Box.cls_inside("x")  # error (pyright)
    Box.static_inside.submit("x")  # error (pyright)
    made_task("x")  # error
    steps.submit("x")  # error
    plain()  # error
    plain(1, return_state="yes")  # error
    plain.submit(1, wait_for=3)  # error
    plain.with_options(nope=1)  # error
    plain.with_options(on_failure=print)  # error
    Task(undecorated, retrys=3)  # error
    Task(undecorated, retries="3")  # error
    Task(3)  # error
    plain.on_running(3)  # error


@task(retrys=3)  # error
def misspelt() -> None: ...


@task(timeout_seconds="1")  # error
def mistyped() -> None: ...
