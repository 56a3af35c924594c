"""A state of a run, and what it gives when it is asked for a result.

Code of this package asks with ``result_of`` and ``exception_of``, which are the same everywhere; what users
call gives a coroutine where an event loop runs.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeGuard, TypeVar, cast, overload

from prefect_lite.exceptions import (
    CancelledRun,
    CrashedRun,
    FailedRun,
    MissingResult,
    PausedRun,
    PrefectException,
    RemoteTraceback,
    UnfinishedRun,
    UpstreamFailedRun,
)
from prefect_lite.state_types import TERMINAL_TYPES, StateType

if TYPE_CHECKING:
    from uuid import UUID

R = TypeVar("R")


class _NoResult:
    """The data of a state whose run ended without leaving a result to fetch."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NO_RESULT"

    def __reduce__(self) -> str:
        return "NO_RESULT"  # the one of the process that loads it: it is compared by identity


NO_RESULT: Final = _NoResult()


def now() -> datetime:
    # The replaceable clock if this process uses it; the broker, which has states too, does not.
    clock = sys.modules.get("prefect_lite.clock")
    return clock.now() if clock is not None else datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class StateDetails:
    """What belongs to a state but not to its name.

    Attributes:
        task_run_id: The task run.
        task_key: The task's key.
        scheduled_time: When a waiting run becomes due (aware, UTC).
        attempt: Number of the last attempt, from 1; 0 before the first one started.
        lost: Leases lost with dead or cut-off workers.
        flow_run_id: The flow run, where it is one.
        pause_timeout: When a paused run is given up (aware, UTC).
        pause_reschedule: The paused run's process ends, and another one goes on with it.
        pause_key: Name of the pause.
    """

    task_run_id: UUID | None = None
    task_key: str = ""
    scheduled_time: datetime | None = None
    attempt: int = 0
    lost: int = 0
    flow_run_id: UUID | None = None
    pause_timeout: datetime | None = None
    pause_reschedule: bool = False
    pause_key: str | None = None

    def __setstate__(self, values: Sequence[Any]) -> None:
        # Results are kept for a day: one may have been pickled by a version with fewer fields, or more.
        for field in fields(self):
            object.__setattr__(self, field.name, field.default)
        for field, value in zip(fields(self), values, strict=False):
            object.__setattr__(self, field.name, value)


_NO_DETAILS: Final = StateDetails()


