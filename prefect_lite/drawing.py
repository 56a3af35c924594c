"""What a flow would run, noted while its function is executed without its tasks.

Tasks that it calls, submits or maps, and flows that it calls, give what their author says they would
(``viz_return_value``) or a placeholder; whoever gets one of these as an argument comes after it.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, cast
from uuid import UUID

from prefect_lite.exceptions import VisualizationUnsupportedError
from prefect_lite.futures import PrefectConcurrentFuture, PrefectFuture, PrefectFutureList
from prefect_lite.mapping import expand
from prefect_lite.nesting import MAX_DEPTH, SCALARS, items_of
from prefect_lite.run_ids import new_run_id
from prefect_lite.states import Completed, State, StateDetails
from prefect_lite.utilities.annotations import BaseAnnotation, allow_failure, quote, unmapped

if TYPE_CHECKING:
    from prefect_lite.flows import Flow
    from prefect_lite.tasks import Task


class DrawnRun(NamedTuple):
    """One run that there would be.

    Attributes:
        name: The task's or flow's, and how many of that name were before.
        id: What its future and state name it by.
        upstream: Names of the runs whose results it gets.
        before: Names of further runs that it waits for.
    """

    name: str
    id: UUID
    upstream: tuple[str, ...]
    before: tuple[str, ...]


class Placeholder:
    """Stands for the result of a run that there would be, where nobody says what that would be."""

    __slots__ = ("run_name",)

    def __init__(self, run_name: str) -> None:
        self.run_name = run_name

    def __repr__(self) -> str:
        return f"<result of {self.run_name}>"


class Drawing:
    """The runs of one flow run that there would be.

    Attributes:
        runs: In the order in which they would begin.
        guessed: Names of tasks whose results nobody knows, so that placeholders were given.
    """

    def __init__(self) -> None:
        self.runs: list[DrawnRun] = []
        self.guessed: dict[str, None] = {}
        self._counts: dict[str, int] = {}
        self._by_id: dict[UUID, str] = {}
        # Values by identity, each with its run. Kept, so that no other one gets its id meanwhile.
        self._values: dict[int, tuple[Any, str]] = {}
        self._noting = threading.Lock()

    # -- how the code of the flow begins runs -----------------------------------------------------

    def call(self, what: Task[..., Any] | Flow[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """A direct call of a task or flow.

        Args:
            what: What is called.
            args: Positional arguments, of a method with its instance.
            kwargs: The same by name; ``return_state`` and ``wait_for`` may be among them.

        Raises:
            ParameterBindError: The arguments don't fit.
        """
        arguments = dict(kwargs)
        return_state = bool(arguments.pop("return_state", False))
        wait_for = arguments.pop("wait_for", None)
        what.binder.check(args, arguments)

        def run() -> Any:
            return self._state(what, (args, arguments), wait_for)

        if what.isgenerator and not return_state:
            return self._steps(what, run())
        if not what.isasync:
            return run() if return_state else run().data

        async def arun() -> Any:
            return run() if return_state else run().data

        return arun()

    def submit(
        self, task: Task[..., Any], inputs: Any, wait_for: Any, sources: Iterable[str] = ()
    ) -> PrefectFuture[Any]:
        """A call of ``submit``.

        Args:
            task: What is submitted.
            inputs: Its arguments, in whatever collection.
            wait_for: What it waits for beside them.
            sources: Names of further runs that the arguments come from.
        """
        state = self._state(task, inputs, wait_for, sources)
        ended: concurrent.futures.Future[Any] = concurrent.futures.Future()
        ended.set_result(state)
        return PrefectConcurrentFuture(cast("UUID", state.state_details.task_run_id), ended)

    def map(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        deferred: bool,
        return_state: bool,
        wait_for: Any,
    ) -> Any:
        """A call of ``map``; where nobody knows how many runs it would make, one stands for them.

        Raises:
            VisualizationUnsupportedError: The runs would be executed by workers.
            Exception: What ``Task.map`` raises.
        """
        if deferred:
            self.refuse("map(deferred=True)")
        if isinstance(wait_for, Iterator):
            wait_for = list(cast("Iterator[Any]", wait_for))  # every run looks at it
        columns = [self._column(value) for value in args]
        named = {name: self._column(value) for name, value in kwargs.items()}
        every = [*columns, *named.values()]
        sources = [column.source for column in every if column.source is not None]
        if any(column.unknown for column in every) and not any(column.counted for column in every):
            calls: Iterable[Any] = [((*task.bound_to, *args), kwargs)]
        else:
            values = {name: column.value for name, column in named.items()}
            calls = expand(task, tuple(column.value for column in columns), values)
        futures = PrefectFutureList(self.submit(task, call, wait_for, sources) for call in calls)
        return [future.state for future in futures] if return_state else futures

    def refuse(self, method: str) -> NoReturn:
        """Raises: VisualizationUnsupportedError: Always."""
        raise VisualizationUnsupportedError(
            f"`task.{method}` can't be drawn: it sends a run to a worker, and nothing may run while "
            f"`flow.visualize()` draws a flow. Call the task directly, or with submit() or map(), in a flow "
            f"that is to be drawn."
        )

    # -- runs and what they give ------------------------------------------------------------------

    def _state(
        self,
        what: Task[..., Any] | Flow[..., Any],
        inputs: Any,
        wait_for: Any,
        sources: Iterable[str] = (),
    ) -> State[Any]:
        """Note a run; its final state."""
        upstream = dict.fromkeys([*sources, *self._sources((inputs,))])
        before = dict.fromkeys(name for name in self._sources((wait_for,)) if name not in upstream)
        with self._noting:
            count = self._counts.get(what.name, 0)
            self._counts[what.name] = count + 1
            run = DrawnRun(f"{what.name}-{count}", UUID(new_run_id()), tuple(upstream), tuple(before))
            self._by_id[run.id] = run.name
            self.runs.append(run)
        value = self._result(getattr(what, "viz_return_value", None), run.name, what.name)
        return Completed(data=value, state_details=StateDetails(task_run_id=run.id))

    def _result(self, value: Any, run: str, name: str) -> Any:
        if value is None:
            self.guessed[name] = None
            return Placeholder(run)
        kind = cast("type[Any]", type(value))
        if kind in (list, tuple):  # its items may be passed on one by one
            items = [self._own(item, run) for item in cast("list[Any]", value)]
            return self._own(kind(items), run)
        return self._own(value, run)

    def _own(self, value: Any, run: str) -> Any:
        """The value, in a copy where that is needed and can be done to know it again."""
        copy = _COPIES.get(cast("type[Any]", type(value)))
        if copy is not None:
            another = copy(value)
            if another is value:  # a small integer: there is only one of each
                return value
            value = another
        elif isinstance(value, (bool, type(None))):
            return value
        self._values[id(value)] = value, run
        return value

    def _steps(self, what: Any, state: State[Any]) -> Any:
        """What a generator function gives: the items that it is said to yield, or one placeholder."""
        value: Any = state.data
        run = self._by_id[cast("UUID", state.state_details.task_run_id)]
        items = cast("Iterable[Any]", value) if isinstance(value, Iterable) else (value,)
        steps: Any = _asteps(items) if what.isasync else (item for item in items)
        self._values[id(steps)] = steps, run
        return steps

    # -- what comes before what -------------------------------------------------------------------

    def source(self, value: Any) -> str | None:
        """Name of the run that a value comes from; None if it is none of this drawing."""
        if isinstance(value, Placeholder):
            return value.run_name
        if isinstance(value, PrefectFuture):
            return self._by_id.get(cast("PrefectFuture[Any]", value).task_run_id)
        if isinstance(value, State):
            run_id = cast("State[Any]", value).state_details.task_run_id
            return self._by_id.get(run_id) if run_id is not None else None
        known = self._values.get(id(value))
        return known[1] if known is not None else None

    def _sources(
        self, values: Iterable[Any], depth: int = MAX_DEPTH, seen: dict[int, Any] | None = None
    ) -> Iterator[str]:
        """Names of the runs that arguments come from, looking into collections as a run does."""
        seen = {} if seen is None else seen
        for value in values:
            name = self.source(value)
            if name is not None:
                yield name
            elif type(value) not in SCALARS and depth and id(value) not in seen:
                seen[id(value)] = value
                yield from self._sources(_held_by(value), depth - 1, seen)

    def _column(self, value: Any) -> _Column:
        """One argument of a mapping."""
        if isinstance(value, unmapped):
            return _Column(cast("Any", value))
        inner: Any = cast("Any", value).unwrap() if isinstance(value, allow_failure) else value
        name = self.source(inner)
        if name is None:
            return _Column(value, counted=_is_counted(inner))
        if isinstance(inner, PrefectFuture):
            inner = cast("PrefectFuture[Any]", inner).state
        if isinstance(inner, State):
            inner = cast("State[Any]", inner).data
        if isinstance(inner, Placeholder):
            return _Column(unmapped(inner), name, unknown=True)
        return _Column(inner, name, counted=_is_counted(inner))


class _Column(NamedTuple):
    """One argument of a mapping.

    Attributes:
        value: What to give to ``expand``.
        source: The run that it comes from as a whole.
        counted: It tells how many runs there are.
        unknown: It would tell, if it were known.
    """

    value: Any
    source: str | None = None
    counted: bool = False
    unknown: bool = False


def _is_counted(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes))


def _held_by(value: Any) -> Iterable[Any]:
    if isinstance(value, quote):
        return ()
    if isinstance(value, BaseAnnotation):
        return (cast("BaseAnnotation[Any]", value).unwrap(),)
    return items_of(value) or ()


async def _asteps(items: Iterable[Any]) -> AsyncGenerator[Any]:
    for item in items:
        yield item


_COPIES: Final[dict[type, Callable[[Any], Any]]] = {
    list: list,
    dict: dict,
    set: set,
    tuple: lambda value: (*[*value],),
    frozenset: lambda value: frozenset([*value]),
    str: lambda value: "".join([*value]),
    bytes: lambda value: bytes(bytearray(value)),
    int: lambda value: -1 * (-1 * value),
    float: lambda value: value * 1.0,
}
"""How to make an equal one that is another object, if there can be any."""
