"""What each option of ``@task`` and ``Task`` does, as the specification describes it; one test an option.

How they look at results and assets is Prefect's way.
"""

from __future__ import annotations

import logging
import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_lite import Task, task
from prefect_lite.settings import get_settings
from prefect_lite.tagging import tags
from prefect_lite.testing import test_harness as harness

DOCUMENTED = {
    name
    for options in tomllib.loads((Path(__file__).parent / "options.toml").read_text())["options"]
    if options["of"] in ("task", "Task", "Task.with_options")
    for name in options["names"]
}


def ended(function: Callable[..., Any], **options: Any) -> list[tuple[Task[Any, Any], Any, Any]]:
    """Call a task made of the function once; returns what its hooks were called with at its end."""
    calls: list[tuple[Any, Any, Any]] = []

    def remember(task: Any, run: Any, state: Any) -> None:
        calls.append((task, run, state))

    task(on_completion=[remember], on_failure=[remember], **options)(function)(return_state=True)
    return calls


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What one test keeps is not found by the next."""
    monkeypatch.setenv("PREFECT_LITE_HOME", str(tmp_path / "home"))
    get_settings.cache_clear()  # type: ignore[attr-defined]
    yield
    get_settings.cache_clear()  # type: ignore[attr-defined]


@pytest.fixture
def runs() -> list[int]:
    """One item for each execution of ``failing`` and ``counted``."""
    return []


@pytest.fixture
def failing(runs: list[int]) -> Callable[[], None]:
    def fail() -> None:
        runs.append(1)
        raise ValueError("Retry me please!")

    return fail


@pytest.fixture
def counted(runs: list[int]) -> Callable[[int], int]:
    def count(x: int) -> int:
        runs.append(x)
        return x

    return count


def test_every_documented_option_is_here() -> None:
    shown = {match[1] for match in (re.match(r"test_option_(\w+)", name) for name in globals()) if match}
    assert shown | {"fn"} == DOCUMENTED


def test_option_name() -> None:
    ((made, run, _),) = ended(lambda: None, name="The Ultimate Task")
    assert made.name == run.task_name == "The Ultimate Task"


def test_option_description() -> None:
    assert task(description="Of its own")(test_option_name).description == "Of its own"


def test_option_tags() -> None:
    with tags("c"):
        ((_, run, _),) = ended(lambda: None, tags={"a", "b"})
    assert run.tags == {"a", "b", "c"}


def test_option_version() -> None:
    assert task(version="1.2")(len).version == "1.2"


@pytest.mark.parametrize("name", ["{x}-squared", lambda parameters: f"{parameters['x']}-squared"])
def test_option_task_run_name(name: Any) -> None:
    ((_, run, _),) = ended(lambda x=7: x, task_run_name=name)
    assert run.name == "7-squared"


def test_option_retries(failing: Callable[[], None], runs: list[int]) -> None:
    ((_, run, state),) = ended(failing, retries=2)
    assert state.is_failed()
    assert run.run_count == len(runs) == 3


@pytest.mark.parametrize("delays", [3, [1, 2, 3], lambda retries: [retries] * retries])
def test_option_retry_delay_seconds(delays: Any, failing: Callable[[], None], sleeps: list[float]) -> None:
    ended(failing, retries=3, retry_delay_seconds=delays)
    assert sleeps == ([1, 2, 3] if isinstance(delays, list) else [3, 3, 3])


def test_option_retry_jitter_factor(failing: Callable[[], None], sleeps: list[float]) -> None:
    ended(failing, retries=20, retry_delay_seconds=10, retry_jitter_factor=0.5)
    assert len(set(sleeps)) > 1
    assert all(5 <= seconds <= 15 for seconds in sleeps)


def test_option_retry_condition_fn(failing: Callable[[], None], runs: list[int]) -> None:
    asked: list[Any] = []

    def may_go_on(task: Any, run: Any, state: Any) -> bool:
        asked.append((task.name, state.is_failed()))
        return len(asked) < 2

    ended(failing, retries=5, retry_condition_fn=may_go_on)
    assert len(runs) == 2
    assert asked == [("fail", True)] * 2


def test_option_timeout_seconds() -> None:
    def spin() -> None:
        while True:
            pass

    ((_, _, state),) = ended(spin, timeout_seconds=0.05)
    assert state.is_failed()
    assert state.name == "TimedOut"


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Messages of the logger of task runs."""
    messages: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    root = logging.getLogger("prefect_lite")
    keeper, level = Keeper(), root.level
    root.addHandler(keeper)
    root.setLevel(logging.INFO)
    yield messages
    root.setLevel(level)
    root.removeHandler(keeper)


