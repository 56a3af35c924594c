"""Generator functions as tasks: whole where a run has one result, step by step where they are called here."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


def is_generator_function(fn: Callable[..., Any]) -> bool:
    """Whether calling ``fn`` gives a generator or an asynchronous one."""
    call = type(fn).__call__
    return any(
        check(what)
        for check in (inspect.isgeneratorfunction, inspect.isasyncgenfunction)
        for what in (fn, call)
    )


def whole(fn: Callable[..., Any], isasync: bool) -> Callable[..., Any]:
    """``fn`` with a list of all that it yields as its result: a run elsewhere has no other."""
    if isasync:

        @functools.wraps(fn)
        async def collect_async(*args: Any, **kwargs: Any) -> list[Any]:
            return [item async for item in fn(*args, **kwargs)]

        return collect_async

    @functools.wraps(fn)
    def collect(*args: Any, **kwargs: Any) -> list[Any]:
        return list(fn(*args, **kwargs))

    return collect
