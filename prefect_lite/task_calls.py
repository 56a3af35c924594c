"""The ways to call a task: here, in a thread with ``submit`` and ``map``, or on a worker with the rest.

They are a base class of ``Task`` because each needs its signature several times: the future of a coroutine
function gives what the coroutine returns, that of a generator function a list of all that it yields.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    ParamSpec,
    TypeAlias,
    TypeVar,
    Unpack,
    cast,
    overload,
)

if TYPE_CHECKING:
    from prefect_lite.conditions import SendConditions
    from prefect_lite.futures import PrefectDistributedFuture, PrefectFuture, PrefectFutureList
    from prefect_lite.run_inputs import RunInput
    from prefect_lite.states import State
    from prefect_lite.tasks import Task
    from prefect_lite.utilities.annotations import allow_failure

P = ParamSpec("P")
# Covariant, so that a task with a CoroutineType[...] fits the overloads for a Coroutine[...].
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

Coro: TypeAlias = Coroutine[Any, Any, T]
Steps: TypeAlias = Generator[T, Any, Any] | AsyncGenerator[T, Any]
Dependencies: TypeAlias = "Mapping[str, Iterable[RunInput | PrefectFuture[Any]]]"
Upstreams: TypeAlias = "Iterable[Any] | PrefectFuture[Any] | allow_failure[Any] | None"


Caller: TypeAlias = "Callable[[Task[..., Any], tuple[Any, ...], dict[str, Any]], Any]"
_changing = threading.Lock()


def _first_call(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``direct.call``, with its timers and threads, is loaded once somebody calls a task."""
    global _call
    from prefect_lite.direct import call

    with _changing:
        if _call is _first_call:  # else a flow is being drawn since
            _call = call
    return call(task, args, kwargs)


_call: Caller = _first_call


def call_by(caller: Caller | None) -> None:
    """Have another function take all direct calls, as is done while a flow is drawn; None: as usual."""
    global _call
    with _changing:
        _call = _first_call if caller is None else caller


