"""Tasks as objects: options, keys, methods, copies, pickles."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
from typing import Any

import cloudpickle
import pytest

from prefect_lite import Task, known_tasks, task
from prefect_lite.exceptions import (
    ConfigurationError,
    OptionNotPortable,
    ReservedArgumentError,
)
from prefect_lite.options import ATTRIBUTE_NAMES, OPTION_NAMES
from prefect_lite.tasks import exponential_backoff
from prefect_lite.testing import eager


@task
def add(x: int, y: int = 1) -> int:
    """Add."""
    return x + y


@task(name="The Task", retries=2, tags={"a"}, version="3", description="said")
async def coroutine(x: int) -> int:
    return x


class Box:
    def __init__(self, content: int) -> None:
        self.content = content

    @task
    def plus(self, other: int) -> int:
        return self.content + other

    @task
    @classmethod
    def named(cls, other: int) -> str:
        return f"{cls.__name__}{other}"

    @task
    @staticmethod
    def alone(other: int) -> int:
        return other


def test_it_looks_like_its_function() -> None:
    assert add.__name__ == "add"
    assert add.__doc__ == "Add."
    assert add.description == "Add."
    assert str(add.signature).startswith("(x: ")
    assert not add.isasync
    assert coroutine.isasync


def test_options_are_readable() -> None:
    assert (coroutine.name, coroutine.retries, coroutine.version) == ("The Task", 2, "3")
    assert coroutine.tags == frozenset({"a"})
    assert coroutine.description == "said"
    for name in ATTRIBUTE_NAMES - {"description", "asset_deps"}:
        assert getattr(coroutine, name) == getattr(coroutine.options, name)
    assert (coroutine.asset_deps, coroutine.options.asset_deps) == ([], None)


def test_the_key_is_module_and_qualname() -> None:
    assert add.key == add.task_key == f"{__name__}.add"
    assert coroutine.key == f"{__name__}.coroutine"
    assert Box.plus.key == f"{__name__}.Box.plus"
    assert task(key="mine")(add.fn).key == "mine"


@pytest.mark.parametrize("key", ["", "a b", "a\n", "x" * 513])
def test_impossible_keys_are_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match="task key"):
        task(key=key)(add.fn)


def test_unknown_options_and_odd_functions_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'retries'"):
        task(retry=3)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="needs a function"):
        Task(3)  # type: ignore[arg-type]
    with pytest.raises(ReservedArgumentError):

        @task
        def bad(wait_for: int) -> None: ...

    with pytest.raises(ReservedArgumentError, match="'deferred' is a reserved"):

        @task
        def worse(deferred: bool) -> None: ...


def test_callable_objects_are_tasks() -> None:
    class Doubler:
        def __call__(self, x: int) -> int:
            return 2 * x

    doubler = Task(Doubler())
    assert doubler.name == "Doubler"
    assert doubler.key.endswith("Doubler")
    assert doubler(4) == 8


def test_with_options_changes_a_copy() -> None:
    changed = coroutine.with_options(retries=5, name=None)
    assert (changed.retries, changed.name, changed.version) == (5, "coroutine", "3")
    assert (coroutine.retries, coroutine.name) == (2, "The Task")
    assert changed.key == coroutine.key
    assert coroutine.travelling_options == {}
    assert changed.travelling_options == {"retries": 5, "name": None}
    assert changed.with_options(retries=6).travelling_options == {"retries": 6, "name": None}


def test_changed_callables_do_not_travel() -> None:
    with pytest.raises(OptionNotPortable, match="on_failure"):
        add.with_options(on_failure=[print]).travelling_options  # noqa: B018


def test_it_runs_here() -> None:
    assert add(1) == 2
    assert add(1, y=4) == 5


def test_methods_bind() -> None:
    box = Box(3)
    assert box.plus(4) == 7
    assert box.plus.ismethod
    assert not Box.plus.ismethod
    assert Box.named(1) == "Box1"
    assert Box.named.isclassmethod
    assert box.alone(2) == 2
    assert Box.alone.isstaticmethod
    assert Box.plus(box, 1) == 4
    assert box.plus.with_options(retries=1)(4) == 7


def test_hooks_are_added_where_the_task_is_defined() -> None:
    made = Task(add.fn)

    @made.on_failure
    def first(*_: Any) -> None: ...

    @made.on_failure
    def second(*_: Any) -> None: ...

    for name in ("on_running", "on_completion", "on_commit", "on_rollback"):
        assert getattr(made, name)(print) is print
        assert getattr(made.options, name) == (print,)
    assert made.options.on_failure == (first, second)
    assert made.with_options(retries=1).options.on_failure == (first, second)
    assert made.travelling_options == {}
    assert add.options.on_failure is None


@pytest.mark.parametrize("through", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_task_of_a_module_is_pickled_by_name(through: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("types").SimpleNamespace(**globals()))
    assert through(add) is add
    changed = through(add.with_options(retries=7))
    assert changed.retries == 7
    assert changed.fn is add.fn
    assert changed.travelling_options == {"retries": 7}


def test_a_local_task_is_pickled_by_value() -> None:
    offset = 10

    @task(retries=3)
    def local(x: int) -> int:
        return x + offset

    back = pickle.loads(cloudpickle.dumps(local))
    assert back(1) == 11
    assert back.retries == 3


def test_a_hook_given_to_a_copy_stays_here() -> None:
    copied = add.with_options(retries=1)

    @copied.on_failure
    def hook(*_: Any) -> None: ...

    with pytest.raises(OptionNotPortable, match="on_failure"):
        copied.travelling_options  # noqa: B018

    @task
    def own(x: int) -> int:
        return x

    own.on_failure(hook)
    assert own.travelling_options == {}  # the worker has it too


def test_attributes_are_those_of_prefect() -> None:
    made = Task(add.fn, retries=3, retry_delay_seconds=exponential_backoff(10), tags=["b", "b"])
    assert made.tags == {"b"}
    assert Task(add.fn).tags == set()
    assert made.retry_delay_seconds == [10, 20, 40]
    assert (made.on_completion_hooks, made.on_failure_hooks, made.on_running_hooks) == ([], [], [])
    assert (made.on_commit_hooks, made.on_rollback_hooks) == ([], [])
    assert (made.version, made.timeout_seconds, made.log_prints, made.persist_result) == (None,) * 4
    assert (made.cache_key_fn, made.cache_expiration, made.refresh_cache) == (None,) * 3
    assert (made.result_storage, made.result_serializer, made.result_storage_key) == (None,) * 3
    assert (made.task_run_name, made.retry_jitter_factor, made.retry_condition_fn) == (None,) * 3
    assert made.viz_return_value is None
    for name in ("isasync", "isgenerator", "ismethod", "isclassmethod", "isstaticmethod"):
        assert not getattr(made, name)


@pytest.mark.parametrize("deferred", [False, True])
def test_runs_can_be_created(deferred: bool) -> None:
    ran: list[int] = []

    @task
    def notes(x: int) -> int:
        ran.append(x)
        return x

    with eager():
        made = asyncio.run(notes.create_run(parameters={"x": 1}, deferred=deferred))
        assert made.state_name == ("Scheduled" if deferred else "Pending")
        assert ran == ([1] if deferred else []), "a deferred run is sent to a worker"
        local = asyncio.run(notes.create_local_run(parameters={"x": 2}, deferred=deferred))
        assert local.state_name == "Pending"
        assert 2 not in ran, "a local run is never sent"
        assert local.task_inputs == made.task_inputs


def test_defined_tasks_are_known() -> None:
    @task
    def here() -> None: ...

    assert known_tasks.find(here.key) is here
    changed = here.with_options(retries=3)
    assert known_tasks.find(here.key) is here
    other = here.with_options(key="test.tasks.other", aliases=["test.tasks.older"])
    assert known_tasks.find("test.tasks.other") is known_tasks.find("test.tasks.older") is other
    assert changed.key == here.key


def test_aliases_are_keys() -> None:
    with pytest.raises(ConfigurationError, match="task key"):
        Task(add.fn, aliases=["not a key"])


@pytest.mark.parametrize("what", [task, Task, Task.with_options], ids=["task", "Task", "with_options"])
def test_signatures_show_every_option(what: Any) -> None:
    shown = inspect.signature(what).parameters
    assert set(shown) >= OPTION_NAMES
    assert all(shown[name].kind is inspect.Parameter.KEYWORD_ONLY for name in OPTION_NAMES)
    kept = what is Task.with_options
    assert shown["retries"].default == (... if kept else 0)
    assert not {parameter.kind for parameter in shown.values()} & {inspect.Parameter.VAR_KEYWORD}
    assert "changes" not in shown
