"""``with_options`` for every option: it changes, ``None`` clears, all else stays as it was."""

from __future__ import annotations

import atexit
import copy
import dataclasses
import shutil
import tempfile
from datetime import timedelta
from typing import Any

import pytest

from prefect_lite import Task, task
from prefect_lite.cache_policies import INPUTS, RUN_ID
from prefect_lite.context import TaskRunContext
from prefect_lite.exceptions import OptionNotPortable
from prefect_lite.options import HOOKS, OPTION_NAMES, Options
from prefect_lite.serializers import JSONSerializer
from prefect_lite.tagging import tags
from prefect_lite.tasks import exponential_backoff


def body(x: int = 0) -> int:
    """What it says."""
    return x


def first(*_: Any) -> str:
    return "first"


def second(*_: Any) -> str:
    return "second"


FOLDER = tempfile.mkdtemp(prefix="pl-options-")
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)

VALUES: dict[str, tuple[Any, Any]] = {
    "name": ("one", "two"),
    "description": ("said", "said again"),
    "tags": ({"a"}, ["b", "c"]),
    "version": ("1", "2"),
    "key": ("key.one", "key.two"),
    "aliases": (["old"], ("older", "oldest")),
    "retries": (3, 4),
    "retry_delay_seconds": (1.5, [1, 2]),
    "retry_jitter_factor": (0.5, 1),
    "retry_condition_fn": (first, second),
    "timeout_seconds": (5, 0.5),
    "log_prints": (True, False),
    "task_run_name": ("run-{x}", second),
    "result_ttl_seconds": (700, 800.5),
    "max_lost": (1, 0),
    "stop_on_lost_contact": (True, False),
    "persist_result": (True, False),
    "result_storage": (f"{FOLDER}/one", f"{FOLDER}/two"),
    "result_storage_key": ("one", "two"),
    "result_serializer": ("json", JSONSerializer()),
    "cache_result_in_memory": (False, True),
    "cache_policy": (INPUTS, RUN_ID),
    "cache_key_fn": (first, second),
    "cache_expiration": (timedelta(days=1), timedelta(0)),
    "refresh_cache": (True, False),
    "viz_return_value": (1, "two"),
    "asset_deps": (["s3://a/b"], ["s3://a/c"]),
    **{hook: ([first], [second, first]) for hook in HOOKS},
}
EVERY = sorted(OPTION_NAMES)


@pytest.fixture
def full() -> Task[..., Any]:
    """A task that has all options."""
    return Task(body, **{name: value for name, (value, _) in VALUES.items()})


def options_of(task: Task[..., Any]) -> dict[str, Any]:
    return {name: getattr(task.options, name) for name in OPTION_NAMES}


def seen(task: Task[..., Any], name: str) -> Any:
    """What a task shows of an option."""
    return getattr(task, f"{name}_hooks" if name in HOOKS else name)


def test_the_table_has_every_option() -> None:
    assert set(VALUES) == OPTION_NAMES


@pytest.mark.parametrize("name", EVERY)
def test_it_changes_one_option_and_keeps_the_others(full: Task[..., Any], name: str) -> None:
    before = options_of(full)
    changed = full.with_options(**{name: VALUES[name][1]})
    wanted = getattr(Options(**{name: VALUES[name][1]}), name)
    assert options_of(changed) == {**before, name: wanted}
    assert options_of(full) == before
    assert seen(changed, name) == (list(wanted) if name in (*HOOKS, "retry_delay_seconds") else wanted)
    assert changed is not full
    assert type(changed) is Task
    assert changed(3) == full(3) == 3


@pytest.mark.parametrize("name", EVERY)
def test_none_clears_it(full: Task[..., Any], name: str) -> None:
    before = options_of(full)
    cleared = full.with_options(**{name: None})
    assert options_of(cleared) == {**before, name: getattr(Options(), name)}
    assert options_of(full) == before
    assert seen(cleared, name) == seen(Task(body, key=None if name == "key" else "key.one"), name)


@pytest.mark.parametrize("name", EVERY)
def test_it_sets_what_was_not_set(name: str) -> None:
    plain = Task(body)
    changed = plain.with_options(**{name: VALUES[name][0]})
    assert changed.options == Options(**{name: VALUES[name][0]})
    assert plain.options == Options()
    assert changed.with_options(**{name: None}).options == plain.options


@pytest.mark.parametrize("name", EVERY)
def test_only_what_was_changed_travels(full: Task[..., Any], name: str) -> None:
    changed = full.with_options(**{name: VALUES[name][1]})
    if (
        name in (*HOOKS, "retry_condition_fn", "task_run_name", "cache_key_fn")
        or type(VALUES[name][1]) is object
    ):
        with pytest.raises(OptionNotPortable, match=f"{name}="):
            changed.travelling_options  # noqa: B018
    else:
        assert set(changed.travelling_options) == {name} - {
            "key",
            "aliases",
            "description",
            "viz_return_value",
        }


