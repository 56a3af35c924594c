"""What kind of callable a task is made of: what it is called, what it gives, how it binds."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from prefect_lite.exceptions import OptionTypeError
from prefect_lite.generators import is_generator_function


class TaskFunction(NamedTuple):
    """A callable and what is known about it before any call.

    Attributes:
        fn: What is called; the function of a classmethod or staticmethod.
        name: For people: the function's, or that of the object's class.
        description: Its docstring without indentation, if it has one.
        isasync: Whether a call gives a coroutine or an asynchronous generator.
        isgenerator: Whether a call gives a generator, asynchronous or not.
        isclassmethod: Whether it was a classmethod.
        isstaticmethod: Whether it was a staticmethod.
    """

    fn: Callable[..., Any]
    name: str
    description: str | None
    isasync: bool
    isgenerator: bool
    isclassmethod: bool
    isstaticmethod: bool


class Answer(int):
    """Yes or no, both as a value and when it is called.

    Prefect has properties where its reference has methods: ``task.ismethod`` and ``task.ismethod()`` are both
    what somebody wrote by the book.
    """

    def __call__(self) -> bool:
        return bool(self)

    def __repr__(self) -> str:
        return repr(bool(self))


def inspected(fn: Any) -> TaskFunction:
    """What ``fn`` is.

    Raises:
        OptionTypeError: It can't be called.
    """
    isclassmethod, isstaticmethod = isinstance(fn, classmethod), isinstance(fn, staticmethod)
    if isclassmethod or isstaticmethod:
        fn = fn.__func__
    if not callable(fn):
        raise OptionTypeError(f"'fn' must be callable: @task needs a function, got {fn!r}.")
    named: Any = innermost(fn)
    if inspect.isfunction(named):  # as most are; one look is quicker than five questions
        flags = named.__code__.co_flags
        isgenerator = bool(flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR))
        isasync = bool(flags & inspect.CO_ASYNC_GENERATOR) or inspect.iscoroutinefunction(named)
    else:
        isgenerator, isasync = is_generator_function(named), _is_async(named)
    name = getattr(named, "__name__", type(named).__name__)
    return TaskFunction(fn, name, inspect.getdoc(named), isasync, isgenerator, isclassmethod, isstaticmethod)


def innermost(fn: Callable[..., Any]) -> Callable[..., Any]:
    """``fn``, or what a ``functools.partial`` completes."""
    while isinstance(fn, functools.partial):
        fn = cast("functools.partial[Any]", fn).func
    return fn


def dress(task: Any, fn: Callable[..., Any]) -> None:
    """Give a task the name, module, docstring, annotations and attributes of its function."""
    named = innermost(fn)
    # Attributes of other callable objects are their own affair, and might hide the task's methods.
    functools.update_wrapper(task, named, updated=("__dict__",) if inspect.isfunction(named) else ())
    if named is not fn:
        task.__wrapped__ = fn


def _is_async(fn: Callable[..., Any]) -> bool:
    call: Any = getattr(type(fn), "__call__", None)  # noqa: B004  # of an object, or Python's own
    return any(
        check(what)
        for check in (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
        for what in (fn, call)
    )
