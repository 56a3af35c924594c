"""Caches of tasks on workers: shared through Redis, signed, and one run at a time where that is asked for."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from prefect_lite import Task, flow, task
from prefect_lite.broker_storage import BrokerStorage
from prefect_lite.cache_policies import INPUTS, NO_CACHE, RUN_ID, TASK_SOURCE
from prefect_lite.client.keeping import read_entry, write_entry
from prefect_lite.results import ResultStore
from prefect_lite.testing import Harness
from prefect_lite.thread_or_loop import in_thread
from tests.integration.harness import PATIENT_TIMES, PrivateHome, Running, wait_until

TASKS = """
    import os, pathlib, time
    from prefect_lite import task
    from prefect_lite.cache_policies import INPUTS, TASK_SOURCE

    def note(what):
        with open("notes", "a") as notes:
            notes.write(f"{what} {os.getpid()}\\n")

    def asked(task, run, state):
        note("asked")

    @task(cache_policy=TASK_SOURCE + INPUTS)
    def cached(x):
        note("ran")
        return os.getpid()

    one_at_a_time = (TASK_SOURCE + INPUTS).configure(isolation_level="SERIALIZABLE")

    @task(cache_policy=one_at_a_time, on_running=[asked])
    def single(x):
        note("ran")
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
        return os.getpid()

    @task(cache_policy=one_at_a_time, on_running=[asked])
    async def asingle(x):
        import asyncio
        note("ran")
        while not pathlib.Path("go").exists():
            await asyncio.sleep(0.01)
        return os.getpid()

    if __name__ == "__main__":
        from prefect_lite.task_worker import serve
        serve(cached, single, asingle, limit=2)
