"""Cached runs in this process: what is found again, for how long, and what happens where nothing can be."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from prefect_lite import State, Task, clock, flow, task
from prefect_lite.cache_policies import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    RUN_ID,
    TASK_SOURCE,
    CachePolicy,
)
from prefect_lite.hashing import task_input_hash
from prefect_lite.persistence import forget_settings
from prefect_lite.results import ResultRecord
from prefect_lite.settings import get_settings
from prefect_lite.transactions import IsolationLevel
from tests.test_docs import CODE, execute
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.usefixtures("client_home")


@pytest.fixture
def runs() -> list[Any]:
    """The arguments of runs that really took place."""
    return []


@pytest.fixture
def counted(runs: list[Any]) -> Callable[..., Task[..., Any]]:
    """Makes a task that notes its runs and returns how many there were."""

    def made(**options: Any) -> Task[..., Any]:
        @task(**options)
        def count(x: Any = 0, y: Any = 0) -> int:
            runs.append(x)
            return len(runs)

        return count

    return made


def state_of(called: Task[..., Any], *args: Any, **kwargs: Any) -> State[Any]:
    return called(*args, **kwargs, return_state=True)


def named(called: Task[..., Any], *args: Any) -> str:
    return state_of(called, *args).name


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[int], str]]:
    """The text of what was logged at a level or above."""
    logger = logging.getLogger("prefect_lite")
    logger.addHandler(caplog.handler)
    yield lambda level: "\n".join(
        caplog.handler.format(one) for one in caplog.records if one.levelno >= level
    )
    logger.removeHandler(caplog.handler)


# -- found again ----------------------------------------------------------------------------------------


def test_the_second_run_takes_the_result_of_the_first(counted: Any, runs: list[Any]) -> None:
    made = counted(cache_policy=INPUTS)
    first, second = state_of(made, 7), state_of(made, 7)
    assert (first.name, second.name) == ("Completed", "Cached")
    assert first.is_completed()
    assert second.is_completed()
    assert isinstance(second.data, ResultRecord)
    assert first.data.metadata.storage_key == second.data.metadata.storage_key
    assert first.result() == second.result() == made(7) == 1
    assert made(8) == 2
    assert runs == [7, 8]


def test_coroutines(runs: list[Any]) -> None:
    @task(cache_policy=INPUTS)
    async def count(x: int) -> int:
        runs.append(x)
        return len(runs)

    async def main() -> list[Any]:
        return [await count(7), await count(7), (await count(7, return_state=True)).name]

    assert asyncio.run(main()) == [1, 1, "Cached"]


def test_submitted_and_mapped_runs(counted: Any, runs: list[Any]) -> None:
    made = counted(cache_policy=INPUTS)

    @flow
    def around() -> tuple[Any, Any]:
        first = made.submit(1)
        first.wait()
        second = made.submit(1)
        second.wait()
        return (first.state.name, second.state.name), made.map([1, 1]).result()

    assert around() == (("Completed", "Cached"), [1, 1])
    assert runs == [1]


def test_futures_count_as_their_results(counted: Any, runs: list[Any]) -> None:
    made = counted(cache_policy=INPUTS)
    seven = task(lambda: 7)

    @flow
    def around() -> list[Any]:
        direct = made(7), made([7])
        return [*direct, made(seven.submit()), made.submit(seven.submit()).result(), made([seven.submit()])]

    assert around() == [1, 2, 1, 1, 2]
    assert runs == [7, [7]]


def test_none_is_a_result_like_others(runs: list[Any]) -> None:
    def nothing(x: int) -> None:
        runs.append(x)

    made = task(cache_policy=INPUTS)(nothing)
    assert (made(1), made(1)) == (None, None)
    assert runs == [1]


def test_values_are_copies_of_what_was_returned(runs: list[Any]) -> None:
    made = task(cache_policy=INPUTS, cache_result_in_memory=False)(lambda x: [x])
    first = made(1)
    first.append(2)
    assert made(1) == [1]


def test_what_arguments_are_is_asked_before_the_run(runs: list[Any]) -> None:
    def changing(x: list[int]) -> int:
        runs.append(list(x))
        x.append(1)
        return 1

    made = task(cache_policy=INPUTS)(changing)
    made([5])
    made([5])
    assert runs == [[5]]


def test_tasks_with_equal_arguments_share_a_key_of_inputs(runs: list[Any]) -> None:
    """As in Prefect; TASK_SOURCE tells them apart."""

    def one(x: int) -> str:
        return "one"

    def other(x: int) -> str:
        return "other"

    assert [task(cache_policy=INPUTS)(fn)(1) for fn in (one, other)] == ["one", "one"]
    assert [task(cache_policy=TASK_SOURCE + INPUTS)(fn)(1) for fn in (one, other)] == ["one", "other"]


def test_arguments_that_are_left_out(counted: Any, runs: list[Any]) -> None:
    made = counted(cache_policy=INPUTS - "y")
    assert [made(1, 2), made(1, 3), made(2, 3)] == [1, 1, 2]
    with_default = counted(cache_policy=TASK_SOURCE + INPUTS)
    assert with_default(9) == with_default(9, 0) == with_default(x=9)


def test_no_arguments_make_no_key(counted: Any, runs: list[Any]) -> None:
    made = task(cache_policy=INPUTS)(lambda: runs.append(1))
    assert [named(made), named(made)] == ["Completed"] * 2
    sourced = task(cache_policy=TASK_SOURCE + INPUTS)(lambda: runs.append(1))
    assert [named(sourced), named(sourced)] == ["Completed", "Cached"]


def test_methods(runs: list[Any]) -> None:
    class Holder:
        def __init__(self, value: int) -> None:
            self.value = value

        @task(cache_policy=INPUTS)
        def get(self, x: int) -> int:
            runs.append(x)
            return self.value

    assert [Holder(1).get(0), Holder(1).get(0), Holder(2).get(0)] == [1, 1, 2]
    assert len(runs) == 2


def test_key_functions(counted: Any, runs: list[Any]) -> None:
    made = counted(cache_key_fn=lambda context, arguments: f"{context.task.name}-{arguments['x'] % 10}")
    assert [made(1), made(11), made(2)] == [1, 1, 2]
    hashed = counted(cache_key_fn=task_input_hash, cache_expiration=timedelta(days=1))
    assert [hashed(1), hashed(1), hashed(2)] == [3, 3, 4]


def test_sources(runs: list[Any]) -> None:
    made = [task(cache_policy=TASK_SOURCE)(fn) for fn in (lambda x: x + 1, lambda x: x + 2)]
    assert [each(value) for each in made for value in (1, 5)] == [2, 2, 3, 3]


def test_policies_of_ones_own(counted: Any, runs: list[Any]) -> None:
    class Even(CachePolicy):
        def compute_key(self, task_ctx: Any, inputs: Any, flow_parameters: Any, **kwargs: Any) -> str | None:
            return None if inputs["x"] % 2 else "even"

    made = counted(cache_policy=Even())
    assert [made(2), made(4), made(1), made(1)] == [1, 1, 2, 3]


def test_a_run_knows_its_key(counted: Any) -> None:
    keys: list[Any] = []
    hook = lambda task, run, state: keys.append((run.cache_key, state.name))  # noqa: E731
    made = task(cache_key_fn=lambda *_: "word", on_completion=[hook])(lambda: 1)
    made()
    made()
    assert keys == [("word", "Completed"), ("word", "Cached")]


# -- flows ----------------------------------------------------------------------------------------------


def test_by_default_only_runs_of_one_flow_run_share(counted: Any, runs: list[Any]) -> None:
    made = counted(persist_result=True)
    inner = task(lambda: made(1))

    @flow
    def around() -> list[int]:
        return [made(1), made(1), inner(), made(2)]

    assert around() == [1, 1, 1, 2]
    assert around() == [3, 3, 3, 4]
    assert [named(made, 1), named(made, 1)] == ["Completed"] * 2


def test_by_default_runs_that_keep_nothing_share_nothing(counted: Any, runs: list[Any]) -> None:
    made = counted()
    flow(lambda: [made(1), made(1)])()
    assert len(runs) == 2


def test_tasks_of_a_flow_that_persists_results(counted: Any, runs: list[Any]) -> None:
    made = counted()
    flow(persist_result=True)(lambda: [made(1), made(1)])()
    assert len(runs) == 1


def test_run_id(counted: Any, runs: list[Any]) -> None:
    made = counted(cache_policy=RUN_ID)
    assert flow(lambda: [made(1), made(2)])() == [1, 1]
    assert [made(1), made(1)] == [2, 3]


def test_flow_parameters(counted: Any, runs: list[Any]) -> None:
    made = counted(cache_policy=FLOW_PARAMETERS)

    @flow
    def around(p: int) -> list[int]:
        return [made(p), made(5)]

    assert [around(1), around(1), around(2)] == [[1, 1], [1, 1], [2, 2]]
    assert named(made, 1) == "Completed"
    assert named(made, 1) == "Completed"


# -- nothing is taken -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"cache_policy": NO_CACHE},
        {"cache_policy": NO_CACHE, "persist_result": True},
        {"cache_policy": INPUTS, "persist_result": False},
        {"cache_key_fn": lambda *_: "x", "persist_result": False},
        {"cache_key_fn": lambda *_: None},
        {"cache_key_fn": lambda *_: ""},
        {"cache_policy": DEFAULT},
        {"persist_result": True},
    ],
)
def test_no_caching(options: Any, counted: Any, runs: list[Any]) -> None:
    made = counted(**options)
    assert [named(made, 1), named(made, 1)] == ["Completed"] * 2
    assert len(runs) == 2


def test_failures_are_not_kept(runs: list[Any]) -> None:
    def fail(x: int) -> None:
        runs.append(x)
        raise ValueError("no")

    made = task(cache_policy=INPUTS)(fail)
    assert [named(made, 1), named(made, 1)] == ["Failed"] * 2
    assert len(runs) == 2


def test_a_retry_that_succeeds_is_kept(runs: list[Any]) -> None:
    def fail_once(x: int) -> int:
        runs.append(x)
        if len(runs) == 1:
            raise ValueError("no")
        return len(runs)

    made = task(cache_policy=INPUTS, retries=2)(fail_once)
    assert [made(1), made(1)] == [2, 2]


def test_a_retry_looks_again(runs: list[Any]) -> None:
    """Somebody else may have been quicker."""

    @task(cache_key_fn=lambda *_: "shared")
    def quick() -> str:
        return "quick"

    def fail_once() -> str:
        runs.append(1)
        thread = threading.Thread(target=quick)  # what is called here takes part in this run's transaction
        thread.start()
        thread.join()
        raise ValueError("no")

    slow = task(cache_key_fn=lambda *_: "shared", retries=2)(fail_once)
    assert slow() == "quick"
    assert len(runs) == 1


def test_refresh(counted: Any, runs: list[Any]) -> None:
    made = counted(cache_policy=INPUTS, refresh_cache=True)
    assert [named(made, 1), made(1), made.with_options(refresh_cache=False)(1)] == ["Completed", 2, 2]
    assert [made.with_options(refresh_cache=None)(1), made(1), made.with_options(refresh_cache=None)(1)] == [
        2,
        3,
        3,
    ]


def test_refresh_as_a_setting(counted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = counted(cache_policy=INPUTS)
    with monkeypatch.context() as during:
        during.setenv("PREFECT_LITE_REFRESH_CACHE", "true")
        forget_settings()
        get_settings.cache_clear()  # type: ignore[attr-defined]
        assert [made(1), made(1), made.with_options(refresh_cache=False)(1)] == [1, 2, 2]
    forget_settings()
    get_settings.cache_clear()  # type: ignore[attr-defined]
    assert made(1) == 2


# -- expiration -----------------------------------------------------------------------------------------


class Clock:
    """What ``clock.now`` says, moved by tests."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)
        self._now = clock.now

    def now(self) -> Any:
        return self._now() + self.ahead


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(clock, "now", made.now)
    return made


