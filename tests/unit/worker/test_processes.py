"""Runs in child processes: what happens to a run whose process ends, is killed, or is used up."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect_lite_worker.app import WorkerApp
from prefect_lite_worker.child_setup import pickled_task

from prefect_lite import task
from prefect_lite.exceptions import ConfigurationError, CrashedRun
from prefect_lite.settings import Settings
from prefect_lite.task_runners import ProcessPoolTaskRunner
from tests.tools.waiting import wait_until
from tests.unit.worker import process_tasks as tasks

Serve = Callable[..., Any]


def run(broker: Any, task: Any, *args: Any, **kwargs: Any) -> Any:
    return broker.outcome(broker.push(task.key, *args, **kwargs))


def children(served: Any) -> list[int]:
    return served.app._parts.pool.pids


@pytest.fixture
def processes(serve: Serve) -> Callable[..., Any]:
    """``processes(*tasks, max_workers=1, ...)`` serves in child processes."""

    def start(*served: Any, max_workers: int = 1, **options: Any) -> Any:
        runner = ProcessPoolTaskRunner(max_workers, **options)
        return serve(*served, limit=max_workers, runner=runner)

    return start


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("exit", "its process exited with code 7"),
        ("segfault", "its process was killed by signal 11 (SIGSEGV)"),
        ("kill", "its process was killed by signal 9 (SIGKILL); the system does that when memory runs out"),
    ],
)
def test_a_run_that_takes_its_process_down_ends_as_crashed(
    processes: Serve, broker: Any, how: str, said: str
) -> None:
    processes(tasks.dies, tasks.add)
    crashed = broker.push(tasks.dies.key, how)
    behind = broker.push(tasks.add.key, 1, 2)
    with pytest.raises(CrashedRun) as caught:
        broker.outcome(crashed)
    assert said in str(caught.value)
    end = broker.finished[crashed]
    assert (end.type, end.name) == ("CRASHED", "Crashed")
    assert end.message == f"dies: {said}."
    assert broker.outcome(behind) == 3


def test_a_crash_uses_no_retries(processes: Serve, broker: Any) -> None:
    processes(tasks.dies)
    crashed = broker.push(tasks.dies.key, "exit", options={"retries": 5})
    assert broker.end(crashed).name == "Crashed"


def test_a_child_that_dies_before_the_code_begins_is_replaced_once(
    processes: Serve, broker: Any, tmp_path: Path
) -> None:
    processes(tasks.add)
    loaded = str(tmp_path / "loaded")
    assert run(broker, tasks.add, [tasks.DiesWhenLoaded(loaded)], []) == [loaded]


def test_a_run_that_closes_every_descriptor_ends_as_crashed(processes: Serve, broker: Any) -> None:
    processes(tasks.hangs_up)
    hung_up = broker.end(broker.push(tasks.hangs_up.key))
    assert hung_up.message == "hangs_up: its process exited with code 1."


def test_lines_come_while_the_run_goes_on(processes: Serve, broker: Any) -> None:
    processes(tasks.says_and_hangs)
    running = broker.push(tasks.says_and_hangs.key, "said before it is killed")
    wait_until(lambda: broker.logs, 5, "the line")
    assert broker.logs[0].lines[0][3] == "said before it is killed"
    assert running not in broker.finished


def test_an_idle_child_that_was_killed_costs_nothing(processes: Serve, broker: Any) -> None:
    served = processes(tasks.pid)
    first = run(broker, tasks.pid)
    os.kill(first, signal.SIGKILL)
    assert run(broker, tasks.pid) != first
    assert len(children(served)) == 1


# -- deadlines and cancelling -------------------------------------------------------------------------


def test_stubborn_code_is_killed_and_its_child_replaced(processes: Serve, broker: Any) -> None:
    served = processes(tasks.stubborn, tasks.pid)
    before = run(broker, tasks.pid)
    late = broker.push(tasks.stubborn.key, 60, options={"timeout_seconds": 0.1})
    end = broker.end(late)
    assert (end.type, end.name) == ("FAILED", "TimedOut")
    assert end.run_seconds < 2.1
    wait_until(lambda: not psutil.pid_exists(before), 5, "the end of the child")
    assert run(broker, tasks.pid) != before
    assert len(children(served)) == 1


def test_a_killed_attempt_is_retried_like_any_that_timed_out(
    processes: Serve, broker: Any, tmp_path: Path
) -> None:
    processes(tasks.stubborn_once)
    mark = str(tmp_path / "mark")
    first = broker.push(tasks.stubborn_once.key, mark)
    wait_until(lambda: first in broker.retried, 10, "the retry")
    assert broker.retried[first].attempt == 2
    assert broker.outcome(broker.push(tasks.stubborn_once.key, mark, attempt=2)) == "second"


def test_code_whose_lease_is_lost_is_killed(processes: Serve, broker: Any) -> None:
    served = processes(tasks.stubborn, tasks.pid)
    running = broker.push(tasks.stubborn.key, 60)
    broker.wait_running(running)
    (child,) = children(served)
    broker.revoke(running)
    wait_until(lambda: not psutil.pid_exists(child), 5, "the end of the child")
    assert run(broker, tasks.pid) != child
    assert running not in broker.finished


def test_what_a_killed_run_has_started_ends_with_it(processes: Serve, broker: Any, tmp_path: Path) -> None:
    processes(tasks.starts_program)
    mark = tmp_path / "mark"
    running = broker.push(tasks.starts_program.key, str(mark))
    wait_until(lambda: mark.exists() and mark.read_text(), 5, "the program")
    broker.cancel(running)
    assert broker.end(running).name == "Cancelled"
    program = int(mark.read_text())
    wait_until(
        lambda: not psutil.pid_exists(program) or psutil.Process(program).status() == psutil.STATUS_ZOMBIE,
        5,
        "the end of the program",
    )


@pytest.mark.parametrize(
    ("how", "told"),
    [("exit", "Crashed: hooked: its process exited"), ("stubborn", "TimedOut: hooked exceeded timeout")],
)
def test_hooks_learn_of_runs_that_could_not_call_them(
    processes: Serve, broker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, told: str
) -> None:
    mark = tmp_path / "mark"
    monkeypatch.setenv("PROCESS_TASKS_MARK", str(mark))
    processes(tasks.hooked)
    broker.end(broker.push(tasks.hooked.key, str(mark), how, options={"timeout_seconds": 0.3}))
    assert mark.read_text().startswith(told)


# -- replacing children -------------------------------------------------------------------------------


def test_a_child_retires_after_so_many_runs_and_leaves_nothing(processes: Serve, broker: Any) -> None:
    served = processes(tasks.pid, max_tasks_per_child=2)
    seen = [run(broker, tasks.pid)]
    open_files = psutil.Process().num_fds()
    seen += [run(broker, tasks.pid) for _ in range(4)]
    assert seen[0] == seen[1] != seen[2] == seen[3] != seen[4]
    wait_until(lambda: not any(map(psutil.pid_exists, seen[:4])), 5, "the end of the first two")
    assert {child.pid for child in psutil.Process().children()} >= set(children(served))
    assert psutil.Process().num_fds() <= open_files


def test_exit_handlers_of_a_child_run_to_their_end(processes: Serve, broker: Any, tmp_path: Path) -> None:
    processes(tasks.logs_when_the_process_ends, max_tasks_per_child=1)
    mark = tmp_path / "mark"
    run(broker, tasks.logs_when_the_process_ends, str(mark))
    wait_until(mark.exists, 5, "the exit handler")


def test_a_child_retires_when_it_has_grown_too_large(processes: Serve, broker: Any) -> None:
    processes(tasks.hoards, tasks.pid, max_memory_per_child=200 << 20)
    first = run(broker, tasks.pid)
    assert run(broker, tasks.pid) == first
    assert run(broker, tasks.hoards, 250 << 20) == first
    assert run(broker, tasks.pid) != first


def test_as_many_children_as_runs_and_no_more(processes: Serve, broker: Any) -> None:
    served = processes(tasks.sleeps, tasks.pid, max_workers=2)
    assert len(children(served)) == 1  # the first one shows that the tasks can be loaded
    runs = [broker.push(tasks.sleeps.key, 0.2) for _ in range(4)]
    for each in runs:
        assert broker.outcome(each) == "slept"
    assert len(children(served)) == 2


def test_children_that_cannot_load_the_tasks_stop_the_worker(
    serve: Serve, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefect_lite_worker.child_setup.pickled_task", lambda task: b"nonsense")
    monkeypatch.setattr("prefect_lite_worker.processes.FAILED_START_SECONDS", 0.01)
    served = serve(tasks.pid, limit=1, runner=ProcessPoolTaskRunner(1))
    waiting = broker.push(tasks.pid.key)
    served.wait()
    assert "its child processes don't start" in str(served.error)
    assert waiting in broker.released or not broker.is_running(waiting)


def test_a_worker_goes_on_with_the_children_it_has(
    processes: Serve, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Perhaps there are too many processes on the machine for the moment."""
    monkeypatch.setattr("prefect_lite_worker.processes.FAILED_START_SECONDS", 0.01)
    processes(tasks.sleeps, tasks.pid, max_workers=2)
    first = run(broker, tasks.pid)
    refused: list[int] = []
    popen = subprocess.Popen

    def refuse(*args: Any, **kwargs: Any) -> Any:
        if len(refused) == 5:
            return popen(*args, **kwargs)
        refused.append(1)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("prefect_lite_worker.children.subprocess.Popen", refuse)
    long = broker.push(tasks.sleeps.key, 60)
    broker.wait_running(long)
    assert run(broker, tasks.pid) != first
    assert len(refused) == 5


