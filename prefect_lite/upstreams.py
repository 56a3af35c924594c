"""Runs that a run depends on: futures and states among its arguments, and what it is to wait for.

For a run on a worker the broker waits for other such runs (``link``). What runs in this process, or is called
here, is waited for here (``resolve``, ``wait_all``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MappingView
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from prefect_lite.client.latch import Latch
from prefect_lite.exceptions import SubmitError, UpstreamFailedRun
from prefect_lite.futures import PrefectDistributedFuture, PrefectFuture, PrefectFutureList, wait
from prefect_lite.nesting import SCALARS, Replacement, find
from prefect_lite.placeholders import Upstream
from prefect_lite.protocol.checks import MAX_PARENTS
from prefect_lite.states import State, result_of
from prefect_lite.utilities.annotations import BaseAnnotation, allow_failure, quote

if TYPE_CHECKING:
    from prefect_lite.client.requests import Submission

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Source = PrefectFuture[Any] | State[Any]
Take = Callable[[Source, bool], Any]
"""What to do with a future or state, which may have failed or not."""

UNSETTLED: Final[dict[str, Submission]] = {}
"""On their way in a batch, by run id: their idempotency key may turn out to belong to another run."""
_SOURCES: Final = (PrefectFuture, State)
_MARKED: Final = (PrefectFuture, State, BaseAnnotation)


class Found(NamedTuple):
    """Futures and states, each with whether it may have failed."""

    sources: list[tuple[Source, bool]]

    @property
    def local(self) -> list[PrefectFuture[Any]]:
        """The futures that only this process knows."""
        return [one for one, _ in self.sources if isinstance(one, PrefectFuture) and not _is_remote(one)]

    @property
    def unsettled(self) -> list[tuple[PrefectDistributedFuture[Any], Submission]]:
        """The futures of an open batch that others can't wait for yet.

        They may turn out to mean another run, or stand in a line for longer than a broker waits for a run
        that it has not heard of.
        """
        remote = [one for one, _ in self.sources if isinstance(one, PrefectDistributedFuture)]
        found: list[tuple[PrefectDistributedFuture[Any], Submission]] = []
        for one in remote:
            submission = one._submission  # pyright: ignore[reportPrivateUsage]
            if submission is None or submission.done or submission.patience <= 0:
                submission = UNSETTLED.get(_id(one))
            if submission is not None:
                found.append((one, submission))
        return found


class Linked(NamedTuple):
    """A call that can be sent, and the runs that the broker has to wait for.

    Attributes:
        args: With placeholders for the results of runs on workers.
        kwargs: The same by name.
        has_placeholders: There are some.
        parents: Ids of runs that must complete.
        tolerated: Ids of further runs, which may end in any way.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    has_placeholders: bool
    parents: list[str]
    tolerated: list[str]


# -- for runs on workers ------------------------------------------------------------------------------