def test_expiration(counted: Any, moved: Clock, runs: list[Any]) -> None:
    made = counted(cache_policy=INPUTS, cache_expiration=timedelta(hours=1))
    first = state_of(made, 1)
    expires = first.data.metadata.expiration
    assert timedelta(minutes=59) < expires - clock.now() <= timedelta(hours=1)
    moved.ahead = timedelta(minutes=59)
    assert named(made, 1) == "Cached"
    moved.ahead = timedelta(minutes=61)
    assert named(made, 1) == "Completed"
    assert named(made, 1) == "Cached"
    assert len(runs) == 2


def test_how_long_it_lasts_is_up_to_the_run_that_has_made_it(counted: Any, moved: Clock) -> None:
    short = counted(cache_policy=INPUTS, cache_expiration=timedelta(hours=1))
    lasting = short.with_options(cache_expiration=None)
    assert [short(1), lasting(1)] == [1, 1]
    moved.ahead = timedelta(hours=2)
    assert [lasting(1), lasting(1)] == [2, 2]
    moved.ahead = timedelta(days=1000)
    assert short(1) == 2


def test_what_expires_at_once_is_never_taken(counted: Any) -> None:
    made = counted(cache_policy=INPUTS, cache_expiration=timedelta(0))
    assert [made(1), made(1)] == [1, 2]


