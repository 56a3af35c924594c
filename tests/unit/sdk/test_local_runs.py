"""``submit`` and ``map`` in threads of this process."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from prefect_lite import allow_failure, as_completed, quote, task, wait
from prefect_lite.exceptions import ParameterBindError, UpstreamFailedRun
from prefect_lite.local_runs import close_threads

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("threads")]


@pytest.fixture
def threads() -> Any:
    yield
    close_threads()


@task
def add(x: Any, y: Any = 1) -> Any:
    return x + y


@task
async def later(x: int) -> int:
    return x * 2


@task
def show(value: Any) -> str:
    return repr(value)


def test_a_run_in_a_thread_has_a_future() -> None:
    future = add.submit(1, y=2)
    assert future.result(timeout=5) == 3
    assert future.state.is_completed()
    assert future.done
    assert later.submit(4).result(timeout=5) == 8


def test_failures_and_states() -> None:
    future = add.submit(1, y="x")
    with pytest.raises(TypeError):
        future.result(timeout=5)
    assert isinstance(future.result(raise_on_failure=False), TypeError)
    state = add.submit(1, y="x", return_state=True)  # type: ignore[call-overload]
    assert state.is_failed()
    with pytest.raises(ParameterBindError):
        add.submit()  # type: ignore[call-overload]


def test_a_late_run_times_out() -> None:
    go = threading.Event()

    @task
    def wait_for_go() -> int:
        go.wait(10)
        return 1

    future = wait_for_go.submit()
    with pytest.raises(TimeoutError, match=r"did not complete within 0\.01 seconds"):
        future.result(timeout=0.01)
    assert not future.state.is_final()
    assert wait([future], timeout=0).not_done == {future}
    go.set()
    assert future.result(timeout=5) == 1


def test_futures_among_the_arguments_become_values() -> None:
    one = add.submit(1)
    assert add.submit(one, y=2).result(timeout=5) == 4
    assert show.submit([one, {"a": (one,)}]).result(timeout=5) == "[2, {'a': (2,)}]"
    assert "PrefectConcurrentFuture" in show.submit(quote(one)).result(timeout=5)


def test_a_failed_upstream_run_fails_the_next_unless_allowed() -> None:
    bad = add.submit(1, y="x")
    with pytest.raises(UpstreamFailedRun):
        show.submit(bad).result(timeout=5)
    with pytest.raises(UpstreamFailedRun):
        show.submit(1, wait_for=[bad]).result(timeout=5)  # type: ignore[call-overload]
    assert "TypeError" in show.submit(allow_failure(bad)).result(timeout=5)


def test_map_runs_each() -> None:
    assert add.map([1, 2, 3], y=[10, 20, 30]).result(timeout=5) == [11, 22, 33]
    states = add.map([1, 2], return_state=True)
    assert [state.result() for state in states] == [2, 3]
    futures = add.map(range(20))
    assert sorted(future.result() for future in as_completed(futures, timeout=5)) == list(range(1, 21))


def test_a_failure_keeps_its_traceback() -> None:
    with pytest.raises(TypeError) as caught:
        add.submit(1, y="x").result(timeout=5)
    assert caught.traceback[-1].name == "add"


async def test_a_failure_that_is_awaited_is_not_reported_as_lost() -> None:
    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    with pytest.raises(TypeError):
        await add.submit(1, y="x")
    with pytest.raises(TypeError):
        await add.map([1], y="x")
    gc.collect()
    await asyncio.sleep(0)
    assert not problems


async def test_coroutines_wait_for_threads() -> None:
    assert await add.submit(1) == 2
    assert await add.map([1, 2]) == [2, 3]
    await add.submit(1).wait_async(timeout=5)


def test_tasks_may_submit_tasks() -> None:
    @task
    def outer(depth: int) -> int:
        return outer.submit(depth - 1).result(timeout=10) + 1 if depth else 0

    assert outer.submit(20).result(timeout=10) == 20


def test_callbacks_are_called() -> None:
    called = threading.Event()
    add.submit(1).add_done_callback(lambda _: called.set())
    assert called.wait(5)