"""


# -- one worker, in this process ------------------------------------------------------------------------


@pytest.fixture
def counted(harness: Harness) -> Callable[..., Task[..., int]]:
    """Makes a served task that returns how often tasks of it have run."""
    runs: list[int] = []

    def made(name: str, **options: Any) -> Task[..., int]:
        def count(x: int) -> int:
            runs.append(x)
            return len(runs)

        return task(count, key=f"caching.{name}", **options)  # type: ignore[call-overload, no-any-return]

    return made


def ended(called: Task[..., int], x: int = 1) -> tuple[int, str]:
    """Value and state name of a run on the worker."""
    future = called.delay(x)
    value = future.result(timeout=30)
    return value, future.state.name


def entry(key: str) -> bytes | None:
    return in_thread(read_entry(key))


def test_results_are_taken_by_later_runs(counted: Any) -> None:
    made = counted("cached", cache_policy=TASK_SOURCE + INPUTS)
    assert [ended(made), ended(made), ended(made, 2)] == [(1, "Completed"), (1, "Cached"), (2, "Completed")]
    refreshing = made.with_options(refresh_cache=True)
    assert [ended(refreshing), ended(made)] == [(3, "Completed"), (3, "Cached")]


def test_policies_given_by_with_options_travel(counted: Any) -> None:
    plain, cached = counted("plain"), counted("cached", cache_policy=TASK_SOURCE + INPUTS)
    changed = plain.with_options(cache_policy=INPUTS - "y")
    assert [ended(changed), ended(changed), ended(plain)] == [
        (1, "Completed"),
        (1, "Cached"),
        (2, "Completed"),
    ]
    ended(cached)
    assert ended(cached.with_options(cache_policy=NO_CACHE)) == (4, "Completed")
    assert ended(changed.with_options(persist_result=False)) == (5, "Completed")


def test_runs_of_one_flow_run_share(counted: Any) -> None:
    made = counted("in_flow", cache_policy=RUN_ID)

    @flow
    def around() -> list[tuple[int, str]]:
        return [ended(made, 1), ended(made, 2)]

    assert around() == [(1, "Completed"), (1, "Cached")]
    assert around() == [(2, "Completed"), (2, "Cached")]
    assert [ended(made), ended(made)] == [(3, "Completed"), (4, "Completed")]


def test_nothing_is_looked_up_or_written_where_nothing_can_be_found(
    counted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def listening(what: str) -> Any:
        original = getattr(BrokerStorage, what)

        def method(self: BrokerStorage, path: str, *args: Any) -> Any:
            asked.append(what)
            return original(self, path, *args)

        return method

    for what in ("reading", "writing", "existing"):
        monkeypatch.setattr(BrokerStorage, what, listening(what))
    for options in ({}, {"persist_result": True}, {"cache_policy": RUN_ID}, {"cache_policy": NO_CACHE}):
        made = counted(f"plain{len(options)}{options}".replace(" ", ""), **options)
        assert [ended(made)[1], ended(made)[1]] == ["Completed"] * 2
    assert asked == []
    ended(counted("cached", cache_policy=INPUTS))
    assert asked, "or this test would not notice"


def test_a_key_that_can_not_be_made_is_told_in_the_log(
    counted: Any, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("prefect_lite")
    logger.addHandler(caplog.handler)
    try:
        made = counted("bad", cache_key_fn=lambda *_: 1 / 0)
        assert [ended(made)[1], ended(made)[1]] == ["Completed"] * 2
    finally:
        logger.removeHandler(caplog.handler)
    assert "Error encountered when computing cache key" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_entries_expire(harness: Harness, counted: Any) -> None:
    made = counted("short", cache_key_fn=lambda *_: "short", cache_expiration=timedelta(hours=1))
    lasting = made.with_options(cache_expiration=None)
    assert ended(made) == (1, "Completed")
    harness.advance(3_500)
    assert ended(lasting) == (1, "Cached"), "it is up to the run that has made it"
    harness.advance(200)
    assert ended(made) == (2, "Completed")
    assert ended(made) == (2, "Cached")


def test_entries_end_in_redis_too(counted: Any) -> None:
    made = counted("at_once", cache_key_fn=lambda *_: "at once", cache_expiration=timedelta(seconds=0.2))
    ended(made)
    wait_until(lambda: entry("at once") is None, 10, "the end of the entry")
    assert ended(made) == (2, "Completed")


# -- entries that are not what was written --------------------------------------------------------------


@pytest.fixture
def named(counted: Any) -> Task[..., int]:
    return counted("named", cache_key_fn=lambda _, arguments: f"named-{arguments['x']}")


def forge(key: str, content: bytes) -> None:
    assert in_thread(write_entry(key, content))


def test_an_altered_entry_is_not_taken(named: Task[..., int], caplog: pytest.LogCaptureFixture) -> None:
    ended(named)
    whole = entry("named-1")
    assert whole is not None
    wrong = [whole.replace(b"named-1", b"named-2"), whole[:-30], b"", b"garbage", b'{"metadata": {}}']
    for position in range(0, len(whole), len(whole) // 7):
        changed = bytearray(whole)
        changed[position] ^= 1
        wrong.append(bytes(changed))
    for expected, content in enumerate(wrong, start=2):
        forge("named-1", content)
        assert ended(named) == (expected, "Completed"), "it ran anew"
        assert ended(named) == (expected, "Cached"), "and what it wrote is good"


def test_nothing_is_decoded_before_its_signature_is_checked(named: Task[..., int], tmp_path: Path) -> None:
    owned = tmp_path / "owned"
    forge("named-1", b"cposix\nsystem\n(S'touch %s'\ntR." % bytes(owned))
    assert ended(named) == (1, "Completed")
    assert not owned.exists()


def test_an_entry_of_another_key_is_not_taken(named: Task[..., int]) -> None:
    ended(named, 1)
    ended(named, 2)
    other = entry("named-2")
    assert other is not None
    forge("named-1", other)
    assert ended(named, 1) == (3, "Completed")


def test_an_entry_signed_by_somebody_else_is_not_taken(named: Task[..., int], tmp_path: Path) -> None:
    code = (
        "import sys; from prefect_lite.results import ResultStore; "
        "ResultStore(result_storage=sys.argv[1]).write(99, key='named-1')"
    )
    env = {**os.environ, "PREFECT_LITE_HOME": str(tmp_path / "stranger")}
    folder = tmp_path / "forged"
    subprocess.run([sys.executable, "-c", code, str(folder)], env=env, timeout=60, check=True)
    forge("named-1", (folder / "named-1").read_bytes())
    assert ended(named, 1) == (1, "Completed")
    ResultStore(result_storage=BrokerStorage()).write(99, key="named-2")
    assert ended(named, 2) == (99, "Cached"), "one that is signed by a key of ours is taken"


def test_a_run_that_waits_for_a_lock_can_be_cancelled(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    started, go_on, asked = threading.Event(), threading.Event(), threading.Semaphore(0)
    runs: list[int] = []

    @task(
        key="caching.single",
        cache_policy=INPUTS.configure(isolation_level="SERIALIZABLE"),
        on_running=[lambda *_: asked.release()],
    )
    def single(x: int) -> int:
        runs.append(x)
        started.set()
        assert go_on.wait(30)
        return x

    first = single.delay(1)
    assert started.wait(30)
    second, third = single.delay(1), single.delay(1)
    for _ in range(3):
        assert asked.acquire(timeout=30)
    second.cancel()
    second.wait(timeout=30)
    assert second.state.name == "Cancelled"
    assert "did not let go" not in caplog.text
    assert not third.state.is_final()
    go_on.set()
    assert (first.result(timeout=30), third.result(timeout=30)) == (1, 1)
    assert (first.state.name, third.state.name) == ("Completed", "Cached")
    assert runs == [1]


# -- workers that are processes -------------------------------------------------------------------------


def start_worker(home: PrivateHome) -> Running:
    worker = home.start("worker", "tasks.py")
    worker.wait_for("tasks.cached")
    return worker


def start(home: PrivateHome) -> Running:
    home.write("tasks.py", TASKS)
    return start_worker(home)


def entries(home: PrivateHome) -> list[bytes]:
    store = redis.Redis(unix_socket_path=str(next(home.runtime.rglob("valkey.sock"))))
    return list(store.scan_iter("*keep:*"))


def notes(home: PrivateHome, what: str = "ran") -> list[str]:
    """Pids of the processes that have noted it."""
    path = home.project / "notes"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split()[1] for line in lines if line.split()[0] == what]


CALL = "from tasks import cached; f = cached.delay(7); print(f.result(timeout=30), f.state.name)"
REFRESH = CALL.replace("cached.delay", "cached.with_options(refresh_cache=True).delay")


def test_workers_share_their_cache(home: PrivateHome) -> None:
    first = start(home)
    assert home.python(CALL).stdout.split() == [str(first.pid), "Completed"]
    first.signal(signal.SIGSTOP)  # so that another one serves meanwhile
    second = start_worker(home)
    assert home.python(CALL).stdout.split() == [str(first.pid), "Cached"]
    assert home.python(REFRESH).stdout.split() == [str(second.pid), "Completed"]
    first.signal(signal.SIGCONT)
    second.signal(signal.SIGTERM)
    second.wait()
    assert home.python(CALL).stdout.split() == [str(second.pid), "Cached"], "it remembers nothing older"
    assert notes(home) == [str(first.pid), str(second.pid)]


# -- one at a time --------------------------------------------------------------------------------------


def two_at_once(home: PrivateHome, name: str) -> tuple[Running, Running, Running]:
    """A client that waits for two runs with one key, the worker that runs, and the one that waits."""
    workers = {str(worker.pid): worker for worker in (start(home), start_worker(home))}
    code = (
        f"from tasks import {name}\n"
        f"futures = [{name}.delay(7) for _ in range(4)]\n"
        "values = {future.result(timeout=60) for future in futures}\n"
        "print(len(values), sorted(future.state.name for future in futures))\n"
    )
    client = home.start("client", "-c", code)
    wait_until(lambda: notes(home), 20, "the first run")
    wait_until(lambda: set(notes(home, "asked")) == set(workers), 20, "runs on both workers")
    (running,) = notes(home)
    (waiting,) = set(workers) - {running}
    return client, workers[running], workers[waiting]


@pytest.mark.parametrize("home", [PATIENT_TIMES], indirect=True)
@pytest.mark.parametrize("name", ["single", "asingle"])
def test_workers_run_the_same_call_once(home: PrivateHome, name: str) -> None:
    client, running, _ = two_at_once(home, name)
    wait_until(lambda: len(notes(home, "asked")) == 4, 20, "those that wait, whose slots are free")
    home.write("go", "")
    assert client.wait(60) == 0, client.output
    assert client.output.strip() == f"1 {['Cached'] * 3 + ['Completed']}"
    assert notes(home) == [str(running.pid)]


@pytest.mark.parametrize("home", [{"lock_seconds": 1.5}], indirect=True)
def test_when_the_worker_that_has_the_lock_is_killed_another_one_runs(home: PrivateHome) -> None:
    client, running, waiting = two_at_once(home, "single")
    running.kill()
    wait_until(lambda: len(notes(home)) == 2, 20, "the run on the other worker")
    home.write("go", "")
    assert client.wait(60) == 0, client.output
    assert client.output.strip() == f"1 {['Cached'] * 3 + ['Completed']}"
    assert notes(home) == [str(running.pid), str(waiting.pid)]


@pytest.mark.parametrize("home", [{"lock_seconds": 1.0, **PATIENT_TIMES}], indirect=True)
def test_a_worker_that_has_lost_its_lock_does_not_write(home: PrivateHome) -> None:
    """It stands still while another one takes the lock, runs, and writes."""
    client, running, waiting = two_at_once(home, "single")
    running.signal(signal.SIGSTOP)
    wait_until(lambda: len(notes(home)) == 2, 20, "the run on the other worker")
    home.write("go", "")
    wait_until(lambda: entries(home), 20, "what it has written")
    running.signal(signal.SIGCONT)
    assert client.wait(60) == 0, client.output
    again = home.python(CALL.replace("cached", "single")).stdout.split()
    assert again == [str(waiting.pid), "Cached"]
    assert notes(home) == [str(running.pid), str(waiting.pid)]
