"""A timeout reaches the main thread inside of a system call."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from prefect_lite import task, waking
from prefect_lite.exceptions import TaskRunTimeoutError

LONG_SECONDS = 30.0


def receives() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(LONG_SECONDS)
        ours.recv(1)


@pytest.mark.parametrize(
    "blocks",
    [
        lambda: time.sleep(LONG_SECONDS),
        receives,
        lambda: threading.Event().wait(LONG_SECONDS),
        lambda: subprocess.run(
            [sys.executable, "-c", f"import time; time.sleep({LONG_SECONDS})"], check=False
        ),
    ],
    ids=["sleep", "recv", "wait", "subprocess"],
)
def test_what_blocks_in_the_main_thread_is_stopped_at_its_timeout(blocks: Callable[[], object]) -> None:
    began = time.monotonic()
    with pytest.raises(TaskRunTimeoutError):
        task(timeout_seconds=0.05)(blocks)()
    assert time.monotonic() - began < LONG_SECONDS / 2


def test_a_timeout_of_a_task_inside_a_task() -> None:
    @task(timeout_seconds=0.05)
    def inner() -> None:
        time.sleep(LONG_SECONDS)

    @task(timeout_seconds=LONG_SECONDS)
    def outer() -> str:
        try:
            inner()
        except TimeoutError:
            return "stopped"
        return "not stopped"

    assert outer() == "stopped"


def test_a_handler_of_the_program_is_left_alone() -> None:
    told: list[int] = []
    before = signal.signal(waking.SIGNAL, lambda number, _frame: told.append(number))
    try:
        waking.prepare()
        waking.wake(threading.get_ident())
        with pytest.raises(TaskRunTimeoutError):
            task(timeout_seconds=0.02)(lambda: [time.sleep(0.05) for _ in range(100)])()
    finally:
        signal.signal(waking.SIGNAL, before)
    assert told == []


def test_other_threads_are_neither_prepared_nor_woken() -> None:
    problems: list[BaseException] = []

    def work() -> None:
        try:
            waking.prepare()
            waking.wake(threading.get_ident())
        except BaseException as exc:
            problems.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert problems == []
