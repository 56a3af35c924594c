"""Workers with child processes, as a user runs them: what ends with what, and what may hold what up."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.integration.harness import PrivateHome, Running, wait_until

Start = Callable[..., Running]

TASKS = """
    import os, re, time
    from dataclasses import dataclass
    from pathlib import Path
    from prefect_lite import task
    from prefect_lite.task_runners import ProcessPoolTaskRunner
    from prefect_lite.task_worker import serve

    HERE = Path(__file__).parent

    @dataclass
    class Point:
        x: int

    @task
    def move(point):
        return Point(point.x + 1)

    @task
    def pid():
        return os.getpid()

    @task
    def sleeps(seconds, name):
        (HERE / name).write_text(str(os.getpid()))
        time.sleep(seconds)
        return "slept"

    @task
    def backtracks(seconds):
        blocks, took = 10, 0.0
        while took < seconds:
            began = time.monotonic()
            re.search(r"(a+)+$", ("a" * 17 + "b") * blocks)  # one call of C, which keeps the GIL
            took = time.monotonic() - began
            blocks = round(1.2 * seconds / took * blocks)
        return took

    @task(log_prints=False)
    def echo(data):
        print("printed", len(data), "bytes in a child")
        return data

    @task
    def inner(x):
        return x + 1

    @task
    def nests(x):
        return inner.delay(x).result(timeout=20)

    if __name__ == "__main__":
        serve(move, pid, sleeps, backtracks, inner, nests, echo, task_runner=ProcessPoolTaskRunner(RUNNER))
        print("serve returned")
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateHome]:
    """One broker for all of these; each test has a worker of its own, and cancels what it leaves to do."""
    private = PrivateHome(tmp_path_factory.mktemp("processes"))
    yield private
    try:
        private.close()
    finally:
        print(private.logs())


@pytest.fixture
def start(home: PrivateHome) -> Iterator[Start]:
    """``start(runner="2", module=False)`` gives a connected worker, with two child processes."""
    started: list[Running] = []

    def run(runner: str = "2", *, module: bool = False) -> Running:
        home.write("tasks.py", TASKS.replace("RUNNER", runner))
        running = home.start("worker", *(("-m", "tasks") if module else ("tasks.py",)))
        started.append(running)
        running.wait_for("Connected")
        return running

    yield run
    for running in started:
        if running.process.poll() is None:
            running.signal(signal.SIGTERM)
            running.wait()


@pytest.fixture
def worker(start: Start) -> Running:
    return start()


def delay(home: PrivateHome, call: str) -> str:
    return home.python(f"import tasks; print(tasks.{call}.task_run_id)").stdout.split()[-1]


def result(home: PrivateHome, run_id: str) -> str:
    """Value, attempt and lost leases."""
    return home.python(
        f"""
        from prefect_lite.futures import PrefectDistributedFuture
        from uuid import UUID
        future = PrefectDistributedFuture(UUID({run_id!r}))
        value = future.result(timeout=50)
        print(value, future.state.state_details.attempt, future.state.state_details.lost)
        """,
        timeout=60,
    ).stdout.strip()


def cancel(home: PrivateHome, *run_ids: str) -> None:
    home.python(
        f"""
        from prefect_lite.futures import PrefectDistributedFuture
        from uuid import UUID
        for run_id in {run_ids!r}:
            PrefectDistributedFuture(UUID(run_id)).cancel()
        """
    )


def marked(home: PrivateHome, name: str) -> int:
    """The process id that a run has written down."""
    path = home.project / name
    wait_until(lambda: path.exists() and path.read_text(), what=name)
    pid = int(path.read_text())
    path.unlink()
    return pid


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_types_of_the_programs_own_file_are_the_same_everywhere(home: PrivateHome, worker: Running) -> None:
    home.python(
        """
        import tasks
        moved = tasks.move.delay(tasks.Point(1)).result(timeout=20)
        assert moved == tasks.Point(2), moved
        assert type(moved) is tasks.Point
        assert tasks.nests.delay(1).result(timeout=20) == 2
        both = [tasks.nests.delay(x) for x in range(2)]  # as many as there are processes: slots are lent
        assert [future.result(timeout=20) for future in both] == [1, 2]
        data = bytes(range(256)) * 12_000
        assert tasks.echo.delay(data).result(timeout=20) == data
        """
    )
    assert "printed 3072000 bytes in a child" in worker.output