# -- which tasks --------------------------------------------------------------------------------------


def test_changed_tasks_and_those_of_no_module_go_along(processes: Serve, broker: Any) -> None:
    added = 40

    @task
    def plus(x: int) -> int:
        return x + added

    renamed = tasks.dies.with_options(name="renamed")
    processes(plus, renamed)
    assert run(broker, plus, 2) == 42
    assert broker.end(broker.push(renamed.key, "exit")).message.startswith("renamed: ")


def test_a_task_that_cannot_go_along_is_refused_at_once(serve: Serve) -> None:
    lock = threading.Lock()

    @task
    def locked() -> None:
        lock.acquire()

    served = serve(locked, limit=1, runner=ProcessPoolTaskRunner(1))
    served.wait()
    assert isinstance(served.error, ConfigurationError)
    assert "locked can't be sent to another process" in str(served.error)


def test_a_task_of_a_program_without_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_lite_worker.child_setup.import_name_of", lambda task: "__main__")
    with pytest.raises(ConfigurationError, match="without a file"):
        pickled_task(tasks.pid)


@pytest.mark.anyio
async def test_a_guest_in_a_program_ends_its_children_too(settings: Settings, broker: Any) -> None:
    app = WorkerApp([tasks.aadd, tasks.stubborn], settings=settings, limit=2, runner=ProcessPoolTaskRunner(2))
    serving = asyncio.create_task(app.aserve())
    added = broker.push(tasks.aadd.key, 1, 2)
    running = broker.push(tasks.stubborn.key, 60)
    assert await asyncio.to_thread(broker.outcome, added) == 3
    await asyncio.to_thread(broker.wait_running, running)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert running in broker.released