class State(Generic[R]):
    """Where a run stands.

    Attributes:
        type: The general kind; ``name`` says more (``TimedOut`` is of type ``FAILED``).
        name: Defaults to the kind in title case.
        message: A sentence for people, or None.
        timestamp: When the run entered this state (aware, UTC).
        state_details: See ``StateDetails``.
        data: The value of a completed run, the exception of a failed one.
    """

    __slots__ = ("_id", "data", "message", "name", "state_details", "timestamp", "type")

    def __init__(
        self,
        type: StateType | str,
        name: str | None = None,
        message: str | None = None,
        timestamp: datetime | None = None,
        state_details: StateDetails | Mapping[str, Any] | None = None,
        data: Any = None,
        id: UUID | None = None,
    ) -> None:
        """Raises: ValueError: There is no such type."""
        self.type = type if isinstance(type, StateType) else StateType(type)
        self.name = name or self.type.value.title()
        self.message = message
        self.timestamp = timestamp or now()
        if not isinstance(state_details, StateDetails):
            state_details = StateDetails(**state_details) if state_details else _NO_DETAILS
        self.state_details = state_details
        self.data = data
        self._id = id

    @property
    def id(self) -> UUID:
        """Id of this state, made when it is first asked for; for a run's state the same in each process."""
        if self._id is None:
            from uuid import uuid4, uuid5

            run_id = self.state_details.task_run_id or self.state_details.flow_run_id
            text = f"{self.type}/{self.name}/{self.timestamp.isoformat()}"
            self._id = uuid5(run_id, text) if run_id is not None else uuid4()
        return self._id

    def is_scheduled(self) -> bool:
        return self.type is StateType.SCHEDULED

    def is_pending(self) -> bool:
        return self.type is StateType.PENDING

    def is_running(self) -> bool:
        return self.type is StateType.RUNNING

    def is_completed(self) -> bool:
        return self.type is StateType.COMPLETED

    def is_failed(self) -> bool:
        return self.type is StateType.FAILED

    def is_crashed(self) -> bool:
        return self.type is StateType.CRASHED

    def is_cancelled(self) -> bool:
        return self.type is StateType.CANCELLED

    def is_cancelling(self) -> bool:
        return self.type is StateType.CANCELLING

    def is_paused(self) -> bool:
        return self.type is StateType.PAUSED

    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self.type in TERMINAL_TYPES

    @overload
    def result(self, raise_on_failure: Literal[True] = ..., retry_result_failure: bool = ...) -> R: ...
    @overload
    def result(self, raise_on_failure: bool, retry_result_failure: bool = ...) -> R | BaseException: ...
    def result(self, raise_on_failure: bool = True, retry_result_failure: bool = True) -> R | BaseException:
        """The run's value; where an event loop runs a coroutine that gives it, as in Prefect.

        Inside a task or flow that is no coroutine function it is the value, whatever called that task.
        ``aresult`` is a coroutine everywhere, ``future.result()`` the value everywhere.

        Args:
            raise_on_failure: Raise the run's exception; otherwise return it, or what else a failed state
                holds as data.
            retry_result_failure: For programs written for Prefect; a storage that can't be read says so at
                once.

        Raises:
            UnfinishedRun: The run has not ended (PausedRun: it is paused).
            MissingResult: It completed, but its result was not kept, or is damaged.
            StorageError: It is in a storage that can't be read.
            BaseException: What the task raised, or FailedRun, CrashedRun, CancelledRun.
        """
        if awaits():
            return cast("R", self.aresult(raise_on_failure))
        return result_of(self, raise_on_failure)

    async def aresult(
        self, raise_on_failure: bool = True, retry_result_failure: bool = True
    ) -> R | BaseException:
        """``result()`` for coroutines. It waits only for a result that is not in memory."""
        if is_kept(self.data) and self.is_completed():
            from prefect_lite.thread_or_loop import on_loop

            return await on_loop(self.data.getting())
        return result_of(self, raise_on_failure)

    def fresh_copy(self) -> State[R]:
        """The same as of now: another id and timestamp."""
        return State(self.type, self.name, self.message, None, self.state_details, self.data)

    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> State[R]:
        """The same with some fields changed, and an id of its own."""
        fields: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("type", "name", "message", "timestamp", "state_details", "data")
        }
        return State(**{**fields, **(update or {})})

    def __getstate__(self) -> list[Any]:
        # In this order since the first version; new fields come at the end, in front of what belongs to a
        # class that somebody has derived from this one.
        rest: dict[str, Any] | None = getattr(self, "__dict__", None)
        return [*(getattr(self, name) for name in _PICKLED), rest]

    def __setstate__(self, values: Sequence[Any]) -> None:
        self._id = None
        for name, value in zip(_PICKLED, values, strict=False):
            setattr(self, name, value)
        if len(values) > len(_PICKLED) and values[-1]:
            self.__dict__.update(values[-1])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, State):
            return NotImplemented
        mine = (self.type, self.name, self.message, self.timestamp, self.state_details)
        one = cast("State[Any]", other)
        if mine != (one.type, one.name, one.message, one.timestamp, one.state_details):
            return False
        return self.data is one.data or bool(self.data == one.data)

    def __hash__(self) -> int:
        return hash((self.type, self.name, self.message, self.timestamp))

    def __repr__(self) -> str:
        data = None if self.data is NO_RESULT else self.data
        return f"{self.name}(message={self.message!r}, type={self.type.value}, result={data!r})"

    def __str__(self) -> str:
        parts = [repr(self.message)] if self.message else []
        if self.name.upper() != self.type.value:
            parts.append(f"type={self.type.value}")
        return f"{self.name}({', '.join(parts)})"


_PICKLED: Final = ("type", "name", "message", "timestamp", "state_details", "data", "_id")