def test_a_regex_that_holds_the_interpreter_loses_no_lease(home: PrivateHome, worker: Running) -> None:
    too_long = home.settings.lease_seconds + 5 * home.settings.reap_seconds
    backtracks = delay(home, f"backtracks.delay({too_long})")
    value, attempt, lost = result(home, backtracks).split()
    assert float(value) >= too_long
    assert (attempt, lost) == ("1", "0")


def test_sigterm_lets_runs_finish_even_when_the_whole_group_gets_it(
    home: PrivateHome, worker: Running
) -> None:
    sleeps = delay(home, "sleeps.delay(1, 'child')")
    child = marked(home, "child")
    assert os.getsid(child) == child != os.getsid(worker.pid)  # Ctrl-C in the terminal does not reach it
    for number in (signal.SIGINT, signal.SIGTERM):  # what a supervisor does that signals everybody
        os.kill(child, number)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert gone(child)
    assert "Traceback" not in worker.output
    assert result(home, sleeps) == "slept 1 0"


def test_a_second_sigterm_hands_back_at_once(home: PrivateHome, worker: Running) -> None:
    sleeps = delay(home, "sleeps.delay(60, 'child')")
    child = marked(home, "child")
    worker.signal(signal.SIGTERM)
    worker.wait_for("Stopping")
    worker.signal(signal.SIGTERM)
    assert worker.wait(5) == 0
    assert gone(child)
    assert "Handing back 1 runs" in worker.output
    cancel(home, sleeps)


def test_children_end_with_a_killed_worker(home: PrivateHome, worker: Running) -> None:
    backtracks = delay(home, "backtracks.delay(60)")
    sleeps = delay(home, "sleeps.delay(60, 'child')")
    child = marked(home, "child")
    children = psutil.Process(worker.pid).children()
    assert len(children) == 2
    assert child in {each.pid for each in children}
    worker.kill()
    # The one that lets no Python run cannot notice: the kernel ends it.
    wait_until(lambda: all(gone(each.pid) for each in children), 5, "the end of the children")
    cancel(home, sleeps, backtracks)


def test_ctrl_c_returns_from_serve(start: Start) -> None:
    worker = start(module=True)
    children = psutil.Process(worker.pid).children()
    assert children
    worker.signal(signal.SIGINT)
    worker.wait_for("serve returned")
    assert worker.wait() == 0
    assert all(gone(each.pid) for each in children)


def test_a_program_without_the_main_guard_is_told_so(home: PrivateHome) -> None:
    home.write("tasks.py", TASKS.replace("RUNNER", "1").replace('if __name__ == "__main__":', "if True:"))
    worker = home.start("worker", "tasks.py")
    assert worker.wait(60) == 75  # it tries a few times
    assert 'put it under `if __name__ == "__main__":`' in worker.output


def test_the_command_line(home: PrivateHome) -> None:
    home.write("tasks.py", TASKS)
    options = "--task-runner processes --limit 1 --max-tasks-per-child 1 --max-memory-per-child 1GiB"
    worker = home.start("worker", "-m", "prefect_lite.cli", "worker", "tasks:pid", *options.split())
    worker.wait_for("Serving tasks.pid with 1 slots in child processes.")
    worker.wait_for("Connected")
    seen = home.python(
        """
        import tasks
        print(*(tasks.pid.delay().result(timeout=20) for _ in range(2)))
        """
    ).stdout.split()
    assert len({*seen, str(worker.pid)}) == 3
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
