"""Workers as processes of their own: signals, exit codes, code that holds everything up."""

from __future__ import annotations

import signal
import time

import pytest

from tests.integration.harness import PrivateHome, Running, wait_until

TASKS = """
    import asyncio, time
    from pathlib import Path
    from prefect_lite import task
    from prefect_lite.task_worker import serve

    HERE = Path(__file__).parent

    def mark(name):
        with (HERE / name).open("a") as file:
            file.write("x")

    @task
    def add(x, y):
        return x + y

    @task
    def sleeps(seconds, name="sleeps"):
        mark(name)
        time.sleep(seconds)
        return "slept"

    @task
    async def blocks(seconds):
        mark("blocks")
        time.sleep(seconds)
        return "blocked"

    @task
    def spins(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        return "spun"

    @task
    def holds(count):
        return sum(range(count))

    @task
    def middle(x):
        return add.delay(x, 1).result(timeout=15)

    @task
    def outer(x):
        return middle(x)

    @task
    async def gathers(n):
        futures = [await add.adelay(x, 1) for x in range(n)]
        return sum(await asyncio.gather(*[future.result_async(timeout=15) for future in futures]))

    @task
    def unserved():
        pass

    @task(timeout_seconds=0.5)
    def waits_for_ever():
        unserved.delay().result()

    if __name__ == "__main__":
        serve(add, sleeps, blocks, spins, holds, limit=20)
        print("serve returned")
"""

SUBMIT = "import tasks; print(tasks.{call}.task_run_id)"


@pytest.fixture
def worker(home: PrivateHome) -> Running:
    """A connected worker."""
    home.env["PREFECT_LITE_GRACE_SECONDS"] = "20"
    home.env["PREFECT_LITE_HUNG_SECONDS"] = "0.3"
    home.write("tasks.py", TASKS)
    running = home.start("worker", "tasks.py")
    running.wait_for("Connected")
    return running


def submit(home: PrivateHome, call: str) -> str:
    return home.python(SUBMIT.format(call=call)).stdout.split()[-1]


def result(home: PrivateHome, run_id: str) -> str:
    code = f"""
        from prefect_lite.futures import PrefectDistributedFuture
        from uuid import UUID
        future = PrefectDistributedFuture(UUID({run_id!r}))
        value = future.result(timeout=20)
        print(value, future.state.state_details.attempt, future.state.state_details.lost)
    """
    return home.python(code).stdout.strip()


def marks(home: PrivateHome, name: str) -> int:
    path = home.project / name
    return len(path.read_text()) if path.exists() else 0


def test_an_idle_worker_ends_at_once(worker: Running) -> None:
    began = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.wait(5) == 0
    assert time.monotonic() - began < 2
    assert "Stopping: SIGTERM." in worker.output
    assert "Traceback" not in worker.output


def test_ctrl_c_returns_without_a_traceback(home: PrivateHome, worker: Running) -> None:
    worker.signal(signal.SIGINT)
    assert worker.wait(5) == 0
    assert "Traceback" not in worker.output
    assert worker.output.endswith("serve returned\n")
    assert home.broker_pid
    assert home.valkey_pid


def test_a_run_may_finish_before_the_worker_ends(home: PrivateHome, worker: Running) -> None:
    run_id = submit(home, "sleeps.delay(1)")
    wait_until(lambda: marks(home, "sleeps"))
    worker.signal(signal.SIGTERM)
    assert worker.wait(10) == 0
    assert result(home, run_id) == "slept 1 0"


@pytest.mark.parametrize("call", ["sleeps.delay(30)", "blocks.delay(30)"])
def test_the_second_sigterm_hands_back_at_once(home: PrivateHome, worker: Running, call: str) -> None:
    """Also while the main thread is stuck in a C call, where no Python signal handler can run."""
    submit(home, call)
    name = call.partition(".")[0]
    wait_until(lambda: marks(home, name))
    worker.signal(signal.SIGTERM)
    worker.wait_for("at most 20 s more")
    began = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.wait(10) == 0
    assert time.monotonic() - began < 3
    other = home.start("other", "tasks.py")
    wait_until(lambda: marks(home, name) == 2, what="the run on another worker")
    other.kill()


