"""Everything that can be called can be a task: what it is called, what it gives, how it binds."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import cloudpickle
import pytest

from prefect_lite import Task, task
from prefect_lite.exceptions import OptionTypeError, ParameterBindError, ReservedArgumentError
from prefect_lite.options import Options


def function(x: int, y: int = 2) -> int:
    """Adds.

    Nothing else.
    """
    return x + y


async def coroutine(x: int, y: int = 2) -> int:
    return x + y


def generator(x: int, y: int = 2) -> Iterator[int]:
    yield from (x, y)


async def agenerator(x: int, y: int = 2) -> AsyncIterator[int]:
    yield x
    yield y


class Adder:
    """An adder."""

    def __init__(self) -> None:
        self.delay = "an attribute of its own"
        self.retries = 99

    def __call__(self, x: int, y: int = 2) -> int:
        return x + y

    def method(self, x: int) -> int:
        return x


class AsyncAdder:
    async def __call__(self, x: int, y: int = 2) -> int:
        return x + y


class Steps:
    def __call__(self, x: int, y: int = 2) -> Iterator[int]:
        yield from (x, y)


def run(value: Any) -> Any:
    return asyncio.run(value) if inspect.iscoroutine(value) else value


async def collect(items: Any) -> list[Any]:
    return [item async for item in items]


KINDS: list[tuple[Callable[..., Any], str, bool, bool]] = [
    (function, "function", False, False),
    (coroutine, "coroutine", True, False),
    (generator, "generator", False, True),
    (agenerator, "agenerator", True, True),
    (lambda x, y=2: x + y, "<lambda>", False, False),
    (functools.partial(function, 1), "function", False, False),
    (functools.partial(functools.partial(coroutine, 1), y=2), "coroutine", True, False),
    (functools.partial(generator, 1), "generator", False, True),
    (functools.partial(agenerator, 1), "agenerator", True, True),
    (Adder(), "Adder", False, False),
    (AsyncAdder(), "AsyncAdder", True, False),
    (functools.partial(AsyncAdder(), 1), "AsyncAdder", True, False),
    (Steps(), "Steps", False, True),
    (Adder().method, "method", False, False),
    (Adder, "Adder", False, False),
    (len, "len", False, False),
    (max, "max", False, False),
    (str.upper, "upper", False, False),
]


@pytest.mark.parametrize(("fn", "name", "isasync", "isgenerator"), KINDS)
def test_what_it_is(fn: Callable[..., Any], name: str, isasync: bool, isgenerator: bool) -> None:
    for made in (Task(fn), task(fn), task(retries=1)(fn), Task(fn, retries=1), Task(fn, Options())):
        assert (made.name, made.isasync, made.isgenerator) == (name, isasync, isgenerator)
        assert made.fn is fn
        assert made.key == made.task_key
        assert made.version is None
        assert callable(made.delay)
        assert made.retries in (0, 1)
        assert repr(made) == f"<Task {made.key}>"


@pytest.mark.parametrize(("fn", "name", "isasync", "isgenerator"), KINDS[:13])
def test_it_runs(fn: Callable[..., Any], name: str, isasync: bool, isgenerator: bool) -> None:
    made = Task(fn)
    args = () if isinstance(fn, functools.partial) else (1,)
    if not isgenerator:
        assert run(made(*args)) == 3
    elif isasync:
        assert asyncio.run(collect(made(*args))) == [1, 2]
    else:
        assert list(made(*args)) == [1, 2]


@pytest.mark.parametrize(("fn", "name", "isasync", "isgenerator"), KINDS[:13])
def test_a_whole_run_of_it_has_one_result(
    fn: Callable[..., Any], name: str, isasync: bool, isgenerator: bool
) -> None:
    args = () if isinstance(fn, functools.partial) else (1,)
    assert run(Task(fn).body(*args)) == ([1, 2] if isgenerator else 3)


def test_keys() -> None:
    home = function.__module__
    assert Task(function).key == f"{home}.function"
    assert Task(Adder()).key == f"{home}.Adder"
    assert Task(Adder().method).key == f"{home}.Adder.method"
    # Runs of the one must not be taken for runs of the other.
    assert Task(functools.partial(function, 1)).key == f"{home}.function.<partial>"
    assert Task(len).key == "builtins.len"


def test_descriptions_are_docstrings_without_indentation() -> None:
    assert Task(function).description == "Adds.\n\nNothing else."
    assert Task(Adder()).description == "An adder."
    assert Task(coroutine).description is None
    assert Task(functools.partial(function, 1)).description == "Adds.\n\nNothing else."
    assert Task(function, description="Said.").description == "Said."
    assert Task(function, description="").description == ""


def test_it_looks_like_its_function() -> None:
    made = Task(function)
    assert (made.__name__, made.__doc__, made.__module__) == ("function", function.__doc__, __name__)
    assert made.__wrapped__ is function
    assert inspect.signature(made) == inspect.signature(function) == made.signature
    partial = Task(functools.partial(function, 1))
    assert partial.__name__ == "function"
    assert list(inspect.signature(partial).parameters) == list(partial.signature.parameters) == ["y"]


def test_attributes_of_objects_do_not_hide_the_tasks_own() -> None:
    made = Task(Adder())
    assert callable(made.delay)
    assert made.retries == 0
    assert not hasattr(Task(Adder(), key="k"), "nothing")


@pytest.mark.parametrize("value", [3, None, "x", object()])
def test_only_callables_are_tasks(value: Any) -> None:
    with pytest.raises(OptionTypeError, match="'fn' must be callable"):
        Task(value)
    if value is not None:
        with pytest.raises(TypeError, match="'fn' must be callable"):
            task(value)


def test_options_go_by_name() -> None:
    with pytest.raises(OptionTypeError, match=r"Task\(fn, name='label'\)"):
        Task(function, "label")  # type: ignore[arg-type]
    with pytest.raises(OptionTypeError, match="no task option 'nme'"):
        Task(function, nme="x")  # type: ignore[call-arg]
    assert Task(function, name="label", retries=2).options == Options(name="label", retries=2)


@pytest.mark.parametrize("name", ["wait_for", "return_state", "deferred"])
@pytest.mark.parametrize("form", ["def f({}): pass", "async def f(*, {}=1): pass", "f = lambda **{}: 1"])
def test_reserved_names_are_refused(name: str, form: str) -> None:
    scope: dict[str, Any] = {}
    exec(form.format(name), scope)
    for decorate in (task, Task, task(retries=1)):
        with pytest.raises(ReservedArgumentError, match=f"'{name}' is a reserved argument name") as caught:
            decorate(scope["f"])
        assert isinstance(caught.value, TypeError)


def test_a_call_that_does_not_bind_says_so() -> None:
    with pytest.raises(ParameterBindError, match="Error binding parameters for function 'function': missing"):
        Task(function).binder.check((), {})
    with pytest.raises(TypeError, match="too many positional arguments"):
        Task(function).binder.parameters((1, 2, 3), {})


# -- methods --------------------------------------------------------------------------------------


class Box:
    def __init__(self, content: int = 0) -> None:
        self.content = content

    @task
    def method(self, x: int) -> Any:
        return self, x

    @task(retries=1)
    async def amethod(self, x: int) -> Any:
        return self, x

    @task
    @classmethod
    def inner_class(cls, x: int) -> Any:
        return cls, x

    @classmethod
    @task
    def outer_class(cls, x: int) -> Any:
        return cls, x

    @task
    @staticmethod
    def inner_static(x: int) -> Any:
        return x

    @staticmethod
    @task
    def outer_static(x: int) -> Any:
        return x


class Sub(Box):
    pass


def flags(made: Any) -> tuple[bool, bool, bool]:
    return bool(made.ismethod), bool(made.isclassmethod), bool(made.isstaticmethod)


def test_methods_get_their_instance() -> None:
    box = Box()
    assert box.method(1) == (box, 1)
    assert Box.method(box, 1) == (box, 1)
    assert asyncio.run(box.amethod(1)) == (box, 1)
    assert box.method.with_options(name="x")(1) == (box, 1)
    assert flags(box.method) == flags(box.amethod) == (True, False, False)
    assert flags(Box.method) == (False, False, False)
    assert box.method(1, return_state=True).result() == (box, 1)
    assert Sub().method(2)[1] == 2


@pytest.mark.parametrize("owner", [Box, Box(), Sub, Sub()])
def test_classmethods_get_their_class(owner: Any) -> None:
    cls = owner if isinstance(owner, type) else type(owner)
    assert owner.inner_class(1) == (cls, 1)
    assert owner.inner_class.with_options(retries=1)(1) == (cls, 1)
    assert flags(owner.inner_class) == (False, True, False)
    assert owner.outer_class(1) == (cls, 1)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="classmethod no longer binds what it wraps")
def test_a_classmethod_around_a_task_is_a_task() -> None:
    assert flags(Box.outer_class) == (True, False, False)
    assert Box.outer_class.with_options(retries=1)(1) == (Box, 1)


@pytest.mark.parametrize("owner", [Box, Box()])
def test_staticmethods_get_nothing(owner: Any) -> None:
    for made in (owner.inner_static, owner.outer_static):
        assert made(1) == 1
        assert made.with_options(retries=1)(1) == 1
    assert flags(owner.inner_static) == (False, False, True)
    assert flags(owner.outer_static) == (False, False, False)


def test_the_answers_are_values_and_can_be_called() -> None:
    yes, no = Box.inner_class.isclassmethod, Box.inner_class.ismethod
    assert (yes, no) == (True, False)
    assert yes() is True
    assert no() is False
    assert repr(yes) == "True"
    assert not no


def test_bound_tasks_of_objects_can_be_submitted(client_home: Any) -> None:
    box = Box()
    assert box.method.submit(3).result() == (box, 3)
    assert Box.inner_class.submit(3).result() == (Box, 3)
    assert Box.inner_static.submit(3).result() == 3
    assert box.method.map([1, 2]).result() == [(box, 1), (box, 2)]


@pytest.mark.parametrize(("fn", "name", "isasync", "isgenerator"), KINDS[:13])
def test_tasks_without_a_name_of_their_own_are_pickled_by_value(
    fn: Callable[..., Any], name: str, isasync: bool, isgenerator: bool
) -> None:
    back = pickle.loads(cloudpickle.dumps(Task(fn, retries=3, key="a.key")))
    assert (back.name, back.key, back.retries) == (name, "a.key", 3)
    assert (back.isasync, back.isgenerator) == (isasync, isgenerator)


def test_a_task_of_a_task_is_a_task() -> None:
    assert task(Task(function, retries=3))(1) == 3
    assert Task(Task(function, retries=3)).retries == 0