for _kind in (State, StateDetails, StateType, _NoResult):
    _kind.__module__ = "prefect_lite.states"  # where pickles look for them, wherever they stand by then


def awaits() -> bool:
    """Whether the caller gets a coroutine: a loop runs in its thread, and it may await.

    A task or flow that is no coroutine function can't, although a loop may run below it in its thread.
    """
    asyncio = sys.modules.get("asyncio")  # without it no loop runs
    if asyncio is None or asyncio._get_running_loop() is None:
        return False
    contexts = sys.modules.get("prefect_lite.context")
    current = contexts.current_context() if contexts is not None else None
    return current is None or bool(current.definition.isasync)


def is_state(obj: Any) -> TypeGuard[State[Any]]:
    """Whether ``obj`` is a ``State``."""
    return isinstance(obj, State)


def is_state_iterable(obj: Any) -> TypeGuard[Collection[State[Any]]]:
    """Whether ``obj`` is a list, tuple or set that holds states, at least one, and nothing else."""
    if not isinstance(obj, (list, tuple, set)) or not obj:
        return False
    # Without a generator, which would cost every task that returns a list 0.4 us.
    for one in cast("Collection[Any]", obj):  # noqa: SIM110
        if not isinstance(one, State):
            return False
    return True


# -- what a state gives -------------------------------------------------------------------------------


def result_of(state: State[Any], raise_on_failure: bool = True) -> Any:
    """What ``State.result`` tells, without regard to event loops."""
    if state.is_completed():
        if state.data is NO_RESULT:
            raise MissingResult(
                "State data is missing: the run completed, but its result was not kept, or the state was "
                "made without any data."
            )
        return state.data.result if is_kept(state.data) else state.data
    if not state.is_final():
        raise unfinished(state)
    if not raise_on_failure and state.data is not None and state.data is not NO_RESULT:
        return state.data
    error = exception_of(state)
    if not raise_on_failure:
        return error
    if isinstance(error.__cause__, RemoteTraceback):
        # Kept by the future, it would grow a longer traceback with every call; the worker's is in its cause.
        # One that was raised in this process has its own.
        error = error.with_traceback(None)
    raise error


def is_kept(data: object) -> bool:
    """Whether the data of a state is a persisted result's record, or a reference to one, and stands for it.

    Such objects have ``result`` for threads and ``getting()`` for both threads and event loops.
    """
    return getattr(type(data), "stands_for_a_value", False) is True


def unfinished(state: State[Any]) -> UnfinishedRun | PausedRun:
    """The error for asking a state that is not final for a result."""
    if state.is_paused():
        return PausedRun(
            "Run is paused, its result is not available before it goes on and ends.", state=state
        )
    return UnfinishedRun(
        f"Run is in {state.type.value} state, its result is not available before it ends: wait for it first."
    )


KINDS: Final[dict[StateType, type[PrefectException]]] = {
    StateType.FAILED: FailedRun,
    StateType.CRASHED: CrashedRun,
    StateType.CANCELLED: CancelledRun,
}


def exception_of(state: State[Any]) -> BaseException:
    """What ``get_state_exception`` tells, without regard to event loops."""
    kind = KINDS.get(state.type)
    if kind is None:
        raise ValueError(f"Expected failed or crashed state got {state!r}. Others have no exception.")
    data = state.data
    if isinstance(data, BaseException):
        return data
    if state.name == "UpstreamFailed":
        kind = UpstreamFailedRun
    if data is None or data is NO_RESULT:
        run_id = state.state_details.task_run_id or state.state_details.flow_run_id
        which = f" It is run {run_id}." if run_id is not None else ""
        return kind(state.message or f"Run {state.type.value.lower()}.{which}")
    if isinstance(data, str):
        return kind(data)
    if isinstance(data, State):
        return exception_of(cast("State[Any]", data))
    if is_state_iterable(data):
        for one in data:
            if one.type in KINDS:
                return exception_of(one)
        raise ValueError(f"The failed state {state} holds states, but none were failed.")
    raise TypeError(
        f"Unexpected result for failed state: {data!r}. An object of type {type(data).__name__} "
        f"cannot be resolved into an exception; give Failed() an exception or a text as data."
    )
