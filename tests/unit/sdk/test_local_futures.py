"""Futures of this process: what they wrap, those of others' task runners, and values in their place."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest

from prefect_lite import PrefectConcurrentFuture, PrefectFuture, PrefectFutureList, as_completed, task, wait
from prefect_lite.exceptions import CancelledRun, FailedRun, UpstreamFailedRun
from prefect_lite.futures import (
    PrefectWrappedFuture,
    futures_in,
    resolve_futures_to_results,
    resolve_futures_to_states,
)
from prefect_lite.runs import TaskRun
from prefect_lite.states import Completed, Failed, Pending, State, StateType

pytestmark = pytest.mark.anyio


@dataclass
class Box:
    inside: Any


class Foreign(PrefectFuture[Any]):
    """As somebody's task runner may bring: only what is abstract."""

    def __init__(self, run_id: UUID) -> None:
        super().__init__(run_id)
        self.ended = threading.Event()
        self._state: State[Any] = Pending()

    @property
    def state(self) -> State[Any]:
        return self._state

    def end(self, state: State[Any]) -> None:
        self._state = state
        self.ended.set()

    def wait(self, timeout: float | None = None) -> None:
        self.ended.wait(timeout)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        if not self.ended.wait(timeout):
            raise TimeoutError
        return self._state.result(raise_on_failure=raise_on_failure)


@pytest.fixture
def wrapped() -> concurrent.futures.Future[Any]:
    return concurrent.futures.Future()


@pytest.fixture
def future(wrapped: concurrent.futures.Future[Any]) -> PrefectConcurrentFuture[Any]:
    return PrefectConcurrentFuture(uuid4(), wrapped)


def ended(value: Any) -> PrefectConcurrentFuture[Any]:
    one: concurrent.futures.Future[Any] = concurrent.futures.Future()
    one.set_result(value)
    return PrefectConcurrentFuture(uuid4(), one)


def test_the_state_is_what_the_wrapped_future_gives(
    wrapped: concurrent.futures.Future[Any], future: PrefectConcurrentFuture[Any]
) -> None:
    assert isinstance(future, PrefectWrappedFuture)
    assert future.wrapped_future is wrapped
    assert future.state.is_pending()
    wrapped.set_running_or_notify_cancel()
    assert future.state.is_running()
    assert not future.done
    state = Failed(name="Odd", message="m")
    wrapped.set_result(state)
    assert future.done
    assert future.state is state
    with pytest.raises(FailedRun, match="m"):
        future.result()
    assert isinstance(future.result(raise_on_failure=False), FailedRun)


def test_before_the_end_the_record_knows(wrapped: concurrent.futures.Future[Any]) -> None:
    record = TaskRun(uuid4().hex, "key", "name")
    future: PrefectConcurrentFuture[Any] = PrefectConcurrentFuture(record.id, wrapped, record)
    assert future.task_run_id == record.id
    record.transitions = []
    record.moved(StateType.RUNNING, "Retrying")
    assert future.state.name == "Retrying"
    record.moved(StateType.COMPLETED, "Completed")
    assert not future.state.is_final(), "the record ends a little before the future, and has no result"
    wrapped.set_result(Completed(data=1))
    assert future.result() == 1


def test_other_ends_of_the_wrapped_future(wrapped: concurrent.futures.Future[Any]) -> None:
    assert ended(17).result() == 17
    assert ended(17).state.is_completed()
    broken: concurrent.futures.Future[Any] = concurrent.futures.Future()
    broken.set_exception(KeyError("x"))
    future: PrefectConcurrentFuture[Any] = PrefectConcurrentFuture(uuid4(), broken)
    assert (future.state.type, future.state.message) == ("CRASHED", "KeyError: 'x'")
    with pytest.raises(KeyError):
        future.result()
    wrapped.cancel()
    cancelled: PrefectConcurrentFuture[Any] = PrefectConcurrentFuture(uuid4(), wrapped)
    assert cancelled.state.is_cancelled()
    with pytest.raises(CancelledRun):
        cancelled.result()


async def test_the_result_is_a_value_under_a_loop_too(
    wrapped: concurrent.futures.Future[Any], future: PrefectConcurrentFuture[Any]
) -> None:
    with pytest.raises(TimeoutError, match=r"did not complete within 0 seconds. Its state is Pending"):
        future.result(timeout=0)
    with pytest.raises(TimeoutError, match=r"within 0.01 seconds"):
        await future.result_async(timeout=0.01)
    asyncio.get_running_loop().call_later(0.01, wrapped.set_result, Completed(data=4))
    assert await future == 4
    assert future.result() == 4
    assert resolve_futures_to_results([future]) == [4]


