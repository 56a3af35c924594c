"""Runs in executors that the user has brought."""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.resource_tracker
import multiprocessing.util
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest

from prefect_lite.context import current_context
from prefect_lite.exceptions import CancelledRun, CrashedRun, TaskRunTimeoutError, WorkerStuck
from prefect_lite.serving import make_worker
from prefect_lite.task_runners import ExecutorTaskRunner
from tests.tools.waiting import wait_until
from tests.unit.worker import process_tasks as tasks

Serve = Callable[..., Any]


@pytest.fixture
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(2, thread_name_prefix="mine") as executor:
        yield executor


def run(broker: Any, task: Any, *args: Any, **kwargs: Any) -> Any:
    return broker.outcome(broker.push(task.key, *args, **kwargs))


def test_runs_in_threads_of_an_executor(serve: Serve, broker: Any, threads: Executor) -> None:
    serve(tasks.threads, tasks.aadd, tasks.fails, tasks.third_time, runner=threads)
    assert run(broker, tasks.threads)[0].startswith("mine")
    assert run(broker, tasks.aadd, 1, 2) == 3
    with pytest.raises(ValueError, match="boom"):
        run(broker, tasks.fails, "boom")
    tasks.attempts.clear()
    assert run(broker, tasks.third_time) == [1, 2, 3]


def test_a_thread_of_an_executor_is_in_no_run_afterwards(serve: Serve, broker: Any) -> None:
    with ThreadPoolExecutor(1) as executor:
        serve(tasks.add, runner=executor)
        assert run(broker, tasks.add, 1, 2) == 3
        assert executor.submit(current_context).result() is None


def test_log_lines_come_back_with_the_result(serve: Serve, broker: Any, threads: Executor) -> None:
    serve(tasks.logs, runner=threads)
    broker.end(broker.push(tasks.logs.key, "said"))
    assert broker.logs[0].lines[0][3] == "said"


def test_results_of_others_are_filled_in(serve: Serve, broker: Any, threads: Executor) -> None:
    from prefect_lite.placeholders import Upstream

    serve(tasks.add, runner=threads)
    one = broker.ended(40)
    joined = broker.link(tasks.add.key, Upstream(one.run_id, False), 2)
    broker.tell(one)
    assert broker.outcome(joined) == 42


def test_timeouts_are_kept_over_there(serve: Serve, broker: Any, threads: Executor) -> None:
    serve(tasks.stubborn, tasks.asleeps, tasks.spins, runner=threads)
    late = [
        broker.push(task.key, 60, options={"timeout_seconds": 0.1}) for task in (tasks.asleeps, tasks.spins)
    ]
    for each in late:
        with pytest.raises(TaskRunTimeoutError):
            broker.outcome(each)


def test_a_run_that_does_not_let_go_ends_without_its_code(
    serve: Serve, broker: Any, threads: Executor
) -> None:
    served = serve(tasks.stubborn, tasks.add, runner=threads)
    late = broker.push(tasks.stubborn.key, 0.8, options={"timeout_seconds": 0.1})
    assert broker.end(late).name == "TimedOut"
    assert served.app._parts.work.stops.stuck == 1
    assert run(broker, tasks.add, 1, 2) == 3


def test_a_run_that_waits_in_the_executor_is_cancelled_at_once(serve: Serve, broker: Any) -> None:
    with ThreadPoolExecutor(1) as single:
        serve(tasks.sleeps, limit=2, runner=single)
        running = broker.push(tasks.sleeps.key, 0.5)
        waiting = broker.push(tasks.sleeps.key, 0.5)
        broker.wait_running(running)
        broker.cancel(waiting)
        with pytest.raises(CancelledRun):
            broker.outcome(waiting)
        assert running not in broker.finished
        assert broker.outcome(running) == "slept"


@pytest.fixture
def tracker_ended() -> Iterator[None]:
    """``multiprocessing`` leaves a process for the next pool, and starts it anew to collect a queue."""
    yield
    # It removes the semaphores that it knows, and those that are collected after it find themselves removed.
    wait_until(lambda: gc.collect() >= 0 and not _semaphores(), 5, "the end of the executor's queues")
    multiprocessing.resource_tracker._resource_tracker._stop()


def _semaphores() -> list[Any]:
    known = [*multiprocessing.util._finalizer_registry.values()]
    return [one for one in known if "SemLock" in getattr(one._callback, "__qualname__", "")]


def test_processes_of_an_executor(tracker_ended: None, serve: Serve, broker: Any) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        served = serve(tasks.pid, tasks.dies, limit=1, runner=executor)
        assert run(broker, tasks.pid) != os.getpid()
        crashed = broker.push(tasks.dies.key, "exit")
        with pytest.raises(CrashedRun, match="executor has failed"):
            broker.outcome(crashed)
        # Such an executor is broken for good, so the worker ends and lets its supervisor start a new one.
        served.wait()
    assert isinstance(served.error, WorkerStuck)
    assert "executor takes no more runs" in str(served.error)


class Refusing(Executor):
    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        raise RuntimeError("cannot schedule new futures after shutdown")


def test_what_an_executor_refuses_is_handed_back(serve: Serve, broker: Any) -> None:
    served = serve(tasks.pid, runner=Refusing())
    refused = broker.push(tasks.pid.key)
    wait_until(lambda: refused in broker.released, 5, "the release")
    served.wait()


def test_its_size_bounds_the_slots(threads: Executor) -> None:
    assert make_worker([tasks.pid], limit=10, task_runner=threads).limit == 2
    assert make_worker([tasks.pid], limit=1, task_runner=ExecutorTaskRunner(threads)).limit == 1
    assert make_worker([tasks.pid], limit=7, task_runner=Refusing()).limit == 7