# -- storage keys ---------------------------------------------------------------------------------------


def test_a_storage_key_is_a_cache_key(counted: Any, client_home: Path, runs: list[Any]) -> None:
    made = counted(result_storage_key="here/{parameters[x]}.json", result_serializer="json")
    assert [made(1), made(1), made(2)] == [1, 1, 2]
    assert json.loads((client_home / "storage" / "here" / "1.json").read_text())
    assert named(made.with_options(cache_policy=INPUTS), 1) == "Cached"


def test_a_storage_key_without_a_cache(counted: Any, client_home: Path) -> None:
    made = counted(result_storage_key="here", cache_policy=NO_CACHE)
    assert [made(1), made(1)] == [1, 2]
    assert counted(result_storage_key="here")(5) == 2, "what was written last"


def test_a_template_that_can_not_be_filled_in_fails_the_run(counted: Any, runs: list[Any]) -> None:
    state = state_of(counted(result_storage_key="{parameters[nope]}"), 1)
    assert state.is_failed()
    assert "result_storage_key='{parameters[nope]}' can't be filled in" in (state.message or "")
    assert not runs


# -- a storage of keys ----------------------------------------------------------------------------------


def test_records_of_keys_may_be_elsewhere(
    counted: Any, tmp_path: Path, client_home: Path, runs: list[Any]
) -> None:
    made = counted(cache_policy=INPUTS.configure(key_storage=tmp_path / "keys"))
    assert [named(made, 1), named(made, 1)] == ["Completed", "Cached"]
    (record,) = (tmp_path / "keys").iterdir()
    result = client_home / "storage" / record.name
    assert result.is_file()
    result.unlink()
    lost = made.with_options(cache_result_in_memory=False)
    assert named(lost, 1) == "Completed", "a record whose result is gone is no record"
    assert len(runs) == 2