async def test_asking_again_and_again_leaves_nothing_behind(
    wrapped: concurrent.futures.Future[Any], future: PrefectConcurrentFuture[Any]
) -> None:
    """``while not future.done: await future.wait_async(1)`` may go on for days."""
    for _ in range(20):
        await future.wait_async(0)
    waiting = [asyncio.create_task(future.wait_async()) for _ in range(3)]
    cancelled = asyncio.create_task(future.wait_async())
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert len(wrapped._done_callbacks) == 1  # type: ignore[attr-defined]
    assert len(future._latches or ()) == 3  # type: ignore[attr-defined]
    wrapped.set_result(Completed(data=1))
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
    await future.wait_async()


def test_late_lists_say_how_many(future: PrefectConcurrentFuture[Any]) -> None:
    futures = PrefectFutureList([ended(1), future])
    with pytest.raises(TimeoutError, match=r"all futures to complete within 0.01 seconds: 1 of 2 have not"):
        futures.result(timeout=0.01)
    futures.wait(timeout=0)
    with pytest.raises(TimeoutError, match=r"1 \(of 2\) futures unfinished"):
        list(as_completed(futures, timeout=0.01))
    done, not_done = wait((one for one in futures), timeout=0)
    assert (done, not_done) == ({futures[0]}, {futures[1]})
    assert wait([]) == (set(), set())
    assert list(as_completed([])) == []


@pytest.mark.parametrize("waits", [lambda one: one.wait(), lambda one: list(as_completed([one]))])
def test_the_timeout_of_a_run_reaches_it_while_it_waits(waits: Any, future: PrefectFuture[Any]) -> None:
    @task(timeout_seconds=0.05)
    def waiting() -> None:
        waits(future)

    assert waiting(return_state=True).name == "TimedOut"


def test_callbacks_are_called_and_may_raise(
    wrapped: concurrent.futures.Future[Any],
    future: PrefectConcurrentFuture[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    called: list[Any] = []
    future.add_done_callback(lambda _: 1 / 0)
    future.add_done_callback(called.append)
    assert called == []
    wrapped.set_result(Completed(data=1))
    future.add_done_callback(called.append)
    assert called == [future, future]
    assert "A callback of run" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.fixture
def foreign() -> Iterator[Foreign]:
    future = Foreign(uuid4())
    yield future
    future.end(Completed())


async def test_futures_of_other_task_runners_work_everywhere(foreign: Foreign) -> None:
    assert not foreign.done
    done, not_done = wait([foreign, ended(1)], timeout=0)
    assert not_done == {foreign}
    assert len(done) == 1
    called = threading.Event()
    foreign.add_done_callback(lambda _: called.set())
    asyncio.get_running_loop().call_later(0.01, foreign.end, Completed(data=5))
    assert await foreign == 5
    assert called.wait(5)
    await foreign.wait_async()
    assert wait([foreign]).done == {foreign}
    assert list(as_completed([foreign], timeout=5)) == [foreign]
    assert await PrefectFutureList([foreign, ended(1)]).result_async(timeout=5) == [5, 1]
    assert resolve_futures_to_results({"a": foreign}) == {"a": 5}


def test_states_and_results_in_the_place_of_futures() -> None:
    one, bad = ended(1), ended(Failed(message="f"))
    expr = [one, {"a": bad, one: 2}, (one,), {one}, Box([one]), PrefectFutureList([one]), 1, "x"]
    assert futures_in(expr) == [one, bad]
    states: Any = resolve_futures_to_states(expr)
    assert states[0].result() == 1
    assert states[1]["a"].message == "f"
    assert [key.result() for key in states[1] if isinstance(key, State)] == [1]
    assert states[4].inside[0].is_completed()
    assert type(states[5]) is list
    assert states[6:] == [1, "x"]
    assert expr[0] is one, "what was given stays as it was"
    with pytest.raises(UpstreamFailedRun, match="At least one result did not complete successfully"):
        resolve_futures_to_results(expr)
    assert resolve_futures_to_results([one, {"a": (one,)}, 1]) == [1, {"a": (1,)}, 1]
    assert resolve_futures_to_results([Completed(data=1)])[0].is_completed(), "states are no futures"
    plain = {"a": [1]}
    assert resolve_futures_to_states(plain) is plain
    assert resolve_futures_to_results(5) == 5


def test_they_are_equal_by_run(wrapped: concurrent.futures.Future[Any]) -> None:
    run_id = uuid4()
    one: PrefectConcurrentFuture[Any] = PrefectConcurrentFuture(run_id, wrapped)
    assert one == PrefectConcurrentFuture(str(run_id), wrapped)
    assert one != ended(1)
    with pytest.raises(ValueError, match="no-id"):
        PrefectConcurrentFuture("no-id", wrapped)
