"""Task runners of flows: threads, processes, any executor, one's own."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
import weakref
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from prefect_lite import PrefectConcurrentFuture, allow_failure, as_completed, task, unmapped
from prefect_lite.client.latch import Latch
from prefect_lite.exceptions import CrashedRun, OptionTypeError, UpstreamFailedRun
from prefect_lite.flows import flow
from prefect_lite.runtime import flow_run
from prefect_lite.states import Completed
from prefect_lite.task_runners import (
    ConcurrentTaskRunner,
    PrefectTaskRunner,
    ProcessPoolTaskRunner,
    TaskRunner,
    ThreadPoolTaskRunner,
)


@task
def add(x: Any, y: Any = 1) -> Any:
    return x + y


@task
async def later(x: int) -> int:
    await asyncio.sleep(0)
    return x * 2


@task
def bad() -> None:
    raise ValueError("boom")


@task(retries=1)
def die(seconds: float = 0) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def run(function: Any, task_runner: Any, **options: Any) -> Any:
    return flow(task_runner=task_runner, **options)(function)()


# -- threads ------------------------------------------------------------------------------------------


def test_runs_that_wait_for_others_occupy_no_thread() -> None:
    go = threading.Event()

    @task
    def first() -> int:
        go.wait(10)
        return 1

    def chain() -> Any:
        future = first.submit()
        waits = [add.submit(add.submit(future)), add.submit(0, wait_for=[future])]  # type: ignore[call-overload]
        states = [one.state.name for one in waits]
        go.set()
        return states, waits

    assert run(chain, ThreadPoolTaskRunner(max_workers=1)) == (["Pending", "Pending"], [3, 1])


def test_a_failed_run_takes_those_with_it_that_wait_for_it() -> None:
    def depends() -> Any:
        failed = bad.submit()
        after = add.submit(1, wait_for=[failed])  # type: ignore[call-overload]
        takes = add.submit(failed)
        for future in (after, takes):
            with pytest.raises(UpstreamFailedRun):
                future.result(timeout=5)
        tolerant = later.submit(allow_failure(failed), return_state=True)  # type: ignore[call-overload]
        return after.state.name, takes.state.name, tolerant.is_failed()

    assert run(depends, ThreadPoolTaskRunner(max_workers=1)) == ("UpstreamFailed", "UpstreamFailed", True)


def test_all_of_a_pool_is_used_and_no_more() -> None:
    together = threading.Barrier(3, timeout=10)
    running: list[int] = []

    @task
    def meets(i: int) -> int:
        running.append(1)
        most = len(running)
        together.wait()
        running.pop()
        return most

    assert max(run(lambda: meets.map(range(9)), ConcurrentTaskRunner(max_workers=3))) <= 3


def test_what_ends_the_program_waits_for_what_has_started_only() -> None:
    started, go = threading.Event(), threading.Event()
    seen: list[Any] = []

    @task
    def waits() -> None:
        started.set()
        go.wait(10)

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=1))
    def interrupted() -> None:
        seen.extend([waits.submit(), waits.submit(), add.submit(1)])
        started.wait(10)
        threading.Timer(0.02, go.set).start()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [future.state.name for future in seen] == ["Completed", "Cancelled", "Cancelled"]


def test_a_task_runner_by_itself() -> None:
    runner = ThreadPoolTaskRunner(max_workers=2)
    with pytest.raises(RuntimeError, match="not started"):
        runner.submit(add, {"x": 1})
    with runner:
        with pytest.raises(RuntimeError, match="already started"):
            runner.__enter__()
        assert runner.submit(later, {"x": 2}).result() == 4
        assert runner.map(add, {"x": [1, 2], "y": unmapped(5)}).result() == [6, 7]
    with runner:  # again
        assert runner.submit(add, {"x": 1}).result() == 2


def test_sys_exit_in_a_submitted_task_ends_its_run_only() -> None:
    def exits() -> Any:
        state = task(sys.exit).submit(3, return_state=True)  # type: ignore[call-overload]
        return state.name, isinstance(state.result(raise_on_failure=False), CrashedRun)

    assert run(exits, None) == ("Crashed", True)


def test_context_variables_of_the_caller_are_those_of_the_run() -> None:
    variable = ContextVar("variable", default="outside")

    @task
    def reads() -> str:
        return variable.get()

    def sets() -> Any:
        token = variable.set("inside")
        future = reads.submit()
        variable.reset(token)
        return future, reads.submit()

    assert run(sets, None) == ("inside", "outside")


def test_a_future_that_is_kept_does_not_keep_the_arguments() -> None:
    class Large: ...

    large = [Large()]
    gone = weakref.ref(large[0])
    futures: list[Any] = []

    def submits() -> None:
        futures.append(task(lambda x: None).submit(large.pop()))

    run(submits, None)
    gc.collect()
    assert gone() is None
    assert futures[0].state.is_completed()


def test_timeouts_of_submitted_runs() -> None:
    @task(timeout_seconds=0.05)
    def busy() -> None:
        while True:
            pass

    @task(timeout_seconds=0.05)
    async def sleeps() -> None:
        await asyncio.sleep(10)

    def submits() -> Any:
        return [one.submit(return_state=True).name for one in (busy, sleeps)]  # type: ignore[call-overload]

    assert run(submits, None) == ["TimedOut", "TimedOut"]


def test_a_timeout_that_hits_a_flow_while_it_submits() -> None:
    # A submit that is interrupted in the middle, or a thread that is hit while it starts: one stands still.
    @flow(timeout_seconds=0.005)
    def submits() -> None:
        while True:
            add.submit(1)

    for _ in range(10):
        assert submits(return_state=True).name == "TimedOut"


def test_a_flow_that_is_over_its_time_begins_nothing_more() -> None:
    started: list[int] = []
    go = threading.Event()

    @task
    def waits(i: int) -> None:
        started.append(i)
        go.wait(10)

    def submits() -> None:
        waits.map(range(5))
        while True:
            go.wait(0.01)

    timer = threading.Timer(0.15, go.set)
    timer.start()
    state = flow(task_runner=ThreadPoolTaskRunner(max_workers=1), timeout_seconds=0.05)(submits)(
        return_state=True
    )
    assert state.name == "TimedOut"
    assert len(started) <= 1
    timer.join()


def test_waits_of_a_flow_notice_its_timeout() -> None:
    for wait in (
        lambda future: future.result(),
        lambda future: next(as_completed([future])),
        lambda _: Latch().wait(),
    ):
        go = threading.Event()
        waits = task(go.wait)

        @flow(timeout_seconds=0.05, on_failure=[lambda *_, go=go: go.set()])  # else it waits for its task
        def stuck(wait: Any = wait, waits: Any = waits) -> Any:
            return wait(waits.submit(10))

        began = time.monotonic()
        assert stuck(return_state=True).name == "TimedOut"
        assert time.monotonic() - began < 5


def test_a_failure_ends_a_long_chain_in_any_runner() -> None:
    class Elsewhere(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            return others.submit(fn, *args, **kwargs)

    def chain() -> Any:
        last = waits.submit()
        for _ in range(400):
            last = add.submit(last)
        go.set()
        last.wait(10)
        return last.state.name, last.state.message

    with ThreadPoolExecutor(1) as others:
        for runner in (None, Elsewhere(), ProcessPoolTaskRunner(max_workers=1)):
            go = threading.Event()

            @task
            def fails(go: Any = go) -> None:
                go.wait(10)
                raise ValueError("boom")

            waits = die if isinstance(runner, ProcessPoolTaskRunner) else fails
            name, message = run(chain, runner)
            assert name == "UpstreamFailed"
            assert len(message) < 300


def test_asynchronous_flows_that_wait_leave_the_threads_of_the_event_loop_alone() -> None:
    go = threading.Event()

    @task
    def waits() -> None:
        assert go.wait(10)

    @flow
    async def leaves() -> None:
        waits.submit()

    async def many() -> None:
        flows = [asyncio.ensure_future(leaves()) for _ in range(40)]
        await asyncio.sleep(0.05)
        await asyncio.to_thread(go.set)
        await asyncio.gather(*flows)

    asyncio.run(many())


def test_a_run_that_was_given_up_while_it_waited_does_not_open_a_pool_again() -> None:
    runner, other = ThreadPoolTaskRunner(max_workers=1), Future[Any]()
    runner.__enter__()
    after = runner.submit(add, {"x": PrefectConcurrentFuture(uuid4(), other)})
    runner.__exit__(KeyboardInterrupt, None, None)
    assert after.state.name == "Cancelled"
    other.set_result(Completed(data=1))
    assert runner._pool is None


def test_a_run_is_warned_before_it_waits_for_its_own_thread(caplog: pytest.LogCaptureFixture) -> None:
    @task
    def submits() -> Any:
        return add.submit(1)  # not waited for here

    def nested() -> Any:
        return submits.submit().result().result()

    with caplog.at_level("WARNING"):
        assert run(nested, ThreadPoolTaskRunner(max_workers=2)) == 2
        assert not caplog.records
        assert run(nested, ThreadPoolTaskRunner(max_workers=1)) == 2
    assert "add is submitted by a run of the same task runner" in caplog.text


# -- any executor -------------------------------------------------------------------------------------


class Inline(Executor):
    """Calls where it is asked to."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Lost(Executor):
    """Loses what it is given."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(ConnectionError("the cluster is gone"))
        return future


def uses() -> Any:
    future = add.submit(add.submit(1))
    failed = bad.submit(return_state=True)  # type: ignore[call-overload]
    return future, later.map([1, 2]), failed.result(raise_on_failure=False).args, flow_run.id is not None


def test_executors() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert run(uses, pool) == (3, [2, 4], ("boom",), True)
        assert run(uses, pool) == (3, [2, 4], ("boom",), True)  # it is the user's: not shut down
    assert run(uses, lambda: ThreadPoolExecutor(1)) == (3, [2, 4], ("boom",), True)
    assert run(uses, Inline()) == (3, [2, 4], ("boom",), True)
    assert run(uses, ThreadPoolTaskRunner) == (3, [2, 4], ("boom",), True)
    with pytest.raises(OptionTypeError, match="gave 5"):
        run(uses, lambda: 5)
    with pytest.raises(ConnectionError, match="gone"):
        run(lambda: add.submit(1), Lost())


def test_an_executor_that_is_shut_down_gives_its_runs_up() -> None:
    started, go = threading.Event(), threading.Event()

    @task
    def waits() -> None:
        started.set()
        go.wait(10)

    pool = ThreadPoolExecutor(1)

    def shuts_down() -> Any:
        first, second = waits.submit(), waits.submit()
        started.wait(10)
        pool.shutdown(wait=False, cancel_futures=True)
        go.set()
        return [future.state.name for future in (first, second, add.submit(1)) if not future.wait()]

    assert run(shuts_down, pool) == ["Completed", "Cancelled", "Crashed"]


class Recorder(TaskRunner):
    """A task runner of somebody's own."""

    seen: ClassVar[list[Any]] = []

    def duplicate(self) -> Recorder:
        return Recorder()

    def submit(self, task: Any, parameters: Any, wait_for: Any = None, dependencies: Any = None) -> Any:
        self.seen.append((task.name, parameters, wait_for))
        future: Future[Any] = Future()
        future.set_result(Completed(data="recorded"))
        return PrefectConcurrentFuture(uuid4(), future)

    def __exit__(self, *how: Any) -> None:
        self.seen.append("left")
        super().__exit__(*how)


def test_a_task_runner_of_ones_own() -> None:
    class Counter:
        @task
        def count(self, n: int) -> int:
            return n

    def recorded() -> Any:
        return add.submit(1, y=2), add.map([1]), Counter().count.submit(5)

    assert run(recorded, Recorder()) == ("recorded", ["recorded"], "recorded")
    assert [*Recorder.seen] == [
        ("add", {"x": 1, "y": 2}, None),
        ("add", {"x": 1}, None),
        ("count", {"n": 5}, None),
        "left",
    ]


def test_the_runner_for_the_background_sends_runs_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr("prefect_lite.submission.send", lambda *call: sent.append(call) or Completed(data=7))
    runner = PrefectTaskRunner()
    assert runner.duplicate() == runner
    assert run(lambda: add.submit(1, y=2, wait_for=[later]), runner) == 7  # type: ignore[call-overload]
    (call,) = sent
    assert call[:3] == (add, (1, 2), {})
    assert [later] in call
