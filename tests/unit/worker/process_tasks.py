"""Tasks that child processes import."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from prefect_lite import get_run_logger, task
from prefect_lite.context import TaskRunContext

hoard: list[bytes] = []


@task
def pid() -> int:
    return os.getpid()


@task
def add(x: Any, y: Any) -> Any:
    return x + y


@task
async def aadd(x: int, y: int) -> int:
    await asyncio.sleep(0)
    return x + y


@task
def fails(text: str) -> None:
    raise ValueError(text)


@task
def logs(text: str) -> None:
    get_run_logger().warning(text)


@task(log_prints=True)
def prints(text: str) -> None:
    print(text)


@task
def dies(how: str, mark: str = "") -> None:
    if mark:
        Path(mark).write_text("began")
    if how == "exit":
        os._exit(7)
    if how == "segfault":
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)


class DiesWhenLoaded:
    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return _die_the_first_time, (self.mark,)


def _die_the_first_time(mark: str) -> str:
    if not Path(mark).exists():
        Path(mark).write_text("loaded")
        os._exit(9)
    return mark


@task
def sleeps(seconds: float, mark: str = "") -> str:
    try:
        time.sleep(seconds)
    finally:
        if mark:
            Path(mark).write_text("cleaned up")
    return "slept"


@task
async def asleeps(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"


@task
def spins(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass


@task
def starts_program(mark: str) -> None:
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Path(mark).write_text(str(program.pid))
    stubborn.fn(60)


@task
def stubborn(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            while time.monotonic() < deadline:
                pass
        except BaseException:
            continue


@task(timeout_seconds=0.2, retries=1)
def stubborn_once(mark: str) -> str:
    if Path(mark).exists():
        return "second"
    Path(mark).write_text("first")
    stubborn.fn(60)
    return "first"


@task
def has_a_process_of_its_own() -> int | None:
    forked = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    forked.start()
    forked.terminate()
    forked.join(5)
    return forked.exitcode


@task
def hangs_up() -> None:
    os.closerange(3, 256)


@task
def hoards(count: int) -> int:
    hoard.append(b"x" * count)
    return os.getpid()


attempts: list[int] = []


@task(retries=2)
def third_time() -> list[int]:
    context = TaskRunContext.get()
    assert context is not None
    attempts.append(context.task_run.run_count)
    if len(attempts) < 3:
        raise ValueError("not yet")
    return attempts


@task
def threads() -> tuple[str, str]:
    return threading.current_thread().name, __name__


@task
def hooked(mark: str, how: str) -> None:
    if how == "stubborn":
        stubborn.fn(60)
    dies.fn(how)


@hooked.on_failure
def _note(task: Any, run: Any, state: Any) -> None:
    Path(os.environ["PROCESS_TASKS_MARK"]).write_text(f"{state.name}: {state.message}")


again: list[str] = []


@task(timeout_seconds=0.3, retries=1)
def hangs_the_second_time() -> None:
    again.append("called")
    if len(again) % 2:
        raise ValueError("the first time")
    time.sleep(60)


@task(retries=1)
def forks(how: str) -> int:
    copy = os.fork()
    if copy == 0:
        if how == "raises":
            raise ValueError("in the copy")
        if how == "leaves":
            sys.exit(3)
        return 0
    return os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])


@task(log_prints=True, task_run_name="half \ud800")
def says_half_a_character() -> None:
    print("half \ud800")
    raise ValueError("half \ud800")


@task
def logs_when_the_process_ends(mark: str) -> None:
    logger = get_run_logger()

    def note() -> None:
        for _ in range(20):
            logger.info("on its way to nobody")
            time.sleep(0.01)
        Path(mark).write_text("noted")

    atexit.register(contextvars.copy_context().run, note)  # as ``asyncio.to_thread`` would


@task
def says_and_hangs(text: str) -> None:
    get_run_logger().info(text)
    stubborn.fn(60)
