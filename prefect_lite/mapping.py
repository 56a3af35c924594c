"""``Task.map``: one call's arguments become many calls'."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from typing import TYPE_CHECKING, Any, cast

from prefect_lite.exceptions import MappingLengthMismatch, MappingMissingIterable
from prefect_lite.futures import PrefectFuture
from prefect_lite.utilities.annotations import BaseAnnotation, allow_failure, unmapped

if TYPE_CHECKING:
    from prefect_lite.tasks import Task

Call = tuple[tuple[Any, ...], Mapping[str, Any]]


def map_task(
    task: Task[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    deferred: bool,
    return_state: bool,
    wait_for: Iterable[PrefectFuture[Any] | allow_failure[Any]] | None,
) -> Any:
    """See ``Task.map``."""
    calls = expand(task, args, kwargs)
    if not deferred:
        from prefect_lite import local_runs

        futures = local_runs.submit_many(task, calls, list(wait_for or ()))
    else:
        from prefect_lite.submission import send_many

        futures = send_many(task, calls, wait_for)
    if return_state:
        futures.wait()
        return [future.state for future in futures]
    return futures


def expand(task: Task[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Call]:
    """The calls of a mapping.

    Raises:
        ParameterBindError: They don't bind.
        MappingMissingIterable: No argument is iterable.
        MappingLengthMismatch: The iterables have different lengths.
    """
    args = (*(unmapped(value) for value in task.bound_to), *args)
    task.binder.check(args, kwargs)  # all calls have the same shape
    lengths: dict[str, int] = {}
    columns = [_column(value, position, lengths) for position, value in enumerate(args)]
    named = {name: _column(value, name, lengths) for name, value in kwargs.items()}
    if not lengths:
        raise MappingMissingIterable(
            f"{task.name}.map() got no iterable to map over. Pass a list, or call delay() for a single run."
        )
    if len(set(lengths.values())) > 1:
        sizes = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise MappingLengthMismatch(
            f"{task.name}.map() got iterables of different lengths ({sizes}). Wrap constants in unmapped()."
        )
    count = next(iter(lengths.values()))
    positional: Iterable[tuple[Any, ...]] = zip(*columns) if columns else repeat(())  # noqa: B905
    if not named:
        empty: dict[str, Any] = {}
        return ((values, empty) for values, _ in zip(positional, range(count), strict=False))
    names = tuple(named)
    rows = zip(positional, zip(*named.values()), range(count))  # noqa: B905
    return ((values, dict(zip(names, more, strict=True))) for values, more, _ in rows)


def _column(value: Any, name: int | str, lengths: dict[str, int]) -> Iterable[Any]:
    """The values of one argument in all calls, one after the other."""
    if isinstance(value, unmapped):
        return repeat(cast("unmapped[Any]", value).unwrap())
    mark: Any = None
    if isinstance(value, allow_failure):
        mark, value = allow_failure, cast("allow_failure[Any]", value).unwrap()
    if isinstance(value, PrefectFuture):
        value = cast("PrefectFuture[Any]", value).result()
    if isinstance(value, (str, bytes, bytearray, BaseAnnotation)) or not isinstance(value, Iterable):
        return repeat(cast("Any", value) if mark is None else mark(value))
    items: Any = cast("Any", value) if isinstance(value, (list, tuple, range)) else list(cast("Any", value))
    lengths[f"argument {name + 1}" if isinstance(name, int) else name] = len(items)
    return items if mark is None else [mark(item) for item in items]
