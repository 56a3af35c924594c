"""The engine's side of what is kept: which runs are transactions, and what they do to a run's end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from prefect_lite import Task, flow, task
from prefect_lite.cache_policies import INPUTS
from prefect_lite.context import TaskRunContext, active_transaction
from prefect_lite.local_runs import close_threads
from prefect_lite.result_records import ResultRecord
from prefect_lite.settings import get_settings
from prefect_lite.task_runners import ProcessPoolTaskRunner
from prefect_lite.transactions import Transaction, get_transaction, transaction

Events = list[str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PREFECT_LITE_HOME", str(tmp_path))
    get_settings.cache_clear()  # type: ignore[attr-defined]
    yield tmp_path
    close_threads()
    get_settings.cache_clear()  # type: ignore[attr-defined]
    assert active_transaction.get() is None


@pytest.fixture
def events() -> Events:
    return []


def hooked(events: Events, name: str, **options: Any) -> Task[..., Any]:
    """A task that says what becomes of it; with ``fail=True`` it raises."""

    def body(x: int = 0, fail: bool = False) -> int:
        events.append(name)
        if fail:
            raise ValueError(name)
        return x

    return Task(
        body,
        name=name,
        on_running=[lambda *_: events.append(f"{name} running")],
        on_completion=[lambda _task, _run, state: events.append(f"{name} {state.name}")],
        on_failure=[lambda _task, _run, state: events.append(f"{name} {state.name}")],
        on_commit=[lambda _: events.append(f"{name} commit")],
        on_rollback=[lambda _: events.append(f"{name} rollback")],
        **options,
    )


def test_a_run_is_committed_before_it_has_completed(events: Events) -> None:
    hooked(events, "a")(1)
    assert events == ["a running", "a", "a commit", "a Completed"]


def test_a_hit_is_a_run_without_its_function(events: Events) -> None:
    made = hooked(events, "a", cache_policy=INPUTS)
    assert made(7) == 7
    events.clear()
    state = made(7, return_state=True)
    assert events == ["a running", "a Cached"]
    assert (state.name, state.type.value, state.result()) == ("Cached", "COMPLETED", 7)
    assert isinstance(state.data, ResultRecord)


def test_a_failed_attempt_neither_commits_nor_keeps(events: Events) -> None:
    made = hooked(events, "a", cache_policy=INPUTS, retries=1)
    assert made(1, fail=True, return_state=True).is_failed()
    assert events == ["a running", "a", "a running", "a", "a Failed"]
    events.clear()
    assert made(1, fail=True, return_state=True).is_failed()
    assert "a" in events


def test_runs_inside_roll_back_with_the_run_around_them(events: Events) -> None:
    inner = hooked(events, "inner")

    @task(on_failure=[lambda *_: events.append("outer Failed")])
    def outer() -> None:
        with transaction():
            inner(1)
        inner(2)
        raise ValueError

    keeping = outer.with_options(persist_result=True)
    assert keeping(return_state=True).is_failed()
    assert events.count("inner rollback") == 2
    assert "inner commit" not in events
    assert events[-1] == "outer Failed"


@pytest.mark.parametrize("how", ["direct", "submit"])
def test_hooks_of_runs_in_a_plain_task_hear_of_its_end(events: Events, how: str) -> None:
    inner = hooked(events, "inner")

    @task
    def outer(fail: bool) -> None:
        if how == "direct":
            inner(1)
            inner(2)
        else:
            for future in inner.map([1, 2]):
                future.wait()
        assert "inner commit" not in events
        if fail:
            raise ValueError

    outer(fail=False)
    assert events.count("inner commit") == 2
    events.clear()
    assert outer(fail=True, return_state=True).is_failed()
    assert events.count("inner rollback") == 2
    assert "inner commit" not in events


def test_what_a_plain_task_has_cached_inside_is_there_for_its_next_attempt(events: Events) -> None:
    @task(cache_policy=INPUTS)
    def step(x: int) -> int:
        events.append(f"step {x}")
        return x

    @task(retries=1)
    def outer() -> int:
        first = step(1)
        if len(events) == 1 and not events.append("failed"):
            raise ValueError
        return first

    assert outer() == 1
    assert events == ["step 1", "failed"]


def test_a_result_that_can_not_be_recorded_fails_the_run_and_nothing_else(events: Events) -> None:
    broken = hooked(events, "a", persist_result=True, result_serializer="nothing")
    state = broken(1, return_state=True)
    assert state.is_failed()
    assert "nothing" in str(state.message)
    assert "a" not in events
    assert active_transaction.get() is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_rolls_back_too(events: Events, error: type[BaseException]) -> None:
    inner = hooked(events, "inner")

    @task(persist_result=True)
    def outer() -> None:
        inner(1)
        raise error

    with pytest.raises(error):
        outer()
    assert events[-1] == "inner rollback"
    assert active_transaction.get() is None


def test_a_cancelled_coroutine_rolls_back(events: Events) -> None:
    inner = hooked(events, "inner")
    inside = asyncio.Event()

    @task(persist_result=True)
    async def outer() -> None:
        inner(1)
        inside.set()
        await asyncio.Event().wait()

    async def main() -> None:
        running = asyncio.ensure_future(outer())
        await inside.wait()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    asyncio.run(main())
    assert events[-1] == "inner rollback"


def test_a_coroutine_function_keeps_as_well(events: Events) -> None:
    @task(cache_policy=INPUTS)
    async def double(x: int) -> int:
        events.append("body")
        return 2 * x

    async def main() -> list[Any]:
        first = await double(2, return_state=True)
        second = await double(2, return_state=True)
        return [first.name, second.name, await second.result(), await double(3)]

    assert asyncio.run(main()) == ["Completed", "Cached", 4, 6]
    assert events == ["body", "body"]


def test_a_plain_task_has_a_transaction_when_it_asks_for_one(events: Events) -> None:
    inner = hooked(events, "inner")

    @task
    def asks(fail: bool) -> Any:
        own = get_transaction()
        assert own is not None
        assert own is get_transaction()
        inner()
        assert events[-1] == "inner Completed"
        if fail:
            raise ValueError
        return own.is_active()

    assert asks(fail=False) is True
    assert events[-1] == "inner commit"
    assert asks(fail=True, return_state=True).is_failed()
    assert events[-1] == "inner rollback"
    assert get_transaction() is None


def test_a_coroutine_too() -> None:
    @task
    async def asks() -> str:
        own = get_transaction()
        return type(own).__name__

    async def main() -> tuple[str, Any]:
        return await asks(), get_transaction()

    assert asyncio.run(main()) == ("AsyncTransaction", None)


def test_each_run_has_its_own(events: Events) -> None:
    seen: list[Any] = []

    @task
    def inner() -> None:
        seen.append(get_transaction())

    @task
    def outer() -> None:
        seen.append(get_transaction())
        inner()
        seen.append(get_transaction())

    outer()
    assert seen[0] is seen[2]
    assert seen[0] is not seen[1]
    assert seen[1].get_parent() is seen[0]


def test_what_is_committed_by_hand_keeps_nothing_that_was_not_staged(events: Events) -> None:
    @task(cache_policy=INPUTS)
    def commits(x: int) -> int:
        events.append("ran")
        own = get_transaction()
        assert isinstance(own, Transaction)
        own.commit()
        return x

    assert [commits(3), commits(3)] == [3, 3]
    assert events == ["ran", "ran"]


def test_a_generator_that_ends_the_program_rolls_back(events: Events) -> None:
    inner = hooked(events, "inner")

    @task
    def counts() -> Iterator[int]:
        assert get_transaction() is not None
        inner()
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        [*counts()]
    assert events[-1] == "inner rollback"


def test_a_generator_commits_when_it_has_ended(events: Events) -> None:
    @task(on_commit=[lambda _: events.append("commit")], on_rollback=[lambda _: events.append("rollback")])
    def counts(fail: bool = False) -> Iterator[int]:
        yield 1
        events.append("between")
        if fail:
            raise ValueError
        yield 2

    assert [*counts()] == [1, 2]
    assert events == ["between", "commit"]
    events.clear()
    with suppress(ValueError):
        [*counts(fail=True)]
    assert events == ["between"]
    events.clear()
    with suppress(ZeroDivisionError), transaction():
        assert next(counts()) == 1  # closed when it is collected
        assert [*counts()] == [1, 2]
        raise ZeroDivisionError
    assert events[-1] == "rollback"


def test_what_a_generator_asks_for_is_not_its_callers(events: Events) -> None:
    @task
    def counts() -> Iterator[Any]:
        yield get_transaction()
        yield get_transaction()

    given: list[Any] = []
    for own in counts():
        given.append(own)
        assert active_transaction.get() is None
    assert given[0] is given[1] is not None

    @task(on_commit=[lambda _: events.append("commit")])
    async def counts_async() -> AsyncIterator[int]:
        yield 1

    async def main() -> list[int]:
        return [x async for x in counts_async()]

    assert asyncio.run(main()) == [1]
    assert events == ["commit"]


def test_in_threads_and_in_processes(tmp_path: Path) -> None:
    @flow
    def here() -> list[str]:
        first = [appends.submit(str(tmp_path), n) for n in (1, 2)]
        for future in first:
            future.wait()
        return [appends.submit(str(tmp_path), n, return_state=True).name for n in (1, 2)]

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def there() -> list[Any]:
        return [appends.submit(str(tmp_path), n, return_state=True) for n in (1, 3)]

    assert here() == ["Cached", "Cached"]
    states = there()
    assert [(state.name, state.result()) for state in states] == [("Cached", 1), ("Completed", 3)]
    assert sorted((tmp_path / "ran").read_text().split()) == ["1", "2", "3"]


@task(cache_policy=INPUTS)
def appends(folder: str, n: int) -> int:
    with (Path(folder) / "ran").open("a") as file:
        file.write(f"{n}\n")
    return n


def test_runs_that_keep_nothing_do_not_load_what_keeps() -> None:
    import subprocess
    import sys

    code = (
        "from prefect_lite import flow, task\n"
        "@task(on_completion=[print], retries=1)\n"
        "def f(x): return x\n"
        "@flow\n"
        "def g(): return f(1), f.submit(2).result()\n"
        "g(); f(3)\n"
        "import sys\n"
        "print([n for n in sys.modules if n.startswith(('prefect_lite.results', 'prefect_lite.keeping',"
        " 'prefect_lite.transactions', 'prefect_lite.cache', 'prefect_lite.serializers', 'pydantic.main'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_setting_is_for_those_that_say_nothing(monkeypatch: pytest.MonkeyPatch, events: Events) -> None:
    monkeypatch.setenv("PREFECT_LITE_PERSIST_RESULTS", "1")
    get_settings.cache_clear()  # type: ignore[attr-defined]

    @task
    def plain(x: int) -> int:
        events.append("ran")
        assert TaskRunContext.get() is not None
        return x

    @flow
    def twice() -> list[Any]:
        return [plain(1, return_state=True), plain(1, return_state=True)]

    assert [type(state.data) for state in twice()] == [ResultRecord] * 2
    assert events == ["ran"]
    assert plain.with_options(persist_result=False)(1, return_state=True).data == 1


def test_a_plain_task_that_ends_the_program_rolls_back_what_it_has_asked_for(events: Events) -> None:
    def interrupted() -> None:
        hooked(events, "inner")()
        raise KeyboardInterrupt

    async def ainterrupted() -> None:
        interrupted()

    inside = ["inner running", "inner", "inner Completed", "inner rollback"]
    for called in (task(interrupted), lambda: asyncio.run(task(ainterrupted)())):
        with pytest.raises(KeyboardInterrupt):
            called()
        assert get_transaction() is None
        assert events == inside
        events.clear()
