"""The harness: real broker, real worker, and nothing of them afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import psutil
import pytest

from prefect_lite import clock, task
from prefect_lite.client.runtime import close_runtime, install_runtime
from prefect_lite.context import TaskRunContext
from prefect_lite.embedded import local_broker
from prefect_lite.embedded.home import Home, read_record
from prefect_lite.embedded.locks import owner_of
from prefect_lite.exceptions import CancelledRun, ConfigurationError, EmbeddedStartError, RunExpired
from prefect_lite.settings import get_settings
from prefect_lite.testing import Harness, eager, frozen_clock, test_harness
from prefect_lite.testing.harness import _Starting
from prefect_lite.testing.utilities import prefect_test_harness
from tests.tools.waiting import until, wait_until

SECONDS = 20.0


@task
def add(a: Any, b: Any = 1) -> Any:
    return a + b


@task
async def async_add(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Not asked of every single test: the harness of the module has threads that come and go."""


@pytest.fixture(scope="module")
def harness() -> Iterator[Harness]:
    traces = Traces()
    with test_harness() as started:
        yield started
        pids = [broker_pid(started), valkey_pid(started)]
    traces.check(started, pids)


def home_of(harness: Harness) -> Home:
    return Home(harness.folder / "home")


def broker_pid(harness: Harness) -> int:
    return int((owner_of(home_of(harness).broker_lock) or {}).get("pid", 0))


def valkey_pid(harness: Harness) -> int:
    return int(read_record(home_of(harness).valkey_record)["pid"])


def our_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.upper().startswith("PREFECT_LITE_")}


class Traces:
    """What there was before a harness, to be compared with what there is after it."""

    def __init__(self) -> None:
        self.variables = our_variables()
        self.clock = clock.current()
        self.runtime = install_runtime(None)
        install_runtime(self.runtime)
        self.threads = {thread.ident for thread in threading.enumerate()}
        self.settings = get_settings()

    def new_threads(self) -> list[str]:
        return [
            thread.name
            for thread in threading.enumerate()
            if thread.ident not in self.threads and thread.name.startswith("prefect-lite")
        ]

    def check(self, harness: Harness, pids: list[int]) -> None:
        assert our_variables() == self.variables
        assert clock.current() is self.clock
        assert get_settings() == self.settings
        runtime = install_runtime(self.runtime)
        assert runtime is self.runtime
        assert not self.new_threads()
        assert not harness.folder.exists()
        for pid in pids:
            wait_until(lambda pid=pid: not alive(pid), SECONDS, "the end of a process of the harness")


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# -- running ----------------------------------------------------------------------------------------


def test_delay_and_result(harness: Harness) -> None:
    assert add.delay(1, 2).result(timeout=SECONDS) == 3
    assert add.map([1, 2, 3], deferred=True).result(timeout=SECONDS) == [2, 3, 4]
    assert async_add.delay(1, 2).result(timeout=SECONDS) == 3
    assert harness.finished_task_runs >= 5


def test_inside_a_running_loop(harness: Harness) -> None:
    async def main() -> list[Any]:
        return [await async_add.delay(1, 2), await (await add.adelay(3, 4)), add.delay(5, 6).result(SECONDS)]

    assert asyncio.run(main()) == [3, 7, 11]


def test_the_worker_is_in_this_process(harness: Harness) -> None:
    @task
    def where() -> tuple[int, bool]:
        return os.getpid(), TaskRunContext.get() is not None

    assert where.delay().result(timeout=SECONDS) == (os.getpid(), True)