def test_results_may_be_elsewhere(counted: Any, tmp_path: Path) -> None:
    made = counted(cache_policy=INPUTS, result_storage=tmp_path / "results")
    assert [named(made, 1), named(made, 1)] == ["Completed", "Cached"]
    assert len(list((tmp_path / "results").iterdir())) == 1
    assert named(made.with_options(result_storage=None), 1) == "Completed"


# -- what goes wrong ------------------------------------------------------------------------------------


def only_file(folder: Path) -> Path:
    (found,) = (path for path in folder.rglob("*") if path.is_file())
    return found


@pytest.mark.parametrize("content", [b"", b"garbage", b'{"result": 1}', None])
def test_a_damaged_record_is_made_anew(
    content: bytes | None, counted: Any, client_home: Path, logged: Callable[[int], str]
) -> None:
    made = counted(cache_policy=INPUTS, cache_result_in_memory=False)
    made(1)
    path = only_file(client_home / "storage")
    whole = path.read_bytes()
    path.write_bytes(content if content is not None else whole.replace(b'"storage_key"', b'"storage_kay"'))
    assert state_of(made, 1).result() == 2
    assert logged(logging.WARNING)
    assert state_of(made, 1).name == "Cached"


def test_a_record_of_another_key_is_not_taken(counted: Any, client_home: Path) -> None:
    """Whoever can write files can't have one result taken for another."""
    made = counted(cache_key_fn=lambda _, arguments: f"key-{arguments['x']}", cache_result_in_memory=False)
    made(1)
    made(2)
    folder = client_home / "storage"
    (folder / "key-1").write_bytes((folder / "key-2").read_bytes())
    assert made(1) == 3


