"""Runs that a run depends on, waited for by the caller before it sends or starts the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MappingView
from typing import Any, cast

from prefect_lite.exceptions import ParameterTypeError, UpstreamFailedRun
from prefect_lite.futures import PrefectFuture, PrefectFutureList, wait
from prefect_lite.states import State
from prefect_lite.utilities.annotations import BaseAnnotation, allow_failure, quote

_MAX_DEPTH = 32

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def has_futures(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call has futures or marks to be replaced by values before it can be sent."""
    return _has_futures((*args, *kwargs.values()), _MAX_DEPTH)


def _has_futures(values: Iterable[Any], depth: int) -> bool:
    for value in values:
        if isinstance(value, (PrefectFuture, BaseAnnotation)):
            return True
        if depth and isinstance(value, (list, tuple, set, frozenset)):
            if _has_futures(cast("Iterable[Any]", value), depth - 1):
                return True
        elif (
            depth
            and isinstance(value, dict)
            and _has_futures(cast("dict[Any, Any]", value).values(), depth - 1)
        ):
            return True
    return False


def resolve(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
    """The call with futures replaced by their results; blocks until they have ended.

    Raises:
        UpstreamFailedRun: One failed and is not wrapped in ``allow_failure``.
        ParameterTypeError: A collection of an unknown kind holds some.
    """
    found = _futures_of((*args, *kwargs.values()))
    wait(found)
    return _replaced(args, kwargs)


async def aresolve(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
    """``resolve`` for coroutines."""
    await PrefectFutureList(_futures_of((*args, *kwargs.values()))).wait_async()
    return _replaced(args, kwargs)


def wait_all(values: Iterable[Any]) -> None:
    """Block until all futures among ``values``, nested ones too, have ended.

    Raises:
        UpstreamFailedRun: One of them did not complete, and is not wrapped in ``allow_failure``.
    """
    found = _found(values)
    wait([future for future, _ in found])
    _check(found)


async def await_all(values: Iterable[Any]) -> None:
    """``wait_all`` for coroutines."""
    found = _found(values)
    await PrefectFutureList([future for future, _ in found]).wait_async()
    _check(found)


def _check(found: Iterable[tuple[PrefectFuture[Any], bool]]) -> None:
    for future, allowed in found:
        state = future.state
        if not allowed and not state.is_completed():
            raise _failed(future, state)


def _found(values: Iterable[Any]) -> list[tuple[PrefectFuture[Any], bool]]:
    """Each future with whether it may fail."""
    found: list[tuple[PrefectFuture[Any], bool]] = []

    def note(future: PrefectFuture[Any], allowed: bool) -> None:
        found.append((future, allowed))

    for value in values:
        if isinstance(value, (Iterator, MappingView)):
            value = list(cast("Iterable[Any]", value))  # noqa: PLW2901
        _visit(value, note, False, _MAX_DEPTH)
    return found


def _futures_of(values: Iterable[Any]) -> list[PrefectFuture[Any]]:
    return [future for future, _ in _found(values)]


def _replaced(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
    return (
        tuple(_visit(value, _value, False, _MAX_DEPTH) for value in args),
        {name: _visit(value, _value, False, _MAX_DEPTH) for name, value in kwargs.items()},
    )


def _visit(value: Any, take: Callable[[PrefectFuture[Any], bool], Any], allowed: bool, depth: int) -> Any:
    """``value`` with ``take(future, allow failure)`` in the place of each future, marks taken off."""
    if isinstance(value, PrefectFuture):
        return take(cast("PrefectFuture[Any]", value), allowed)
    if isinstance(value, quote):
        return cast("quote[Any]", value).unwrap()
    if isinstance(value, BaseAnnotation):
        marked = cast("BaseAnnotation[Any]", value)
        return _visit(marked.unwrap(), take, allowed or isinstance(value, allow_failure), depth)
    if depth == 0:
        return value
    make = _maker(value)
    if make is not None:
        return make(_visit(item, take, allowed, depth - 1) for item in value)
    if type(value) is dict:
        mapping = cast("dict[Any, Any]", value)
        return {key: _visit(item, take, allowed, depth - 1) for key, item in mapping.items()}
    if _has_futures([value], depth):
        raise ParameterTypeError(
            f"A {type(value).__name__} among the arguments holds futures, which can be replaced by their "
            f"results in a list, tuple, set or dict only. Pass one of these."
        )
    return value


def _maker(value: Any) -> Callable[[Iterable[Any]], Any] | None:
    """What makes another of the same kind from items, None when we don't know."""
    kind = cast("Any", type(value))
    if kind in (list, tuple, set, frozenset):
        return kind
    if kind is PrefectFutureList:
        return list
    if isinstance(value, tuple) and hasattr(kind, "_make"):
        return kind._make
    return None


def _value(future: PrefectFuture[Any], allowed: bool) -> Any:
    result = future.result(raise_on_failure=False)
    state = future.state
    if state.is_completed() or allowed:
        return result
    raise _failed(future, state)


def _failed(future: PrefectFuture[Any], state: State[Any]) -> UpstreamFailedRun:
    return UpstreamFailedRun(f"Run {future.task_run_id}, which this one waited for, ended as {state}.")