def test_option_log_prints(logged: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    ended(lambda: print("hello"), log_prints=True)
    assert "hello" in logged
    ended(lambda: print("hello again"), log_prints=False)
    assert "hello again" not in logged
    assert "hello again\n" in capsys.readouterr().out


def test_option_on_completion(failing: Callable[[], None]) -> None:
    seen: list[Any] = []
    hook = lambda task, run, state: seen.append((task.name, state.result()))  # noqa: E731
    task(on_completion=[hook], name="good")(lambda: 1)()
    task(on_completion=[hook])(failing)(return_state=True)
    assert seen == [("good", 1)]


def test_option_on_failure(failing: Callable[[], None]) -> None:
    seen: list[Any] = []
    hook = lambda task, run, state: seen.append((task.name, state.is_failed()))  # noqa: E731
    task(on_failure=[hook])(lambda: 1)()
    task(on_failure=[hook], retries=1)(failing)(return_state=True)
    assert seen == [("fail", True)]


def test_option_viz_return_value() -> None:
    from prefect_lite import flow
    from prefect_lite.visualization import graph_of

    taken: list[Any] = []
    made = task(viz_return_value=[1], name="made")(len)

    @flow
    def drawn() -> None:
        taken.append(made([]))

    assert made.viz_return_value == [1]
    graph_of(drawn)
    assert taken == [[1]]


# -- what is kept ---------------------------------------------------------------------------------------


def test_option_cache_key_fn(counted: Callable[[int], int], runs: list[int]) -> None:
    made = task(cache_key_fn=lambda context, arguments: f"{context.task.name}-{arguments['x'] % 10}")(counted)
    assert [made(1), made(11), made(2)] == [1, 1, 2]
    assert runs == [1, 2]


def test_option_cache_expiration(counted: Callable[[int], int], runs: list[int]) -> None:
    made = task(cache_key_fn=lambda *_: "expiring", cache_expiration=timedelta(seconds=-1))(counted)
    lasting = made.with_options(cache_key_fn=lambda *_: "lasting", cache_expiration=timedelta(days=1))
    assert [each(1) for each in (made, made, lasting, lasting)] == [1] * 4
    assert len(runs) == 3


def test_option_cache_policy(counted: Callable[[int], int], runs: list[int]) -> None:
    from prefect_lite.cache_policies import INPUTS

    made = task(cache_policy=INPUTS)(counted)
    assert [made(1), made(1), made(2)] == [1, 1, 2]
    assert runs == [1, 2]


def test_option_refresh_cache(counted: Callable[[int], int], runs: list[int]) -> None:
    made = task(cache_key_fn=lambda *_: "refreshed")(counted)
    assert [made(1), made(2), made.with_options(refresh_cache=True)(3), made(4)] == [1, 1, 3, 3]
    assert runs == [1, 3]


def test_option_persist_result() -> None:
    from prefect_lite.results import get_result_store

    ((_, _, state),) = ended(lambda: 1, persist_result=True)
    assert get_result_store().read(state.data.metadata.storage_key).result == 1


def test_option_result_storage(tmp_path: Path) -> None:
    from prefect_lite.filesystems import LocalFileSystem

    saved = LocalFileSystem(basepath=str(tmp_path / "results"))
    with harness():  # it keeps the saved one
        saved.save("of-tests", overwrite=True)
        for count, storage in enumerate([saved, "local-file-system/of-tests"], 1):
            ended(lambda: 1, persist_result=True, result_storage=storage)
            assert sum(path.is_file() for path in (tmp_path / "results").rglob("*")) == count


def test_option_result_storage_key() -> None:
    from prefect_lite.results import get_result_store

    ended(lambda: 1, persist_result=True, result_storage_key="by-hand")
    assert get_result_store().read("by-hand").result == 1


def test_option_result_serializer() -> None:
    from prefect_lite.results import get_result_store

    ended(lambda: [1], persist_result=True, result_serializer="json", result_storage_key="as-json")
    assert get_result_store().read("as-json").metadata.serializer.type == "json"


def test_option_asset_deps() -> None:
    from prefect_lite.assets import Asset

    assert task(asset_deps=["s3://bucket/table"])(lambda: 1).asset_deps == [Asset(key="s3://bucket/table")]


def test_option_on_commit() -> None:
    seen: list[Any] = []
    Task(lambda: 1, on_commit=[seen.append])()
    assert len(seen) == 1


def test_option_on_rollback() -> None:
    from prefect_lite.transactions import transaction

    seen: list[Any] = []
    rolled_back = Task(lambda: 1, on_rollback=[seen.append])
    with suppress(ZeroDivisionError), transaction():
        rolled_back()
        1 / 0  # noqa: B018
    assert len(seen) == 1