def test_arguments_that_can_not_be_hashed(counted: Any, logged: Callable[[int], str]) -> None:
    made = counted(cache_policy=INPUTS)
    states = [state_of(made, threading.Lock()) for _ in range(2)]
    assert [state.name for state in states] == ["Completed"] * 2
    assert isinstance(states[0].data, ResultRecord)
    said = logged(logging.ERROR)
    assert "Error encountered when computing cache key" in said
    assert "argument 'x'" in said
    assert 'INPUTS - "its name"' in said


def test_a_key_function_that_raises(counted: Any, logged: Callable[[int], str]) -> None:
    made = counted(cache_key_fn=lambda *_: 1 / 0)
    assert [named(made, 1), named(made, 1)] == ["Completed"] * 2
    assert "ZeroDivisionError" in logged(logging.ERROR)


def test_a_key_of_a_wrong_type(counted: Any, logged: Callable[[int], str]) -> None:
    made = counted(cache_key_fn=lambda *_: 5)
    assert [named(made, 1), named(made, 1)] == ["Completed"] * 2
    assert "returned int instead of text or None: 5" in logged(logging.ERROR)


def test_results_that_can_not_be_written(runs: list[Any], logged: Callable[[int], str]) -> None:
    def locked(x: int) -> Any:
        runs.append(x)
        return threading.Lock()

    made = task(cache_policy=INPUTS)(locked)
    assert [named(made, 1), named(made, 1)] == ["Completed"] * 2
    assert len(runs) == 2
    assert logged(logging.WARNING)


# -- one after the other --------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["SERIALIZABLE", IsolationLevel.SERIALIZABLE])
def test_serializable_runs_are_one(level: Any, runs: list[Any]) -> None:
    started, go_on = threading.Event(), threading.Event()

    def work(x: int) -> int:
        runs.append(x)
        started.set()
        go_on.wait(10)
        return len(runs)

    made = task(cache_policy=INPUTS.configure(isolation_level=level))(work)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(made, 1, return_state=True)
        assert started.wait(10)
        second = pool.submit(made, 1, return_state=True)
        other = task(cache_policy=INPUTS.configure(isolation_level=level))(lambda x: x)
        assert other(2) == 2, "another key is free"
        assert not second.done()
        go_on.set()
        states = [first.result(20), second.result(20)]
    assert [state.name for state in states] == ["Completed", "Cached"]
    assert runs == [1]


def test_serializable_runs_of_coroutines_are_one(runs: list[Any]) -> None:
    @task(cache_policy=INPUTS.configure(isolation_level="SERIALIZABLE"))
    async def work(x: int) -> int:
        runs.append(x)
        await asyncio.sleep(0)
        return len(runs)

    async def main() -> list[str]:
        states = await asyncio.gather(*(work(1, return_state=True) for _ in range(5)))
        return sorted(state.name for state in states)

    assert asyncio.run(main()) == ["Cached"] * 4 + ["Completed"]
    assert runs == [1]


def test_the_lock_is_free_after_a_failure(runs: list[Any]) -> None:
    def fail_first(x: int) -> int:
        runs.append(x)
        if len(runs) == 1:
            raise ValueError("no")
        return 2

    made = task(cache_policy=INPUTS.configure(isolation_level="SERIALIZABLE"))(fail_first)
    assert [named(made, 1), named(made, 1), named(made, 1)] == ["Failed", "Completed", "Cached"]


def test_runs_that_start_before_one_has_ended_all_run(runs: list[Any]) -> None:
    both = threading.Barrier(2, timeout=10)

    def work(x: int) -> int:
        runs.append(x)
        both.wait()
        return x

    made = task(cache_policy=INPUTS)(work)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(made, [1, 1])) == [1, 1]
    wait_until(lambda: len(runs) == 2, what="both runs")
    assert named(made, 1) == "Cached"


# -- the guide ------------------------------------------------------------------------------------------


def test_the_guide_does_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("guide_to_caching")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    text = (Path(__file__).parents[3] / "docs" / "caching.md").read_text()
    with asyncio.Runner() as loop:
        for match in CODE.finditer(text):
            execute(match[1], text[: match.start(1)].count("\n"), module, loop)