class TaskCalls(Generic[P, R_co]):
    """See the module's docstring. Calls with ``return_state`` or ``wait_for`` take any arguments else."""

    @property
    def _task(self) -> Task[..., Any]:
        return cast("Task[..., Any]", self)

    # -- here -------------------------------------------------------------------------------------

    # The first is what other generic functions see of a task that they are given.
    @overload
    def __call__(self: TaskCalls[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...
    # A T may itself be a coroutine; those are meant by this one.
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self: TaskCalls[P, Coro[T]],
        *args: Any,
        return_state: Literal[True],
        wait_for: Upstreams = None,
        **kwargs: Any,
    ) -> Coro[State[T]]: ...
    @overload
    def __call__(
        self: TaskCalls[P, T],
        *args: Any,
        return_state: Literal[True],
        wait_for: Upstreams = None,
        **kwargs: Any,
    ) -> State[T]: ...
    @overload
    def __call__(
        self: TaskCalls[P, T],
        *args: Any,
        wait_for: Upstreams,
        return_state: Literal[False] = False,
        **kwargs: Any,
    ) -> T: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run in this process, with retries, timeout and hooks; a coroutine function gives a coroutine.

        Args:
            *args: Of the function. Futures among them are replaced by their results.
            return_state: Return the final state instead of the value, and raise nothing.
            wait_for: Futures that have to end first.
            **kwargs: Of the function.
        """
        task = cast("Task[..., Any]", self)
        return _call(task, (*task.bound_to, *args) if task.bound_to else args, kwargs)

    @overload
    def submit(
        self: TaskCalls[P, Coro[T]],
        *args: Any,
        return_state: Literal[True],
        wait_for: Upstreams = None,
        **kwargs: Any,
    ) -> State[T]: ...
    @overload
    def submit(
        self: TaskCalls[P, Steps[T]],
        *args: Any,
        return_state: Literal[True],
        wait_for: Upstreams = None,
        **kwargs: Any,
    ) -> State[list[T]]: ...
    @overload
    def submit(
        self: TaskCalls[P, T],
        *args: Any,
        return_state: Literal[True],
        wait_for: Upstreams = None,
        **kwargs: Any,
    ) -> State[T]: ...
    @overload
    def submit(self: TaskCalls[P, Coro[T]], *args: P.args, **kwargs: P.kwargs) -> PrefectFuture[T]: ...
    @overload
    def submit(self: TaskCalls[P, Steps[T]], *args: P.args, **kwargs: P.kwargs) -> PrefectFuture[list[T]]: ...
    @overload
    def submit(self: TaskCalls[P, T], *args: P.args, **kwargs: P.kwargs) -> PrefectFuture[T]: ...
    @overload
    def submit(
        self: TaskCalls[P, Coro[T]],
        *args: Any,
        wait_for: Upstreams,
        return_state: Literal[False] = False,
        **kwargs: Any,
    ) -> PrefectFuture[T]: ...
    @overload
    def submit(
        self: TaskCalls[P, Steps[T]],
        *args: Any,
        wait_for: Upstreams,
        return_state: Literal[False] = False,
        **kwargs: Any,
    ) -> PrefectFuture[list[T]]: ...
    @overload
    def submit(
        self: TaskCalls[P, T],
        *args: Any,
        wait_for: Upstreams,
        return_state: Literal[False] = False,
        **kwargs: Any,
    ) -> PrefectFuture[T]: ...
    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """Run in a thread of this process. Futures among the arguments are replaced by their results.

        Args:
            *args: Of the function.
            return_state: Wait, and return the final state instead of a future.
            wait_for: Futures that have to end first.
            **kwargs: Of the function.
        """
        from prefect_lite import local_runs

        return local_runs.submit(self._task, (*self._task.bound_to, *args), kwargs)

    # -- on a worker ------------------------------------------------------------------------------

    @overload
    def delay(
        self: TaskCalls[P, Coro[T]], *args: P.args, **kwargs: P.kwargs
    ) -> PrefectDistributedFuture[T]: ...
    @overload
    def delay(
        self: TaskCalls[P, Steps[T]], *args: P.args, **kwargs: P.kwargs
    ) -> PrefectDistributedFuture[list[T]]: ...
    @overload
    def delay(self: TaskCalls[P, T], *args: P.args, **kwargs: P.kwargs) -> PrefectDistributedFuture[T]: ...
    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """Run on a worker. Returns once the run is durable.

        Futures among the arguments, also inside lists, tuples, sets and dicts, are replaced by their results
        before the run starts. For runs on workers it is the broker that waits; only futures of ``submit``
        are waited for here. A run that fails takes those that wait for it with it (``UpstreamFailed``),
        unless its future is wrapped in ``allow_failure``, which gives the task its exception.

        Raises:
            UpstreamFailedRun: A run of this process among the arguments has failed; nothing was sent.
            SubmitError: It waits for more than 10,000 others; nothing was sent.
            ParameterBindError: The arguments don't fit; nothing was sent.
            SerializationError: An argument can't be encoded; nothing was sent.
            PayloadTooLarge, QueueFull, OptionNotPortable: The run was not accepted.
            BrokerUnreachable, AuthenticationFailed, StoreUnavailable: Nor could it be.
        """
        from prefect_lite.submission import send

        return send(self._task, args, kwargs)

    @overload
    def adelay(
        self: TaskCalls[P, Coro[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Coro[PrefectDistributedFuture[T]]: ...
    @overload
    def adelay(
        self: TaskCalls[P, Steps[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Coro[PrefectDistributedFuture[list[T]]]: ...
    @overload
    def adelay(
        self: TaskCalls[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Coro[PrefectDistributedFuture[T]]: ...
    def adelay(self, *args: Any, **kwargs: Any) -> Any:
        """``delay`` for coroutines: the event loop goes on while the broker stores the run."""
        from prefect_lite.submission import asend

        return asend(self._task, args, kwargs)

    @overload
    def apply_async(
        self: TaskCalls[P, Coro[T]],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        wait_for: Iterable[Any] | None = None,
        dependencies: Dependencies | None = None,
        **conditions: Unpack[SendConditions],
    ) -> PrefectDistributedFuture[T]: ...
    @overload
    def apply_async(
        self: TaskCalls[P, Steps[T]],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        wait_for: Iterable[Any] | None = None,
        dependencies: Dependencies | None = None,
        **conditions: Unpack[SendConditions],
    ) -> PrefectDistributedFuture[list[T]]: ...
    @overload
    def apply_async(
        self: TaskCalls[P, T],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        wait_for: Iterable[Any] | None = None,
        dependencies: Dependencies | None = None,
        **conditions: Unpack[SendConditions],
    ) -> PrefectDistributedFuture[T]: ...
    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        wait_for: Iterable[Any] | None = None,
        dependencies: Dependencies | None = None,
        **conditions: Unpack[SendConditions],
    ) -> Any:
        """``delay`` with conditions.

        Args:
            args: Positional arguments of the function.
            kwargs: Keyword arguments of the function.
            wait_for: Futures whose runs have to complete first (with ``allow_failure``: to end). The run
                waits for them, not this call.
            dependencies: Name to what the run depends on. Inputs (``RunInput``) are recorded in its
                ``task_inputs`` and not waited for; futures are waited for as in ``wait_for``.
            **conditions: ``countdown``, ``eta``, ``expires``, ``priority``, ``idempotency_key``,
                ``run_id``: see ``SendConditions``.

        Raises:
            ConfigurationError: A condition is impossible, such as a naive ``eta``; nothing was sent.
            IdempotencyConflict: The same id or key came before with other arguments.
            Exception: Everything that ``delay`` raises.
        """
        from prefect_lite.submission import send

        return send(self._task, tuple(args or ()), dict(kwargs or {}), conditions, wait_for, dependencies)

    @overload
    def aapply_async(
        self: TaskCalls[P, Coro[T]],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        wait_for: Iterable[Any] | None = None,
        dependencies: Dependencies | None = None,
        **conditions: Unpack[SendConditions],
    ) -> Coro[PrefectDistributedFuture[T]]: ...
    @overload
    def aapply_async(
        self: TaskCalls[P, Steps[T]],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        wait_for: Iterable[Any] | None = None,
        dependencies: Dependencies | None = None,
        **conditions: Unpack[SendConditions],
    ) -> Coro[PrefectDistributedFuture[list[T]]]: ...
    @overload
    def aapply_async(
        self: TaskCalls[P, T],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        wait_for: Iterable[Any] | None = None,
        dependencies: Dependencies | None = None,
        **conditions: Unpack[SendConditions],
    ) -> Coro[PrefectDistributedFuture[T]]: ...
    def aapply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        wait_for: Iterable[Any] | None = None,
        dependencies: Dependencies | None = None,
        **conditions: Unpack[SendConditions],
    ) -> Any:
        """``apply_async`` for coroutines."""
        from prefect_lite.submission import asend

        return asend(self._task, tuple(args or ()), dict(kwargs or {}), conditions, wait_for, dependencies)

    @overload
    def map(
        self: TaskCalls[..., Coro[T]],
        *args: Any,
        return_state: Literal[True],
        deferred: bool = False,
        wait_for: Upstreams = None,
        **kwargs: Any,
    ) -> list[State[T]]: ...
    @overload
    def map(
        self: TaskCalls[..., Steps[T]],
        *args: Any,
        return_state: Literal[True],
        deferred: bool = False,
        wait_for: Upstreams = None,
        **kwargs: Any,
    ) -> list[State[list[T]]]: ...
    @overload
    def map(
        self: TaskCalls[..., T],
        *args: Any,
        return_state: Literal[True],
        deferred: bool = False,
        wait_for: Upstreams = None,
        **kwargs: Any,
    ) -> list[State[T]]: ...
    @overload
    def map(
        self: TaskCalls[..., Coro[T]],
        *args: Any,
        return_state: Literal[False] = False,
        deferred: bool = False,
        wait_for: Upstreams = None,
        **kwargs: Any,
    ) -> PrefectFutureList[T]: ...
    @overload
    def map(
        self: TaskCalls[..., Steps[T]],
        *args: Any,
        return_state: Literal[False] = False,
        deferred: bool = False,
        wait_for: Upstreams = None,
        **kwargs: Any,
    ) -> PrefectFutureList[list[T]]: ...
    @overload
    def map(
        self: TaskCalls[..., T],
        *args: Any,
        return_state: Literal[False] = False,
        deferred: bool = False,
        wait_for: Upstreams = None,
        **kwargs: Any,
    ) -> PrefectFutureList[T]: ...
    def map(
        self,
        *args: Any,
        return_state: bool = False,
        deferred: bool = False,
        wait_for: Upstreams = None,
        **kwargs: Any,
    ) -> Any:
        """One run for each item of the iterable arguments; others, and ``unmapped(...)``, go to every run.

        Futures among the items are replaced as ``delay`` does. A future that is itself an argument is waited
        for here, for its items; wrap it in ``unmapped`` to give its result to every run.

        Args:
            *args: Iterables of one length, or constants. Strings and bytes are constants.
            return_state: Wait, and return final states instead of futures.
            deferred: Send the runs to workers, in few frames; returns once all are durable. Otherwise they
                run in threads of this process.
            wait_for: Futures whose runs have to complete before each of these starts.
            **kwargs: The same by name.

        Raises:
            MappingMissingIterable, MappingLengthMismatch: The arguments are no mapping.
            BatchError: Some runs were refused; its ``errors`` says which and why. The others run.
            Exception: Everything that ``delay`` raises.
        """
        from prefect_lite.mapping import map_task

        return map_task(self._task, args, kwargs, deferred, return_state, wait_for)
