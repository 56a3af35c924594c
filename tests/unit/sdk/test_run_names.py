"""What ``task_run_name`` makes of a run's arguments, and what happens where it can't."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest

from prefect_lite import Task
from prefect_lite.context import TaskRunContext
from prefect_lite.tasks import TaskRunNameCallbackWithParameters


class Deep:
    number = 7

    class inner:
        word = "deep"


def name() -> str:
    context = TaskRunContext.get()
    assert context is not None
    return context.task_run.name


def body(x: Any = 1, y: int = 2, *args: Any, **kw: Any) -> str:
    return name()


async def abody(x: Any = 1, y: int = 2, *args: Any, **kw: Any) -> str:
    return name()


def nothing() -> str:
    return "nothing"


def with_parameters(parameters: dict[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in parameters.items())


def with_default(parameters: dict[str, Any] | None = None, other: int = 3) -> str:
    return f"{parameters is not None}{other}"


def other_default(something: str = "own") -> str:
    return something


class Callback:
    def __call__(self, parameters: dict[str, Any]) -> str:
        return f"callback {parameters['x']}"


class Declared(TaskRunNameCallbackWithParameters):
    def __call__(self, parameters: dict[str, Any]) -> str:
        return f"declared {parameters['x']}"


def run(task: Task[..., Any], *args: Any, **kwargs: Any) -> Any:
    value = task(*args, **kwargs)
    return asyncio.run(value) if task.isasync else value


@pytest.fixture(params=[body, abody], ids=["sync", "async"])
def fn(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("constant", "constant"),
        ("load-{x}", "load-1"),
        ("{x}-{y}", "1-2"),
        ("{y:05d}", "00002"),
        ("{args}-{kw}", "()-{}"),
        ("{{x}}", "{x}"),
        (nothing, "nothing"),
        (lambda: "a lambda", "a lambda"),
        (with_parameters, "x=1,y=2,args=(),kw={}"),
        (with_default, "True3"),
        (other_default, "own"),
        (Callback(), "callback 1"),
        (Declared(), "declared 1"),
        (functools.partial(lambda prefix: prefix, "partial"), "partial"),
        (functools.partial(lambda prefix, parameters: prefix + str(parameters["y"]), "p"), "p2"),
        ("n" * 500, "n" * 200),
    ],
)
def test_the_name(fn: Any, option: Any, wanted: str) -> None:
    assert run(Task(fn, task_run_name=option)) == wanted


def test_templates_reach_into_arguments(fn: Any) -> None:
    made = Task(fn, task_run_name="{x.number}-{x.inner.word}-{y[0]}-{kw[k]}")
    assert run(made, Deep(), y=[5], k="v") == "7-deep-5-v"


def test_an_empty_name_is_the_default_name(fn: Any) -> None:
    for option in ("", lambda: "", None):
        assert run(Task(fn, task_run_name=option)).startswith(f"{fn.__name__}-")


class Leaving:
    def __call__(self) -> str:
        raise SystemExit(3)


async def coroutine() -> str:
    return "never awaited"


def raising(parameters: dict[str, Any]) -> str:
    raise LookupError("no name today")


def needs_more(table: str) -> str:
    return table


BROKEN: list[tuple[Any, type[Exception], str]] = [
    ("{nothing}", KeyError, "nothing"),
    ("{}", IndexError, "Replacement index 0"),
    ("{x", ValueError, "expected '}'"),
    ("{x.missing}", AttributeError, "missing"),
    (raising, LookupError, "no name today"),
    (needs_more, TypeError, "missing 1 required positional argument"),
    (lambda: 5, TypeError, "for 'task_run_name' returned type int but a string is required"),
    (lambda: None, TypeError, "for 'task_run_name' returned type NoneType but a string is required"),
    (coroutine, TypeError, "for 'task_run_name' returned type coroutine but a string is required"),
    (Leaving(), RuntimeError, "SystemExit: 3"),
]


@pytest.mark.parametrize(("option", "error", "words"), BROKEN)
def test_a_run_that_cannot_be_named_fails_before_it_starts(
    fn: Any, option: Any, error: type[Exception], words: str
) -> None:
    told: list[str] = []
    made = Task(
        fn,
        task_run_name=option,
        retries=3,
        on_running=[lambda *_: told.append("running")],
        on_failure=[lambda _task, _run, state: told.append(state.name)],
    )
    with pytest.raises(error, match=words) as caught:
        run(made)
    assert "task_run_name" in caught.value.__notes__[0]
    assert "x, y, args, kw" in caught.value.__notes__[0]
    assert told == ["Failed"]
    state = run(made, return_state=True)
    assert state.is_failed()
    assert words in state.message
    assert "can't be named" in state.message


@pytest.mark.usefixtures("client_home")
def test_submitted_and_mapped_runs_have_names_too(fn: Any) -> None:
    made = Task(fn, task_run_name="n-{x}")
    assert made.submit(3).result() == "n-3"
    assert made.map([1, 2]).result() == ["n-1", "n-2"]
    with pytest.raises(KeyError, match="nope"):
        Task(fn, task_run_name="{nope}").submit(3).result()


def test_a_name_is_made_once_for_all_attempts() -> None:
    made: list[str] = []

    def counting() -> str:
        made.append("")
        return f"name {len(made)}"

    names: list[str] = []

    def failing() -> None:
        names.append(name())
        if len(names) < 3:
            raise ValueError("again")

    Task(failing, retries=2, task_run_name=counting)()
    assert names == ["name 1"] * 3


@pytest.mark.parametrize(
    ("callback", "answer"),
    [
        (with_parameters, True),
        (with_default, True),
        (Callback(), True),
        (Declared(), True),
        (raising, True),
        (nothing, False),
        (needs_more, False),
        (other_default, False),
        (lambda **kw: str(kw), False),
        (max, False),
        (functools.partial(with_parameters, parameters={}), True),
    ],
)
def test_what_a_callback_with_parameters_is(callback: Any, answer: bool) -> None:
    assert TaskRunNameCallbackWithParameters.is_callback_with_parameters(callback) is answer