def has_futures(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call has futures, states or marks to be replaced before it can be sent."""
    for value in (*args, *kwargs.values()):
        if type(value) not in SCALARS and any(True for _ in find((value,), _MARKED)):
            return True
    return False


def link(args: tuple[Any, ...], kwargs: Mapping[str, Any], wait_for: Found) -> Linked:
    """The call with futures replaced; waits for those of this process, and for no others.

    Args:
        args: Positional arguments.
        kwargs: Keyword arguments.
        wait_for: What ``found_in`` has found.

    Raises:
        UpstreamFailedRun: A run of this process, or a state, is no success and not in ``allow_failure``.
        ParameterTypeError: Nobody knows how to make another collection of a kind that holds futures.
        SubmitError: These are more runs than one can wait for.
    """
    found = _awaited(args, kwargs, wait_for)
    wait(found.local)
    for future, submission in found.unsettled:
        Latch.wait(submission)  # giving up this wait does not give up that run
        _settle(future, submission)
    return _linked(args, kwargs, wait_for)


async def alink(args: tuple[Any, ...], kwargs: Mapping[str, Any], wait_for: Found) -> Linked:
    """``link`` for coroutines."""
    found = _awaited(args, kwargs, wait_for)
    await PrefectFutureList(found.local).wait_async()
    for future, submission in found.unsettled:
        await Latch.wait_async(submission)
        _settle(future, submission)
    return _linked(args, kwargs, wait_for)


def _awaited(args: tuple[Any, ...], kwargs: Mapping[str, Any], wait_for: Found) -> Found:
    return Found([*_in_call(args, kwargs).sources, *wait_for.sources])


def _linked(args: tuple[Any, ...], kwargs: Mapping[str, Any], wait_for: Found) -> Linked:
    strict: dict[str, None] = {}
    tolerated: dict[str, None] = {}

    def note(source: Source, allowed: bool) -> Any:
        if not isinstance(source, PrefectDistributedFuture):
            return value_of(source, allowed)
        run_id = _id(source)
        _check_not_refused(source)
        (tolerated if allowed else strict)[run_id] = None
        return Upstream(run_id, allowed)

    args, kwargs = _replaced(args, kwargs, note)
    has_placeholders = bool(strict or tolerated)
    for source, allowed in wait_for.sources:
        if _is_remote(source):
            note(source, allowed)
    _check((source, allowed) for source, allowed in wait_for.sources if not _is_remote(source))
    only_tolerated = [run_id for run_id in tolerated if run_id not in strict]
    count = len(strict) + len(only_tolerated)
    if count > MAX_PARENTS:
        raise SubmitError(
            f"The call waits for {count:,} other runs; at most {MAX_PARENTS:,} are possible. Gather them in "
            f"groups, each with a run of its own, and wait for those.",
            code="too_many_parents",
        )
    return Linked(args, kwargs, has_placeholders, list(strict), only_tolerated)


def _check_not_refused(future: PrefectDistributedFuture[Any]) -> None:
    """In a batch: the run was refused meanwhile, so nothing can wait for it."""
    submission = future._submission  # pyright: ignore[reportPrivateUsage]
    error = submission.errors.get(_id(future)) if submission is not None else None
    if error is not None:
        raise UpstreamFailedRun(
            f"Run {future.task_run_id}, which this one is to wait for, was not accepted: {error}"
        ) from error


def _settle(future: PrefectDistributedFuture[Any], submission: Submission) -> None:
    run_id = _id(future)
    UNSETTLED.pop(run_id, None)
    future.stand_for(submission.aliases.get(run_id, run_id))


def _id(future: PrefectDistributedFuture[Any]) -> str:
    return future._id  # pyright: ignore[reportPrivateUsage]


def _is_remote(source: Source) -> bool:
    return isinstance(source, PrefectDistributedFuture)


# -- in this process ----------------------------------------------------------------------------------


def resolve(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
    """The call with futures replaced by their results; blocks until they have ended.

    Raises:
        UpstreamFailedRun: One failed and is not wrapped in ``allow_failure``.
        ParameterTypeError: Nobody knows how to make another collection of a kind that holds some.
    """
    wait(_futures(_in_call(args, kwargs)))
    return _replaced(args, kwargs, value_of)


async def aresolve(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
    """``resolve`` for coroutines."""
    await PrefectFutureList(_futures(_in_call(args, kwargs))).wait_async()
    return _replaced(args, kwargs, value_of)


def wait_all(values: Iterable[Any]) -> None:
    """Block until all futures among ``values``, nested ones too, have ended.

    Raises:
        UpstreamFailedRun: One of them did not complete, and is not wrapped in ``allow_failure``.
    """
    found = found_in(values)
    wait(_futures(found))
    _check(found.sources)


async def await_all(values: Iterable[Any]) -> None:
    """``wait_all`` for coroutines."""
    found = found_in(values)
    await PrefectFutureList(_futures(found)).wait_async()
    _check(found.sources)


def awaited(args: tuple[Any, ...], kwargs: Mapping[str, Any], wait_for: Any) -> list[PrefectFuture[Any]]:
    """The futures that a call depends on.

    Raises:
        ParameterTypeError: Nobody knows how to make another collection of a kind that holds some.
    """
    found = _futures(_in_call(args, kwargs)) if has_futures(args, kwargs) else []
    return found if wait_for is None else [*found, *_futures(found_in((wait_for,)))]


# -- inside -------------------------------------------------------------------------------------------


def found_in(values: Iterable[Any]) -> Found:
    """The futures and states among ``values``, nested ones too, and in what iterators among them give."""
    return _in_call(
        tuple(
            list(cast("Iterable[Any]", value)) if isinstance(value, (Iterator, MappingView)) else value
            for value in values
        ),
        {},
    )


def _in_call(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Found:
    """Those among arguments; an iterator is left to the task, as looking would use it up."""
    sources: list[tuple[Source, bool]] = []

    def note(source: Source, allowed: bool) -> Source:
        sources.append((source, allowed))
        return source

    _replaced(args, kwargs, note)
    return Found(sources)


def _futures(found: Found) -> list[PrefectFuture[Any]]:
    return [source for source, _ in found.sources if isinstance(source, PrefectFuture)]


def _replaced(args: tuple[Any, ...], kwargs: Mapping[str, Any], take: Take) -> Arguments:
    """The call with ``take(source, allow failure)`` in the place of each source, and marks taken off."""

    def put(value: Any, allowed: bool) -> Any:
        if isinstance(value, _SOURCES):
            return take(cast("Source", value), allowed)
        if isinstance(value, quote):
            return cast("quote[Any]", value).unwrap()
        allowed = allowed or isinstance(value, allow_failure)
        return (tolerant if allowed else strict)(value.unwrap())

    strict = Replacement(_MARKED, lambda value: put(value, False))
    tolerant = Replacement(_MARKED, lambda value: put(value, True))
    return strict.in_call(args, kwargs)


def _check(sources: Iterable[tuple[Source, bool]]) -> None:
    for source, allowed in sources:
        state = source if isinstance(source, State) else source.state
        if not allowed and not state.is_completed():
            raise _failed(source, state)


def value_of(source: Source, allowed: bool) -> Any:
    """The value of a future or state; waits for it.

    Args:
        source: The future or state.
        allowed: If it is no success give its exception.

    Raises:
        UpstreamFailedRun: It is no success, and not ``allowed``.
    """
    if isinstance(source, State):
        state, result = source, None
    else:
        result = source.result(raise_on_failure=False)
        state = source.state
    if not (state.is_completed() or allowed):
        raise _failed(source, state)
    return result_of(state, raise_on_failure=False) if state is source else result


def _failed(source: Source, state: State[Any]) -> UpstreamFailedRun:
    if state.name == "UpstreamFailed" and state.message:
        return UpstreamFailedRun(state.message)  # of the first one: in a long chain each would quote the next
    run_id = state.state_details.task_run_id if isinstance(source, State) else source.task_run_id
    run = f"task run '{run_id}'" if run_id is not None else "state"
    return UpstreamFailedRun(f"Upstream {run} did not reach a 'COMPLETED' state: it ended as {state}.")
