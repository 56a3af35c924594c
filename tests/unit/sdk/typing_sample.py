"""What type checkers see; checked by pyright and mypy, never run.

A line marked ``# error`` must be reported; all others must not.
"""

from __future__ import annotations

from typing import assert_type

from prefect_lite import PrefectDistributedFuture, PrefectFuture, PrefectFutureList, State, Task, batch, task


@task
def plain(x: int, y: str = "") -> float:
    return x


@task(retries=3, timeout_seconds=1.5, tags={"a"})
async def coroutine(x: int) -> list[str]:
    return []


class Box:
    @task
    def method(self, x: int) -> int:
        return x


def anything(any_task: Task[..., object]) -> None:
    any_task.delay("x")


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
    assert_type(plain.retries, int)
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


@task(retrys=3)  # error
def misspelt() -> None: ...


@task(timeout_seconds="1")  # error
def mistyped() -> None: ...
