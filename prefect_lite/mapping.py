"""``Task.map``: one call's arguments become many calls'."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, cast

from prefect_lite.context import current_context
from prefect_lite.exceptions import MappingLengthMismatch, MappingMissingIterable
from prefect_lite.futures import PrefectFuture
from prefect_lite.states import State
from prefect_lite.upstreams import value_of
from prefect_lite.utilities.annotations import BaseAnnotation, allow_failure, unmapped

if TYPE_CHECKING:
    from prefect_lite.tasks import Task

Call = tuple[tuple[Any, ...], Mapping[str, Any]]

_CONSTANTS: Final = (str, bytes, io.IOBase)
"""Iterable, but meant as one thing; as in Prefect a bytearray is not."""


def map_task(
    task: Task[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    deferred: bool,
    return_state: bool,
    wait_for: Any,
) -> Any:
    """See ``Task.map``."""
    context = current_context()
    if context is not None and context.drawing is not None:
        return context.drawing.map(task, args, kwargs, deferred, return_state, wait_for)
    calls = expand(task, args, kwargs)
    if isinstance(wait_for, Iterator):
        wait_for = list(cast("Iterator[Any]", wait_for))  # every run looks at it
    waited: list[Any] = [] if wait_for is None else [wait_for]
    if not deferred:
        from prefect_lite import local_runs

        futures = local_runs.submit_many(task, calls, waited)
    else:
        from prefect_lite.submission import send_many

        futures = send_many(task, calls, waited)
    if return_state:
        futures.wait()
        return [future.state for future in futures]
    return futures


def expand(task: Task[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Call]:
    """The calls of a mapping.

    Raises:
        ParameterBindError: They don't bind.
        UpstreamFailedRun: A future or state whose items were to be mapped is no success.
        MappingMissingIterable: No argument is iterable.
        MappingLengthMismatch: The iterables have different lengths.
    """
    args = (*(unmapped(value) for value in task.bound_to), *args)
    task.binder.check(args, kwargs)  # all calls have the same shape
    lengths: dict[str, int] = {}
    names = _names(task, len(args))
    columns = [_column(value, name, lengths) for value, name in zip(args, names, strict=True)]
    named = {name: _column(value, name, lengths) for name, value in kwargs.items()}
    if not lengths:
        raise MappingMissingIterable(
            f"No iterable parameters were received: {task.name}.map() got none to map over. Pass a list, or "
            f"make a single run with submit() or delay(). A str, bytes and unmapped() count as constants."
        )
    if len(set(lengths.values())) > 1:
        raise MappingLengthMismatch(
            f"Received iterable parameters with different lengths: {task.name}.map() got {lengths}. Wrap "
            f"what every run is to get as a whole in unmapped()."
        )
    count = next(iter(lengths.values()))
    positional: Iterable[tuple[Any, ...]] = zip(*columns) if columns else repeat(())  # noqa: B905
    if not named:
        empty: dict[str, Any] = {}
        return ((values, empty) for values, _ in zip(positional, range(count), strict=False))
    keywords = tuple(named)
    rows = zip(positional, zip(*named.values()), range(count))  # noqa: B905
    return ((values, dict(zip(keywords, more, strict=True))) for values, more, _ in rows)


def _names(task: Task[..., Any], count: int) -> Iterable[str]:
    """Names of the positional arguments, for errors."""
    names = list(task.signature.parameters)[:count]
    return [*names, *(f"argument {position + 1}" for position in range(len(names), count))]


def _column(value: Any, name: str, lengths: dict[str, int]) -> Iterable[Any]:
    """The values of one argument in all calls, one after the other."""
    mark: type[BaseAnnotation[Any]] | None = None
    if isinstance(value, BaseAnnotation):
        marked = cast("BaseAnnotation[Any]", value)
        value = marked.unwrap()
        if isinstance(marked, unmapped):
            return repeat(value)
        mark = type(marked)
        if isinstance(value, unmapped):
            return repeat(mark(cast("unmapped[Any]", value).unwrap()))
    if isinstance(value, (PrefectFuture, State)):
        value = value_of(cast("Any", value), mark is allow_failure)
    items = _items(value)
    if items is None:
        return repeat(value if mark is None else mark(value))
    lengths[name] = len(items)
    return items if mark is None else [mark(item) for item in items]


def _items(value: Any) -> Sequence[Any] | None:
    """What is mapped over; None of a constant."""
    if isinstance(value, (list, tuple, range)):
        return cast("Sequence[Any]", value)
    if isinstance(value, _CONSTANTS):
        return None
    try:
        return list(value)
    except TypeError:
        if hasattr(value, "__iter__"):
            raise  # of its own
        return None
