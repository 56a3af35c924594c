"""Tasks that are called by other code that can be stopped or has a loop: nothing is lost on the way."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import weakref

import pytest

from prefect_lite import task
from prefect_lite.alarms import Alarms
from prefect_lite.context import TaskRun, TaskRunContext
from prefect_lite.direct_controls import ThreadControl
from prefect_lite.engine import drive_sync
from prefect_lite.exceptions import TaskRunTimeoutError
from prefect_lite.interrupts import PERMITS, Permits, RunInterrupted
from prefect_lite.logging import prints
from prefect_lite.options import Options
from tests.tools.waiting import wait_until


@pytest.mark.parametrize("under_a_loop", [False, True])
def test_async_conditions_and_hooks_of_a_plain_function(under_a_loop: bool) -> None:
    calls: list[str] = []

    async def condition(_task: object, run: object, state: object) -> bool:
        calls.append("condition")
        await asyncio.sleep(0)
        return True

    async def hook(_task: object, run: object, state: object) -> None:
        await asyncio.sleep(0)
        calls.append(TaskRunContext.get().task_run.task_name)  # type: ignore[union-attr]

    @task(retries=1, retry_condition_fn=condition, on_failure=[hook])
    def fail() -> None:
        raise KeyError("its own")

    async def main() -> None:
        fail()

    with pytest.raises(KeyError, match="its own"):
        asyncio.run(main()) if under_a_loop else fail()
    assert calls == ["condition", "fail"]


def test_a_hook_that_wants_to_leave_changes_nothing() -> None:
    def leave(*_: object) -> None:
        raise SystemExit(3)

    @task(on_completion=[leave])
    def fine() -> int:
        return 1

    assert fine() == 1


class Work:
    """Something that can be interrupted, and referred to weakly."""


class DisturbedControl:
    """Is hit, at the end of the attempt, by an interruption that is not its own."""

    outermost = False

    def __init__(self) -> None:
        self.ends = 0

    def begin(self, attempt: int) -> None:
        pass

    def end(self) -> str | None:
        self.ends += 1
        if self.ends == 1:
            raise RunInterrupted
        return None

    def stop_reason(self) -> str | None:
        return None


def test_an_interruption_of_the_caller_goes_through() -> None:
    @task
    def fine() -> int:
        return 1

    context = TaskRunContext(fine, Options(), TaskRun("0" * 32, fine.key, fine.name), (), {})
    with pytest.raises(RunInterrupted):
        drive_sync(context, DisturbedControl())


def test_ctrl_c_between_two_lines_leaves_no_permit_behind() -> None:
    class Control(DisturbedControl):
        def end(self) -> str | None:
            self.ends += 1
            if self.ends == 1:
                raise KeyboardInterrupt
            return "timeout"  # it was hit by both

    @task(retries=3)
    def fine() -> int:
        return 1

    control = Control()
    context = TaskRunContext(fine, Options(), TaskRun("0" * 32, fine.key, fine.name), (), {})
    with pytest.raises(KeyboardInterrupt):
        drive_sync(context, control)
    assert control.ends == 2


def test_an_interruption_while_prints_are_redirected_is_made_up_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(prints.PrintProxy):
        def __init__(self, stream: object) -> None:
            raise RunInterrupted

    @task(log_prints=True)
    def fine() -> None:
        """Never starts."""

    stream = sys.stdout
    monkeypatch.setattr(prints, "PrintProxy", Interrupted)
    with pytest.raises(RunInterrupted):
        fine()
    assert not prints._users
    assert sys.stdout is stream


def test_a_permit_may_be_withdrawn_twice() -> None:
    permits = Permits()
    permits.grant("work")
    answers: list[bool] = []

    def withdraw() -> None:
        permits.grant("other")
        answers.extend(permits.withdraw("other") for _ in range(2))

    thread = threading.Thread(target=withdraw, daemon=True)
    thread.start()
    thread.join(2)
    assert answers == [False, False]


def test_an_inner_interruption_does_not_swallow_the_outer_one() -> None:
    permits = Permits()
    ready, sent = threading.Event(), threading.Event()
    seen: list[str] = []

    def until(event: threading.Event, seconds: float) -> None:
        """Busy, so that an exception can land."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not event.is_set():
            pass

    def work() -> None:
        permits.grant("outer")
        try:
            permits.grant("inner")
            try:
                ready.set()
                until(threading.Event(), 5)
            except RunInterrupted:
                seen.append("first")
            until(sent, 5)
            permits.withdraw("inner")
            until(threading.Event(), 1)
        except RunInterrupted:
            seen.append("second")
        if permits.withdraw("outer"):
            seen.append("outer")

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(5)
    permits.interrupt("inner")
    permits.interrupt("outer")
    sent.set()
    thread.join()
    assert seen == ["first", "second", "outer"]
    assert not permits._sent
    assert not permits._claims


def test_timeouts_inside_a_timeout() -> None:
    @task(timeout_seconds=0.003)
    def inner() -> None:
        while True:
            pass

    @task(timeout_seconds=0.1)
    def outer() -> None:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            try:
                inner()
            except TaskRunTimeoutError:
                continue

    for _ in range(15):
        with pytest.raises(TaskRunTimeoutError, match="outer"):
            outer()


def test_an_alarm_of_the_last_attempt_hits_nothing() -> None:
    control = ThreadControl(60)
    control.begin(1)
    first = control._attempt
    control.end()
    control.begin(2)
    assert not PERMITS.interrupt(first)
    assert control.end() is None


def test_alarms_of_work_that_has_ended_do_not_pile_up() -> None:
    permits = Permits()
    alarms = Alarms(permits)
    kept: list[weakref.ref[Work]] = []
    for _ in range(1_500):
        work = Work()
        kept.append(weakref.ref(work))
        permits.grant(work)
        alarms.set(3_600, work)
        permits.withdraw(work)
    del work
    wait_until(lambda: sum(ref() is not None for ref in kept) <= 1_100)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_prints_work_in_a_forked_process() -> None:
    with prints._lock:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if prints._lock.acquire(timeout=1) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
