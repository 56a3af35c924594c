"""Task runners of flows that run tasks in other processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from prefect_lite import run_history, task
from prefect_lite.context import FlowRunContext
from prefect_lite.exceptions import CrashedRun, SerializationError
from prefect_lite.flows import flow
from prefect_lite.runtime import flow_run, task_run
from prefect_lite.tagging import tags
from prefect_lite.task_runners import ProcessPoolTaskRunner
from tests.tools.waiting import wait_until


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


@task
def pid() -> int:
    return os.getpid()


@task(retries=1)
def die(seconds: float = 0) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


@task
def about() -> Any:
    submitted = add.submit(1).result()  # a task in a child process may submit, too
    return flow_run.id, flow_run.name, flow_run.parameters, task_run.name, task_run.tags, submitted


@task(retries=1)
def second_time() -> Any:
    if task_run.run_count == 1:
        raise ValueError
    return task_run.run_count


@task(timeout_seconds=0.1)
def deaf() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Event().wait()  # no exception reaches it there


@task
def unsendable() -> Any:
    return threading.Lock()


def run(function: Any, task_runner: Any, **options: Any) -> Any:
    return flow(task_runner=task_runner, **options)(function)()


EXECUTOR_OF_PROCESSES = """
import os, threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from prefect_lite import task
from prefect_lite.flows import flow
from prefect_lite.runtime import flow_run

@task
def where(x):
    return os.getpid(), flow_run.id

def both():
    return where.submit(1), flow_run.id, where.submit(threading.Lock(), return_state=True).message

if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        (pid, there), here, message = flow(task_runner=pool)(both)()
    assert pid != os.getpid()
    assert there == here
    print(message)
"""


def test_an_executor_of_other_processes(tmp_path: Path) -> None:
    # In a program of its own: multiprocessing leaves a helper process behind until the program ends.
    ended = program(tmp_path, EXECUTOR_OF_PROCESSES)
    assert "The argument 'x' of where() can't be sent to another process" in ended.stdout, ended.stderr


def program(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    file = folder / "program.py"
    file.write_text(text)
    return subprocess.run([sys.executable, file], capture_output=True, text=True, timeout=60, check=False)


def test_processes() -> None:
    closure = threading.Lock()

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2), flow_run_name="f{x}")
    def elsewhere(x: int) -> Any:
        with tags("t"):
            told = about.submit()
        record = FlowRunContext.get().flow_run  # type: ignore[union-attr]
        name = f"about-{told.task_run_id.hex[:3]}"
        assert told.result() == (str(record.id), "f3", {"x": 3}, name, ["t"], 2)
        assert pid.submit().result() != os.getpid()
        assert add.submit(later.submit(4), y=add.submit(1)).result() == 10
        again = second_time.submit()
        assert again.result() == 2
        states = [state.name for state in run_history.get(again.task_run_id.hex).states]  # type: ignore[union-attr]
        assert states == ["Pending", "Running", "Retrying", "Completed"]
        with pytest.raises(ValueError, match="boom"):
            bad.submit().result()
        return closure.locked()

    assert elsewhere(3) is False


def test_what_kills_a_process_ends_its_run_only() -> None:
    def deadly() -> Any:
        killed, others = die.submit(0.1), [pid.submit() for _ in range(3)]
        return killed.state, [other.result() for other in others] and killed.result(raise_on_failure=False)

    state, error = run(deadly, ProcessPoolTaskRunner(max_workers=2))
    assert isinstance(error, CrashedRun)
    assert "The process that executed die() was killed by signal 9 (SIGKILL)" in str(error)
    assert not state.is_completed()


def test_processes_are_replaced_and_killed_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_lite.child_pool.KILL_SECONDS", 0.1)

    def uses() -> Any:
        late = deaf.submit(return_state=True)  # type: ignore[call-overload]
        return late.name, pid.submit().result() != pid.submit().result()

    assert run(uses, ProcessPoolTaskRunner(max_workers=1, max_tasks_per_child=1)) == ("TimedOut", True)


class Unsendable(Exception):
    def __init__(self, text: str, lock: Any) -> None:
        super().__init__(text)
        self.lock = lock


@task
def raises_unsendable() -> None:
    raise Unsendable("boom", threading.Lock())


@task
def leaves_a_child() -> None:
    if os.fork() == 0:
        time.sleep(20)  # it holds the socket, too
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


def test_exceptions_come_back_whatever_they_hold_and_say_where_they_were_raised() -> None:
    def uses() -> Any:
        failed = raises_unsendable.submit(return_state=True)  # type: ignore[call-overload]
        return failed.name, failed.result(raise_on_failure=False)

    name, error = run(uses, ProcessPoolTaskRunner(max_workers=1))
    assert (name, type(error), str(error)) == ("Failed", Unsendable, "boom")
    assert "in raises_unsendable" in str(error.__cause__)


def test_a_process_is_missed_even_if_one_that_it_has_forked_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_lite.child_pool.LOOK_SECONDS", 0.05)
    began = time.monotonic()
    state = run(
        lambda: leaves_a_child.submit(return_state=True).name,  # type: ignore[call-overload]
        ProcessPoolTaskRunner(max_workers=1),
    )
    assert state == "Crashed"
    assert time.monotonic() - began < 15


ORPHANS = """
import os, time
from prefect_lite import flow, task
from prefect_lite.task_runners import ProcessPoolTaskRunner

@task
def spins():
    print(os.getpid(), flush=True)
    while True:
        time.sleep(0.1)

@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def waits():
    spins.submit()

if __name__ == "__main__":
    waits()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_program(tmp_path: Path, number: signal.Signals) -> None:
    file = tmp_path / "orphans.py"
    file.write_text(ORPHANS)
    with subprocess.Popen(
        [sys.executable, file],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as ours:
        assert ours.stdout is not None
        child = int(ours.stdout.readline())
        ours.send_signal(number)
        ours.wait(10)
        wait_until(lambda: not alive(child), timeout=10)
        ours.communicate()


def alive(process: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


def test_what_cant_be_sent_is_named() -> None:
    def uses() -> Any:
        with pytest.raises(SerializationError, match=r"The argument 'y' of add\(\) can't be sent"):
            add.submit(1, y=threading.Lock()).result()
        with pytest.raises(SerializationError, match=r"The result of unsendable\(\) can't be sent back"):
            unsendable.submit().result()

    run(uses, ProcessPoolTaskRunner(max_workers=1, max_memory_per_child=1))


PROGRAM = """
from dataclasses import dataclass
from prefect_lite import task
from prefect_lite.flows import flow
from prefect_lite.task_runners import ProcessPoolTaskRunner

@dataclass
class Point:
    x: int

@task
def move(point):
    assert isinstance(point, Point)
    return Point(point.x + 1)

@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def moves():
    return move.submit(move.submit(Point(1)))

{guard}
result = moves()
assert type(result) is Point
print(result)
"""


@pytest.mark.parametrize("guard", [True, False])
def test_a_program_whose_tasks_are_its_own(tmp_path: Path, guard: bool) -> None:
    head, tail = PROGRAM.split("{guard}")
    if guard:
        tail = 'if __name__ == "__main__":\n' + "".join(f"    {line}\n" for line in tail.strip().splitlines())
    ended = program(tmp_path, head + tail)
    if guard:
        assert ended.stdout == "Point(x=3)\n", ended.stderr
    else:
        assert ended.returncode != 0
        assert '`if __name__ == "__main__":`' in ended.stderr
