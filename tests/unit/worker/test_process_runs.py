"""Runs that share one worker with one child process: what they see there, and how they end."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect_lite_worker.app import WorkerApp
from scripted_broker import ScriptedBroker

from prefect_lite.embedded.home import load_or_create_keyring
from prefect_lite.exceptions import TaskRunTimeoutError
from prefect_lite.placeholders import Upstream
from prefect_lite.settings import load_settings
from prefect_lite.task_runners import ProcessPoolTaskRunner
from prefect_lite.tasks import Task
from tests.unit.worker import process_tasks as tasks

ALL = [each for each in vars(tasks).values() if isinstance(each, Task)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ScriptedBroker, WorkerApp]]:
    """A broker, and a worker for all tasks."""
    with tempfile.TemporaryDirectory(prefix="pl-", dir="/tmp") as runtime:
        path = Path(runtime, "broker.sock")
        settings = load_settings(
            home=tmp_path_factory.mktemp("processes") / "home",
            broker_url=f"ws+unix://{path}",
            lease_seconds=1.5,
            renew_seconds=0.5,
            hung_seconds=0.3,
            max_payload_bytes=200_000,
        )
        with ScriptedBroker(path, load_or_create_keyring(settings)) as running:
            app = WorkerApp(ALL, settings=settings, limit=1, runner=ProcessPoolTaskRunner(1))
            thread = threading.Thread(target=app.serve)
            thread.start()
            # Each test has to leave the processes that it has found, so none may end the child.
            running.outcome(running.push(tasks.pid.key))
            yield running, app
            app.stop("the tests are over", grace_seconds=0.0)
            thread.join(10)


@pytest.fixture
def broker(shared: tuple[ScriptedBroker, WorkerApp]) -> ScriptedBroker:
    return shared[0]


@pytest.fixture
def pids(shared: tuple[ScriptedBroker, WorkerApp]) -> Callable[[], list[int]]:
    """Those of the children."""
    return lambda: shared[1]._parts.pool.pids  # pyright: ignore


def run(broker: Any, task: Any, *args: Any, **kwargs: Any) -> Any:
    return broker.outcome(broker.push(task.key, *args, **kwargs))


def lines_of(broker: Any, run_id: str) -> list[list[Any]]:
    return [line for message in broker.logs if message.run_id == run_id for line in message.lines]


def test_functions_and_coroutines_run_in_one_reused_child(broker: Any, pids: Any) -> None:
    child = run(broker, tasks.pid)
    assert child != os.getpid()
    assert run(broker, tasks.add, (1,), (2,)) == (1, 2)
    assert run(broker, tasks.aadd, 1, 2) == 3
    assert run(broker, tasks.threads) == ("MainThread", tasks.__name__)
    assert run(broker, tasks.pid) == child == pids()[0]
    third = broker.push(tasks.third_time.key)
    assert broker.outcome(third) == [1, 2, 3]
    assert broker.finished[third].attempt == 3
    large = b"x" * 150_000
    assert run(broker, tasks.add, large[:75_000], large[75_000:]) == large


def test_a_task_may_have_processes_of_its_own(broker: Any) -> None:
    assert run(broker, tasks.has_a_process_of_its_own) == -signal.SIGTERM


@pytest.mark.parametrize(("how", "code"), [("returns", 0), ("leaves", 3), ("raises", 1)])
def test_a_forked_copy_does_not_speak_for_its_run(broker: Any, pids: Any, how: str, code: int) -> None:
    """It would wait for ever for runs of its own, and its parent for it."""
    assert run(broker, tasks.forks, how) == code
    (child,) = pids()
    assert not psutil.Process(child).children()


def test_texts_that_no_wire_can_carry_end_runs_all_the_same(
    broker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", "prefect_lite.worker.runs")  # nor can that of pytest-xdist
    said = broker.push(tasks.says_half_a_character.key)
    end = broker.end(said)
    assert (end.name, end.message.startswith("ValueError: half ")) == ("Failed", True)
    assert lines_of(broker, said)[0][3].startswith("half ")


def test_exceptions_keep_their_type_and_traceback(broker: Any) -> None:
    with pytest.raises(ValueError, match="boom") as caught:
        run(broker, tasks.fails, "boom")
    assert "process_tasks.py" in str(caught.value.__cause__)


def test_logs_and_prints_reach_the_runs_log(broker: Any) -> None:
    runs = [broker.push(tasks.logs.key, "said"), broker.push(tasks.prints.key, "printed")]
    for each in runs:
        broker.end(each)
    lines = {each: lines_of(broker, each)[0] for each in runs}
    assert [lines[each][3] for each in runs] == ["said", "printed"]
    assert [lines[each][0] for each in runs] == [30, 20]


def test_a_sleep_is_interrupted_and_may_clean_up(broker: Any, pids: Any, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    late = broker.push(tasks.sleeps.key, 60, str(mark), options={"timeout_seconds": 0.1})
    with pytest.raises(TaskRunTimeoutError):
        broker.outcome(late)
    assert mark.read_text() == "cleaned up"
    assert broker.finished[late].name == "TimedOut"
    assert broker.finished[late].run_seconds < 1
    assert len(pids()) == 1


def test_each_attempt_in_place_has_its_own_deadline(broker: Any) -> None:
    for _ in range(3):  # what tells of the first one's end may come after the second one's start
        assert broker.end(broker.push(tasks.hangs_the_second_time.key)).name == "TimedOut"


def test_a_coroutine_is_cancelled_at_its_deadline(broker: Any, pids: Any) -> None:
    child = pids()
    late = broker.push(tasks.asleeps.key, 60, options={"timeout_seconds": 0.1})
    assert broker.end(late).name == "TimedOut"
    assert pids() == child  # it goes on


@pytest.mark.parametrize("task", [tasks.sleeps, tasks.asleeps], ids=lambda task: task.name)
def test_a_running_run_is_cancelled(broker: Any, task: Any) -> None:
    running = broker.push(task.key, 60)
    broker.wait_running(running)
    broker.cancel(running)
    assert broker.end(running).name == "Cancelled"


def test_results_of_others_are_filled_in(broker: Any) -> None:
    one, other = broker.ended(40), broker.ended(2)
    joined = broker.link(tasks.add.key, Upstream(one.run_id, False), Upstream(other.run_id, False))
    broker.tell(one)
    broker.tell(other)
    assert broker.outcome(joined) == 42
    failed = broker.ended(error=ValueError("boom"))
    broker.tell(failed)
    child = broker.link(tasks.add.key, Upstream(failed.run_id, False), 1)
    assert broker.end(child).name == "UpstreamFailed"