def test_a_worker_loses_no_run_whatever_its_tasks_do(home: PrivateHome, worker: Running) -> None:
    """``time.sleep`` in threads and in a coroutine, and ten busy threads, for four leases."""
    code = """
        import tasks
        futures = [tasks.sleeps.delay(6), tasks.blocks.delay(6)] + [tasks.spins.delay(6) for _ in range(10)]
        print(*(future.result(timeout=30) for future in futures))
        print({(future.state.state_details.attempt, future.state.state_details.lost) for future in futures})
    """
    output = home.python(code, timeout=60).stdout.splitlines()
    assert output == ["slept blocked " + "spun " * 9 + "spun", "{(1, 0)}"]


def test_code_that_holds_the_interpreter_is_named(home: PrivateHome, worker: Running) -> None:
    assert submit(home, "sleeps.delay(3)")  # another run beside it, which is not to blame
    for _ in range(10):
        output = home.python("import tasks; print(tasks.holds.delay(30_000_000).result(timeout=20))").stdout
        assert output.split() == [str(sum(range(30_000_000)))]
        if "in one C call" in worker.output:
            break  # else the machine gave it less than half of a core: that is told as a machine that paused
    worker.wait_for("in one C call")
    line = next(line for line in worker.output.splitlines() if "in one C call" in line)
    assert "holds held the interpreter for" in line


def test_tasks_that_wait_for_tasks_share_one_slot(home: PrivateHome) -> None:
    home.write("tasks.py", TASKS)
    names = "tasks:add,outer,gathers,waits_for_ever"
    running = home.start("worker", "-m", "prefect_lite_worker", names, "--limit", "1")
    running.wait_for("Connected")
    code = """
        import tasks
        print(tasks.outer.delay(1).result(timeout=20), tasks.gathers.delay(4).result(timeout=20))
        try:
            tasks.waits_for_ever.delay().result(timeout=20)
        except TimeoutError as exc:
            print(exc)
        print(tasks.add.delay(1, 2).result(timeout=20))
    """
    assert home.python(code).stdout.splitlines() == [
        "2 10",
        "waits_for_ever exceeded timeout of 0.5 second(s).",
        "3",
    ]
    assert "did not let go" not in running.output


def test_too_many_stuck_threads_end_the_process(home: PrivateHome) -> None:
    home.write("tasks.py", TASKS)
    running = home.start("worker", "-m", "prefect_lite_worker", "tasks:sleeps", "--limit", "1")
    running.wait_for("Connected")
    code = "import tasks; tasks.sleeps.with_options(timeout_seconds=0.2).delay(60).wait(timeout=20)"
    home.python(code)
    assert running.wait(10) == 75
    assert "Stopping: 1 threads are stuck in code that does not let go" in running.output


def test_the_limit_of_a_served_module_is_the_setting(home: PrivateHome) -> None:
    home.write("tasks.py", TASKS)
    home.env["PREFECT_LITE_LIMIT"] = "4"
    running = home.start("worker", "-m", "prefect_lite_worker", "tasks:add")
    running.wait_for("with 4 slots")
    running.wait_for("Connected")  # else its broker would still be starting when the test ends


def test_the_module_runs_as_a_command(home: PrivateHome) -> None:
    home.write("tasks.py", TASKS)
    running = home.start("worker", "-m", "prefect_lite_worker", "tasks:add,sleeps", "--limit", "3")
    running.wait_for("Serving tasks.add, tasks.sleeps with 3 slots")
    assert home.python("import tasks; print(tasks.add.delay(1, 2).result(timeout=10))").stdout == "3\n"
    failed = home.start("failed", "-m", "prefect_lite_worker", "tasks:nothing")
    assert failed.wait(10) == 1
    assert failed.output.startswith("tasks:nothing does not exist; tasks there: add, sleeps")