def test_all_at_once_and_nothing_at_all(full: Task[..., Any]) -> None:
    other = full.with_options(**{name: value for name, (_, value) in VALUES.items()})
    assert other.options == Options(**{name: value for name, (_, value) in VALUES.items()})
    same = full.with_options()
    assert same.options == full.options
    assert same is not full
    assert full.with_options(**dict.fromkeys(OPTION_NAMES)).options == Options()


def test_a_cleared_name_and_description_come_from_the_function(full: Task[..., Any]) -> None:
    cleared = full.with_options(name=None, description=None, key=None)
    assert (cleared.name, cleared.description) == ("body", "What it says.")
    assert cleared.key == Task(body).key


def test_tags_are_replaced_and_the_context_adds_to_them() -> None:
    @task(tags=["own"])
    def labelled() -> frozenset[str]:
        context = TaskRunContext.get()
        assert context is not None
        return context.task_run.tags

    with tags("around"):
        assert labelled() == {"own", "around"}
        assert labelled.with_options(tags=["new"])() == {"new", "around"}
        assert labelled.with_options(tags=None)() == {"around"}
    assert labelled() == labelled.tags == {"own"}


@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_of_decorators_are_kept_and_not_shared(hook: str) -> None:
    original = Task(body, **{hook: [first]})
    assert getattr(original, hook)(second) is second
    changed = original.with_options(retries=1)
    assert seen(changed, hook) == [first, second]
    getattr(changed, hook)(print)
    getattr(original, hook)(repr)
    assert seen(changed, hook) == [first, second, print]
    assert seen(original, hook) == [first, second, repr]
    assert seen(original.with_options(**{hook: None}), hook) == []
    assert seen(original.with_options(**{hook: [second]}), hook) == [second]
    seen(original, hook).clear()
    assert len(seen(original, hook)) == 3


def test_iterators_are_read_once() -> None:
    changed = Task(body).with_options(tags=iter(["a"]), aliases=iter(["b"]), on_failure=iter([first]))
    assert (changed.tags, changed.aliases, changed.on_failure_hooks) == ({"a"}, ("b",), [first])
    assert Task(body).with_options(tags=iter(["a"])).travelling_options == {"tags": ["a"]}
    changing = ["a"]
    kept = Task(body).with_options(tags=changing, retry_delay_seconds=(delays := [1.0]))
    changing.append("b")
    delays.append(2.0)
    assert kept.travelling_options == {"tags": ["a"], "retry_delay_seconds": [1.0]}
    assert kept.retry_delay_seconds == [1.0]


def test_delays_follow_the_number_of_retries() -> None:
    made = Task(body, retries=2, retry_delay_seconds=lambda n: [float(n)] * n)
    assert made.retry_delay_seconds == [2, 2]
    assert made.with_options(retries=3).retry_delay_seconds == [3, 3, 3]
    assert made.with_options(retries=3).travelling_options == {"retries": 3}
    changed = Task(body, retries=1).with_options(retry_delay_seconds=exponential_backoff(10))
    assert changed.travelling_options == {"retry_delay_seconds": [10.0]}
    assert changed.with_options(retries=3).travelling_options == {
        "retries": 3,
        "retry_delay_seconds": [10.0, 20.0, 40.0],
    }
    assert Task(body).retry_delay_seconds == 0
    assert Task(body, retry_delay_seconds=4).retry_delay_seconds == 4


def _state(task: Task[..., Any]) -> dict[str, Any]:
    kept = {
        name: copy.copy(value) if isinstance(value, (dict, list, set)) else value
        for name, value in vars(task).items()
    }
    return {**kept, "options": dataclasses.asdict(task.options)}


@pytest.fixture
def hooked() -> Task[..., Any]:
    calls: list[str] = []

    def failing(x: int = 0) -> int:
        calls.append("body")
        if len(calls) % 3:
            raise ValueError("again")
        return x

    return Task(
        failing,
        retries=2,
        tags=["own"],
        task_run_name="named-{x}",
        on_running=[lambda *_: None],
        on_completion=[lambda *_: None],
    )


@pytest.mark.usefixtures("client_home")
def test_runs_never_change_the_task(hooked: Task[..., Any]) -> None:
    before = _state(hooked)
    with tags("around"):
        assert hooked(1) == 1
        assert hooked(1, return_state=True).is_completed()
        assert hooked.with_options(retries=5, name="other")(2) == 2
        assert hooked.submit(3).result() == 3
        assert hooked.map([4, 5]).result() == [4, 5]
    assert _state(hooked) == before