def test_tasks_that_are_defined_later_are_served(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    @task
    def late(n: int) -> int:
        @task
        def even_later(m: int) -> int:
            return m * 2

        return even_later.delay(n).result(timeout=SECONDS)

    assert late.delay(4).result(timeout=SECONDS) == 8
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_redefined_task_is_served_as_it_is_now(harness: Harness) -> None:
    def defined(value: int) -> Any:
        @task
        def same_key() -> int:
            return value

        return same_key

    first = defined(1)
    assert first.delay().result(timeout=SECONDS) == 1
    second = defined(2)
    assert second.key == first.key
    assert second.delay().result(timeout=SECONDS) == 2


def test_other_keys_and_options(harness: Harness) -> None:
    attempts: list[int] = []

    @task
    def stubborn() -> int:
        attempts.append(1)
        if len(attempts) < 3:
            raise ValueError("again")
        return len(attempts)

    assert stubborn.with_options(retries=2).delay().result(timeout=SECONDS) == 3
    other = add.with_options(key="tests.another-key")
    assert other.delay(1, 2).result(timeout=SECONDS) == 3


def test_another_process_finds_the_broker(harness: Harness) -> None:
    code = """
        from prefect_lite import task

        @task(key="tests.from-outside")
        def twice(n): ...

        print(twice.delay(21).result(timeout=20))
    """

    @task(key="tests.from-outside")
    def twice(n: int) -> int:
        return 2 * n

    lines = "\n".join(line.strip() for line in code.splitlines())
    result = subprocess.run(
        [sys.executable, "-c", lines], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip() == "42"


# -- time -------------------------------------------------------------------------------------------


def test_delays_pass_at_once(harness: Harness) -> None:
    futures = [
        add.apply_async((1,), countdown=3600),
        add.apply_async((2,), eta=clock.now() + timedelta(seconds=3000)),
    ]
    later = add.apply_async((3,), countdown=100_000)
    before = clock.now()
    harness.advance(3601)
    assert [future.result(timeout=SECONDS) for future in futures] == [2, 3]
    assert later.state.is_scheduled()
    assert clock.now() - before >= timedelta(seconds=3601)
    later.cancel()


def test_an_eta_is_reckoned_with_the_advanced_clock(harness: Harness) -> None:
    harness.advance(10_000)
    future = add.apply_async((1,), eta=clock.now() + timedelta(seconds=60))
    assert future.state.is_scheduled()
    harness.advance(61)
    assert future.result(timeout=SECONDS) == 2


def test_runs_expire(harness: Harness) -> None:
    future = add.apply_async((1,), countdown=200, expires=100)
    kept = add.apply_async((1,), countdown=200, expires=1000)
    harness.advance(150)
    wait_until(lambda: future.state.name == "Expired", SECONDS)
    assert future.state.name == "Expired"
    with pytest.raises(CancelledRun):
        future.result(timeout=SECONDS)
    harness.advance(100)
    assert kept.result(timeout=SECONDS) == 2


def test_retry_delays_pass_at_once(harness: Harness) -> None:
    attempts: list[int] = []

    @task(retries=2, retry_delay_seconds=[60, 600])
    def flaky() -> int:
        attempts.append(1)
        if len(attempts) < 3:
            raise ValueError("again")
        return len(attempts)

    future = flaky.delay()
    harness.advance(61, patience=SECONDS)
    wait_until(lambda: len(attempts) == 2, SECONDS)
    harness.advance(601, patience=SECONDS)
    assert future.result(timeout=SECONDS) == 3


def test_a_run_that_was_just_let_go_fails_before_time_passes(harness: Harness) -> None:
    attempts: list[int] = []

    @task(retries=1, retry_delay_seconds=60)
    def flaky(n: int) -> int:
        attempts.append(1)
        if len(attempts) < 2:
            raise ValueError("again")
        return n

    future = flaky.delay(add.delay(add.delay(1)))
    harness.advance(61, patience=SECONDS)
    assert future.result(timeout=SECONDS) == 3


def test_results_are_kept_for_their_time(harness: Harness) -> None:
    @task(result_ttl_seconds=1000)
    def short() -> int:
        return 1

    future = short.delay()
    assert future.result(timeout=SECONDS) == 1
    again = type(future)(future.task_run_id)
    harness.advance(500)
    assert again.result(timeout=SECONDS) == 1
    harness.advance(501)
    with pytest.raises(RunExpired):
        type(future)(future.task_run_id).result(timeout=SECONDS)
    assert add.delay(1).result(timeout=SECONDS) == 2


def test_a_blocked_run_with_a_delay(harness: Harness) -> None:
    parent = add.apply_async((1,), countdown=500)
    child = add.apply_async((parent, 10), countdown=100)
    harness.advance(501)
    assert child.result(timeout=SECONDS) == 12


def test_a_sleeping_direct_call_wakes(harness: Harness) -> None:
    attempts: list[int] = []

    @task(retries=1, retry_delay_seconds=5000)
    def flaky() -> int:
        attempts.append(1)
        if len(attempts) < 2:
            raise ValueError("again")
        return len(attempts)

    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(flaky()))
    thread.start()
    wait_until(lambda: attempts, SECONDS)
    while thread.is_alive():  # it may not have begun to sleep
        harness.advance(5001)
        thread.join(0.01)
    assert results == [2]


def test_a_run_under_way_does_not_hold_time_up_for_ever(harness: Harness) -> None:
    release = threading.Event()

    @task
    def hold() -> str:
        release.wait(SECONDS)
        return "held"

    holding = hold.delay()
    delayed = add.apply_async((1,), countdown=50)
    harness.advance(51, patience=0.05)
    assert delayed.result(timeout=SECONDS) == 2
    release.set()
    assert holding.result(timeout=SECONDS) == "held"


def test_time_for_coroutines(harness: Harness) -> None:
    async def main() -> int:
        future = await add.aapply_async((1,), countdown=50)
        await harness.advance_async(51)
        return await future

    assert asyncio.run(main()) == 2


# -- start and end ----------------------------------------------------------------------------------


@pytest.fixture
def settings_of_the_program(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another broker, and no client yet."""
    monkeypatch.setenv("PREFECT_LITE_BROKER_URL", "ws://production.example.com")
    monkeypatch.setenv("prefect_lite_keyring", "/nowhere/keyring.json")
    monkeypatch.setenv("PREFECT_LITE_LIMIT", "3")
    monkeypatch.setenv("PREFECT_LITE_RESULT_TTL_SECONDS", "999")
    before = install_runtime(None)
    get_settings.cache_clear()  # type: ignore[attr-defined]
    yield
    monkeypatch.undo()
    get_settings.cache_clear()  # type: ignore[attr-defined]
    install_runtime(before)


@pytest.mark.usefixtures("settings_of_the_program")
def test_settings_are_changed_for_so_long_and_nothing_is_left_behind() -> None:
    traces = Traces()
    with prefect_test_harness(60, result_ttl_seconds=700) as own:
        settings = get_settings()
        assert (settings.limit, settings.result_ttl_seconds) == (3, 700)
        assert not settings.broker_url
        assert not settings.keyring
        assert add.delay(1).result(timeout=SECONDS) == 2
        pids = [broker_pid(own), valkey_pid(own)]
        assert all(alive(pid) for pid in pids)
    traces.check(own, pids)
    assert get_settings().broker_url == ("ws://production.example.com",)


def test_nothing_is_left_behind_after_an_error() -> None:
    traces = Traces()
    pids: list[int] = []
    harnesses: list[Harness] = []

    async def main() -> None:
        async with test_harness(async_add) as own:
            harnesses.append(own)
            pids.extend((broker_pid(own), valkey_pid(own)))
            assert await async_add.delay(1, 2) == 3
            async_add.apply_async((1, 1), countdown=100)
            raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(main())
    traces.check(harnesses[0], pids)


def test_nothing_is_left_behind_when_the_broker_was_killed() -> None:
    traces = Traces()
    with test_harness(add) as own:
        pids = [broker_pid(own), valkey_pid(own)]
        os.kill(pids[0], signal.SIGKILL)
        os.kill(pids[1], signal.SIGKILL)
    traces.check(own, pids)


def test_runs_that_are_under_way_at_the_end() -> None:
    traces = Traces()
    release = threading.Event()
    began: list[str] = []

    @task
    def hold() -> None:
        began.append("thread")
        release.wait(SECONDS)

    @task
    async def hold_coroutine() -> None:
        began.append("coroutine")
        await asyncio.sleep(SECONDS)

    since = time.monotonic()
    with test_harness(hold, hold_coroutine, hung_seconds=0.1) as own:
        hold.delay()
        hold_coroutine.delay()
        wait_until(lambda: len(began) == 2, SECONDS)
    assert time.monotonic() - since < SECONDS / 2
    assert not own.folder.exists()
    release.set()  # a thread can't be ended from outside
    wait_until(lambda: not traces.new_threads(), SECONDS)


def test_who_is_cancelled_while_it_starts_leaves_nothing_either() -> None:
    traces = Traces()
    own = test_harness(add)

    async def enter() -> None:
        async with own:
            pytest.fail("it was cancelled before")

    async def main() -> None:
        entering = asyncio.create_task(enter())
        await until(lambda: our_variables() != traces.variables, SECONDS)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering

    asyncio.run(main())
    traces.check(own, [])


def test_nested_harnesses(harness: Harness) -> None:
    outer = add.apply_async((1,), countdown=10)
    with test_harness() as inner:
        assert inner.folder != harness.folder
        assert add.delay(1).result(timeout=SECONDS) == 2
        harness.advance(5)  # of its own broker

        @task
        def defined_inside() -> int:
            return 5

        assert defined_inside.delay().result(timeout=SECONDS) == 5
    assert outer.state.is_scheduled()
    harness.advance(5)
    assert outer.result(timeout=SECONDS) == 2
    assert defined_inside.delay().result(timeout=SECONDS) == 5


def test_eager_runs_inside_of_a_harness(harness: Harness) -> None:
    with eager():

        @task
        def defined_inside() -> str:
            return threading.current_thread().name

        assert defined_inside.delay().result() == threading.current_thread().name
    assert defined_inside.delay().result(timeout=SECONDS) != threading.current_thread().name


def test_the_client_may_be_closed_in_between(harness: Harness) -> None:
    close_runtime()

    @task
    def defined_afterwards() -> int:
        return 5

    assert defined_afterwards.delay().result(timeout=SECONDS) == 5
    harness.advance(1)


def test_a_clock_that_stands_still_goes_on_doing_so() -> None:
    @task(retries=1, retry_delay_seconds=50)
    def flaky(seen: Any) -> int:
        seen.append(1)
        if len(seen) < 2:
            raise ValueError("again")
        return len(seen)

    with frozen_clock() as frozen, test_harness(add) as own:
        assert flaky([]) == 2
        assert frozen.slept == [50]
        before = clock.now()
        future = add.apply_async((1,), countdown=100)
        own.advance(101)
        assert clock.now() - before == timedelta(seconds=101)
        assert future.result(timeout=SECONDS) == 2
        with pytest.raises(ConfigurationError, match="started already"):
            own.__enter__()
        for seconds in (-1, float("nan"), "5", 1e10):
            with pytest.raises(ConfigurationError, match="forward only"):
                own.advance(seconds)  # type: ignore[arg-type]
        assert clock.now() - before == timedelta(seconds=101)
        folder = own.folder
    with own:  # once more, as anew
        assert own.folder != folder
        assert add.delay(1).result(timeout=SECONDS) == 2


def test_a_fork_leaves_the_harness_to_its_parent() -> None:
    with test_harness() as own:
        child = os.fork()
        if not child:
            status = 1
            with suppress(BaseException):  # pytest's part in this process is to end

                @task
                def defined_in_the_child() -> None: ...

                own.__exit__(None, None, None)
                status = 0
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert add.delay(1).result(timeout=SECONDS) == 2


def test_a_harness_that_is_not_started() -> None:
    own = test_harness(add)
    for use in (lambda: own.folder, lambda: own.advance(1)):
        with pytest.raises(ConfigurationError, match="not started"):
            use()


def test_ctrl_c_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes while another thread is about to start the broker, and can't be told."""
    traces = Traces()
    start, join, held = local_broker.find_or_start, _Starting.join, threading.Event()
    interrupts = [KeyboardInterrupt()]

    def start_late(settings: Any) -> Any:
        held.wait(SECONDS)
        return start(settings)

    def join_interrupted(thread: _Starting, timeout: float | None = None) -> None:
        if interrupts:
            raise interrupts.pop()
        held.set()
        join(thread, timeout)

    monkeypatch.setattr("prefect_lite.testing.harness.find_or_start", start_late)
    monkeypatch.setattr(_Starting, "join", join_interrupted)
    own = test_harness(add)
    with pytest.raises(KeyboardInterrupt):
        own.__enter__()
    assert not [thread for thread in threading.enumerate() if isinstance(thread, _Starting)]
    traces.check(own, [])


IMPOSSIBLE = [
    {"no_such_setting": 1},
    {"home": "/tmp"},
    {"broker_url": "ws://127.0.0.1:1"},
    {"redis_url": "redis://127.0.0.1:1"},
    {"lease_seconds": -1},
]


@pytest.mark.parametrize("settings", IMPOSSIBLE)
def test_impossible_settings(settings: dict[str, Any]) -> None:
    traces = Traces()
    with pytest.raises(ConfigurationError, match=next(iter(settings)).upper() + "|" + next(iter(settings))):
        test_harness(**settings).__enter__()
    assert our_variables() == traces.variables


def test_a_setting_that_the_environment_can_t_hold() -> None:
    traces = Traces()
    own = test_harness(namespace="zero\0")
    with pytest.raises(ValueError, match="null byte"):
        own.__enter__()
    traces.check(own, [])


def test_it_cannot_be_started_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = Traces()
    monkeypatch.setattr("prefect_lite.embedded.local_broker.BROKER_MODULE", "no_such_module")
    own = test_harness(add)
    with pytest.raises(EmbeddedStartError, match=r"ended; see .*broker\.log"):
        own.__enter__()
    traces.check(own, [])
