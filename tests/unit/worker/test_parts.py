"""The worker's small parts, each on its own."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect_lite_worker import deadlines
from prefect_lite_worker.app import WorkerApp
from prefect_lite_worker.desk import MAX_LINES, Desk, Ended
from prefect_lite_worker.lifecycle import EXIT_UNACKNOWLEDGED, STOPPED, Lifecycle
from prefect_lite_worker.registry import Registry, load_tasks
from prefect_lite_worker.reporting import LINES_PER_MESSAGE, Reporter, duration, log_messages
from prefect_lite_worker.stalls import StallWatch
from prefect_lite_worker.terminal import Terminal
from scripted_broker import wait_until

from prefect_lite import task
from prefect_lite.exceptions import ConfigurationError, DuplicateTaskKey
from prefect_lite.protocol.codec import MAX_FRAME, encode_frame
from prefect_lite.protocol.messages import Retry
from prefect_lite.run_ends import Outcome
from prefect_lite.task_runners import ThreadPoolTaskRunner
from prefect_lite.task_worker import TaskWorker, serve


@task(key="p.one", aliases=["p.uno"])
def one() -> int:
    return 1


@task(key="p.uno")
def two() -> int:
    return 2


def test_the_registry() -> None:
    registry = Registry([one, one])
    assert registry.keys == ["p.one", "p.uno"]
    assert registry.get("p.uno") is one
    assert registry.get("p.other") is None
    with pytest.raises(DuplicateTaskKey, match=r"'two' and 'one' both have the key 'p.uno'"):
        Registry([one, two])
    with pytest.raises(ConfigurationError, match="at least one"):
        Registry([])
    with pytest.raises(ConfigurationError, match="Decorate it with @task"):
        Registry([len])  # type: ignore[list-item]


def test_loading_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "loadable_app"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "jobs.py").write_text(
        "from prefect_lite import task\n@task\ndef a(): pass\n@task\ndef b(): pass\nc = 1\n"
    )
    (tmp_path / "empty_module.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [found.key for found in load_tasks(["loadable_app.jobs"])] == [
        "loadable_app.jobs.a",
        "loadable_app.jobs.b",
    ]
    assert [found.name for found in load_tasks(["loadable_app.jobs:b, a"])] == ["b", "a"]
    assert load_tasks(["loadable_app/jobs.py:a"])[0].key == "loadable_app.jobs.a"
    for target, problem in [
        ("loadable_app.jobs:c", "c is no task; tasks there: a, b"),
        ("loadable_app.jobs:d", "d does not exist"),
        ("no_such_module", "no module 'no_such_module'"),
        ("no_such_file.py", "no file"),
        ("empty_module", "has no tasks"),
    ]:
        with pytest.raises(ConfigurationError, match=problem):
            load_tasks([target])


def test_deadlines_come_in_order_and_only_for_the_same_attempt() -> None:
    heap = deadlines.Deadlines()
    first, second = SimpleNamespace(attempt=1), SimpleNamespace(attempt=1)
    heap.add(2.0, deadlines.EXPIRE, first)  # type: ignore[arg-type]
    heap.add(1.0, deadlines.EXPIRE, second)  # type: ignore[arg-type]
    heap.add(3.0, deadlines.GIVE_UP, first)  # type: ignore[arg-type]
    assert heap.next == 1.0
    assert heap.due(0.5) == []
    assert heap.due(1.0) == [(deadlines.EXPIRE, second)]
    first.attempt = 2
    assert heap.due(5.0) == [(deadlines.GIVE_UP, first)]
    assert heap.next is None


def test_deadlines_of_ended_runs_do_not_pile_up() -> None:
    heap = deadlines.Deadlines()
    for number in range(20_000):
        run: Any = SimpleNamespace(attempt=1, number=number)
        heap.compact(2, lambda other, last=number: other.number >= last - 1)  # type: ignore[misc]
        heap.add(1_000.0 + number, deadlines.EXPIRE, run)
        assert len(heap) <= 2 * 2 + 1_001
    found = [run.number for _, run in heap.due(1e9)]
    assert found[-2:] == [19_998, 19_999], "the living are still there, in order"


def test_a_retry_behind_a_first_start_is_told_at_once() -> None:
    class Starting:
        attempt = first = 1

    async def main() -> None:
        taken: list[bool] = []
        desk = Desk()
        desk.open(asyncio.get_running_loop(), lambda: taken.append(desk.again))
        run: Any = Starting()
        desk.start(run, again=True)
        desk.start(run, again=False)
        await asyncio.sleep(0)
        assert taken == [True]

    asyncio.run(main())


class FakeWorker:
    def __init__(self, runs: int, held: int) -> None:
        self.runs_left = runs
        self.unacknowledged = held
        self.calls: list[str] = []

    def refuse_new(self) -> None:
        self.calls.append("refuse_new")

    def release_rest(self) -> None:
        self.calls.append(f"release {self.runs_left}")
        self.runs_left = 0


def test_draining_waits_for_runs_then_for_acknowledgements() -> None:
    async def main() -> None:
        worker = FakeWorker(1, 1)
        life = Lifecycle(worker, asyncio.get_running_loop().time)
        life.stop("test", grace_seconds=60)
        draining = asyncio.create_task(life.drain())
        await asyncio.sleep(0)
        assert worker.calls == ["refuse_new"]
        worker.runs_left = 0
        life.notify()
        await asyncio.sleep(0.01)
        assert worker.calls == ["refuse_new", "release 0"]
        assert not draining.done()
        worker.unacknowledged = 0
        life.notify()
        await draining
        assert (life.phase, life.exit_code) == (STOPPED, 0)

    asyncio.run(main())


def test_a_broker_that_does_not_acknowledge_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_lite_worker.lifecycle.ACKNOWLEDGE_SECONDS", 0.05)

    async def main() -> None:
        worker = FakeWorker(2, 2)
        life = Lifecycle(worker, asyncio.get_running_loop().time)
        life.stop("first", grace_seconds=60)
        life.stop("second", grace_seconds=60)
        await life.drain()
        assert worker.calls == ["refuse_new", "release 2"]
        assert life.exit_code == EXIT_UNACKNOWLEDGED

    asyncio.run(main())


def spin(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_the_stall_watch_names_who_used_the_processor() -> None:
    busy, idle = threading.get_ident(), 0
    names = {busy: "hog"}
    watch = StallWatch(0.05, lambda: names)
    now = time.monotonic()
    watch.expect(now)
    assert watch.tick(now) is None
    watch.expect(now)
    spin(0.1)
    assert "hog held the interpreter for 0.1 s" in (watch.tick(now + 0.1) or "")
    watch.expect(now + 1)
    assert watch.tick(now + 1.01) is None, "a little late is nothing"
    watch.expect(now + 2)
    assert "was paused" in (watch.tick(now + 9) or "")
    assert idle == 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.00021, "0.2 ms"), (0.25, "250 ms"), (1.54, "1.5 s"), (125, "2:05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_line_per_run() -> None:
    lines: list[Callable[[], str]] = []
    reporter = Reporter(lines.append, logging.INFO, "worker")
    run: Any = SimpleNamespace(name="one", run_id="ab" * 16, attempt=1, task_key="p.one")
    again = Retry("ab" * 16, "t", 0.5, 2)
    reporter.ended(Ended(run, None, Outcome("completed"), 0.012))
    reporter.ended(Ended(run, again, Outcome("retry", message="ValueError: x\ny"), 1.0))
    run.attempt = 2
    reporter.ended(Ended(run, None, Outcome("failed", message="ValueError: x"), 1.0))
    texts = [line().split(" | ", 1)[1] for line in lines]
    assert texts == [
        "INFO    | Completed one abababab 12 ms",
        "WARNING | Retrying  one abababab 1.0 s (attempt 1) again in 500 ms: ValueError: x",
        "ERROR   | Failed    one abababab 1.0 s (attempt 2): ValueError: x",
    ]
    assert reporter.counts == {"completed": 1, "retry": 1, "failed": 1}
    quiet = Reporter(lines.append, logging.ERROR, "worker")
    quiet.ended(Ended(run, None, Outcome("completed"), 0.012))
    assert len(lines) == 3


def test_log_lines_are_sent_in_order_and_in_pieces() -> None:
    desk = Desk()
    for number in range(LINES_PER_MESSAGE + 1):
        desk.line("a", [20, 0, "x", str(number)])
        desk.line("b", [20, 0, "x", str(number)])
    messages = log_messages(desk)
    assert [(message.run_id, len(message.lines)) for message in messages] == [
        ("a", LINES_PER_MESSAGE), ("a", 1), ("b", LINES_PER_MESSAGE), ("b", 1),
    ]  # fmt: skip
    assert not desk.lines
    for _ in range(3):
        desk.line("a", [20, 0, "x", "ä\udc80" * 50_000])
    messages = log_messages(desk)
    assert [len(message.lines) for message in messages] == [3]
    assert len(encode_frame(messages)) < MAX_FRAME


def test_log_lines_that_nobody_takes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    for number in range(MAX_LINES + 10):
        desk.line("a", [20, 0, "x", str(number)])
    assert len(desk.lines) == MAX_LINES
    assert desk.lines[0][1][3] == "10"
    log_messages(desk)
    assert (len(desk.lines), desk.characters) == (0, 0)
    monkeypatch.setattr("prefect_lite_worker.desk.MAX_CHARACTERS", 1_000_000)
    for number in range(500):
        desk.line("a", [20, 0, "x", f"{number} " + "x" * 100_000])
    assert sum(len(line[3]) for _, line in desk.lines) <= 1_000_000
    assert 50 < len(desk.lines) <= 63
    assert desk.lines[-1][1][3].startswith("499 ")


def test_the_terminal_never_blocks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefect_lite_worker.terminal.MAX_WAITING", 2)
    terminal = Terminal()
    terminal.write("line 0")
    for number in range(1, 4):
        terminal.write(partial("line {}".format, number))
    terminal.start()
    terminal.stop()
    assert capsys.readouterr().err == "line 0\nline 1\n(2 lines were dropped: the terminal is too slow)\n"


def test_the_public_worker_object(broker: Any, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_lite_worker.app.get_settings", lambda: settings)
    worker = TaskWorker(one, limit=5, task_runner=ThreadPoolTaskRunner(max_workers=3))
    assert (worker.started, worker.available_tasks, worker.task_keys) == (False, 3, {"p.one", "p.uno"})
    serving = threading.Thread(target=worker.run)
    serving.start()
    assert broker.outcome(broker.push("p.one")) == 1
    wait_until(lambda: worker.finished_task_runs == 1)
    assert (worker.started, worker.stopping, worker.current_tasks) == (True, False, 0)
    worker.stop()
    serving.join(5)
    assert worker.stopping


def test_the_limit_is_a_setting_and_an_argument_wins(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = settings.model_copy(update={"limit": 7})
    monkeypatch.setattr("prefect_lite_worker.app.get_settings", lambda: changed)
    monkeypatch.setattr("prefect_lite.serving.get_settings", lambda: changed)
    assert TaskWorker(one).limit == 7
    assert TaskWorker(one, limit=3).limit == 3
    assert TaskWorker(one, limit=None).limit == 2_000
    assert TaskWorker(one, task_runner=ThreadPoolTaskRunner(max_workers=5)).limit == 5
    served: list[int] = []
    monkeypatch.setattr("prefect_lite_worker.app.WorkerApp.serve", lambda app, _: served.append(app.limit))
    serve(one)
    serve(one, limit=4)
    assert served == [7, 4]


def test_an_error_is_told_before_a_hard_exit(
    settings: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exits: list[int] = []
    monkeypatch.setattr("os._exit", exits.append)
    errors = [(ConfigurationError("Choose another."), "Choose another."), (KeyError("x"), "KeyError: 'x'")]
    for error, text in errors:
        app = WorkerApp([one], settings=settings)
        app._terminal.start()
        app._error = error
        app._exit()
        assert text in capsys.readouterr().err
    assert exits == [1, 1]


def test_impossible_arguments() -> None:
    with pytest.raises(ConfigurationError, match="limit must be at least 1"):
        TaskWorker(one, limit=0)
    with pytest.raises(ConfigurationError, match="max_workers"):
        ThreadPoolTaskRunner(0)
    with pytest.raises(ConfigurationError, match="use ThreadPoolTaskRunner"):
        TaskWorker(one, task_runner=object())  # type: ignore[arg-type]
