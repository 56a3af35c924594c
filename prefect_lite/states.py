"""States of a run, as the store keeps them and as users see them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from prefect_lite.exceptions import (
    CancelledRun,
    CrashedRun,
    FailedRun,
    MissingResult,
    PrefectException,
    RemoteTraceback,
    UnfinishedRun,
    UpstreamFailedRun,
)

if TYPE_CHECKING:
    from uuid import UUID


class StateType(StrEnum):
    """Prefect's state types."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"


TERMINAL_TYPES = frozenset({StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED})


class RunPhase(Enum):
    """Where the store has a run (field ``st`` of its hash): one letter, and what users see."""

    BLOCKED = ("B", StateType.SCHEDULED, "Scheduled")
    READY = ("R", StateType.SCHEDULED, "Scheduled")
    DELAYED = ("D", StateType.SCHEDULED, "Scheduled")  # or AwaitingRetry: the record's own name wins
    LEASED = ("L", StateType.PENDING, "Pending")
    RUNNING = ("X", StateType.RUNNING, "Running")  # or Retrying
    CANCELLING = ("K", StateType.CANCELLING, "Cancelling")
    COMPLETED = ("c", StateType.COMPLETED, "Completed")  # terminal phases are lower case
    FAILED = ("f", StateType.FAILED, "Failed")
    CRASHED = ("h", StateType.CRASHED, "Crashed")
    CANCELLED = ("k", StateType.CANCELLED, "Cancelled")

    def __init__(self, code: str, type: StateType, state_name: str) -> None:
        self.code = code
        self.type = type
        self.state_name = state_name

    @property
    def terminal(self) -> bool:
        return self.code.islower()


PHASE_BY_CODE: dict[str, RunPhase] = {phase.code: phase for phase in RunPhase}


R = TypeVar("R")
T = TypeVar("T")


class _NoResult:
    """The data of a state whose run ended without leaving a result to fetch."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NO_RESULT"


NO_RESULT = _NoResult()


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class StateDetails:
    """What belongs to a state but not to its name.

    Attributes:
        task_run_id: The run.
        task_key: The task's key.
        scheduled_time: When a waiting run becomes due (aware, UTC).
        attempt: Number of the last attempt, from 1; 0 before the first one started.
        lost: Leases lost with dead or cut-off workers.
    """

    task_run_id: UUID | None = None
    task_key: str = ""
    scheduled_time: datetime | None = None
    attempt: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True, eq=False, repr=False)
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

    type: StateType
    name: str = ""
    message: str | None = None
    timestamp: datetime = field(default_factory=_now)
    state_details: StateDetails = field(default_factory=StateDetails)
    data: Any = None

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.type.value.title())

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
    def result(self, raise_on_failure: Literal[True] = ...) -> R: ...
    @overload
    def result(self, raise_on_failure: bool) -> R | BaseException: ...
    def result(self, raise_on_failure: bool = True) -> R | BaseException:
        """The run's value.

        Args:
            raise_on_failure: Raise the run's exception; otherwise return it.

        Raises:
            UnfinishedRun: The run has not ended.
            MissingResult: It completed, but its result was not kept.
            BaseException: What the task raised, or FailedRun, CrashedRun, CancelledRun.
        """
        if not self.is_final():
            raise UnfinishedRun(f"The run has not ended: it is {self}.")
        if self.is_completed():
            if self.data is NO_RESULT:
                raise MissingResult("The run completed, but its result was not kept.")
            return self.data
        error = get_state_exception(self)
        if raise_on_failure:
            if isinstance(error.__cause__, RemoteTraceback):
                # Kept by the future, it would grow a longer traceback with every call; the worker's is in
                # its cause. One that was raised in this process has its own.
                error = error.with_traceback(None)
            raise error
        return error

    async def aresult(self, raise_on_failure: bool = True) -> R | BaseException:
        """``result()`` for code written against Prefect's coroutine; never waits."""
        return self.result(raise_on_failure=raise_on_failure)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, State):
            return NotImplemented
        mine = (self.type, self.name, self.message, self.state_details)
        return mine == (other.type, other.name, other.message, other.state_details)

    def __hash__(self) -> int:
        return hash((self.type, self.name, self.message))

    def __repr__(self) -> str:
        parts = [f"message={self.message!r}"] if self.message else []
        parts.append(f"type={self.type.value}")
        if self.is_final() and self.data is not NO_RESULT:
            parts.append(f"result={self.data!r}")
        return f"{self.name}({', '.join(parts)})"

    def __str__(self) -> str:
        return f"{self.name}({self.message!r})" if self.message else f"{self.name}()"


def is_state(obj: Any) -> bool:
    """Whether ``obj`` is a ``State``."""
    return isinstance(obj, State)


def get_state_exception(state: State[Any]) -> BaseException:
    """The exception that a failed, crashed or cancelled state stands for.

    Raises:
        ValueError: The state is of another type.
    """
    if isinstance(state.data, BaseException):
        return state.data
    kinds: dict[StateType, type[PrefectException]] = {
        StateType.FAILED: UpstreamFailedRun if state.name == "UpstreamFailed" else FailedRun,
        StateType.CRASHED: CrashedRun,
        StateType.CANCELLED: CancelledRun,
    }
    kind = kinds.get(state.type)
    if kind is None:
        raise ValueError(f"Expected a failed, crashed or cancelled state, got {state}.")
    run = f"Run {state.state_details.task_run_id} " if state.state_details.task_run_id else "The run "
    return kind(state.message or f"{run}ended as {state.name}.")


def raise_state_exception(state: State[Any]) -> None:
    """Raise what a failed, crashed or cancelled state stands for; do nothing for any other."""
    if state.is_failed() or state.is_crashed() or state.is_cancelled():
        raise get_state_exception(state)


def Scheduled(
    scheduled_time: datetime | None = None, *, name: str = "Scheduled", message: str | None = None
) -> State[Any]:
    """Waiting for its time; without one, for a worker."""
    details = StateDetails(scheduled_time=scheduled_time or _now())
    return State(StateType.SCHEDULED, name, message, state_details=details)


def AwaitingRetry(scheduled_time: datetime | None = None, *, message: str | None = None) -> State[Any]:
    """Failed, and waiting for its next attempt."""
    return Scheduled(scheduled_time, name="AwaitingRetry", message=message)


def Pending(*, name: str = "Pending", message: str | None = None) -> State[Any]:
    """A worker has it and is about to start."""
    return State(StateType.PENDING, name, message)


def Running(*, name: str = "Running", message: str | None = None) -> State[Any]:
    """The task's code runs."""
    return State(StateType.RUNNING, name, message)


def Retrying(*, message: str | None = None) -> State[Any]:
    """The task's code runs again after a failure."""
    return Running(name="Retrying", message=message)


def Paused(*, name: str = "Paused", message: str | None = None) -> State[Any]:
    """Waiting for somebody to let it go on."""
    return State(StateType.PAUSED, name, message)


def Cancelling(*, message: str | None = None) -> State[Any]:
    """Cancelled while running; the worker has not confirmed yet."""
    return State(StateType.CANCELLING, "Cancelling", message)


def Cancelled(*, name: str = "Cancelled", message: str | None = None, data: Any = None) -> State[Any]:
    """Ended because somebody cancelled it, or because it expired."""
    return State(StateType.CANCELLED, name, message, data=data)


def Completed(*, name: str = "Completed", message: str | None = None, data: T = None) -> State[T]:
    """Ended with a value."""
    return State(StateType.COMPLETED, name, message, data=data)


def Cached(*, message: str | None = None, data: T = None) -> State[T]:
    """Ended with the value of an earlier run with the same cache key."""
    return Completed(name="Cached", message=message, data=data)


def Failed(*, name: str = "Failed", message: str | None = None, data: Any = None) -> State[Any]:
    """Ended with an exception of the task."""
    return State(StateType.FAILED, name, message, data=data)


def TimedOut(*, message: str | None = None, data: Any = None) -> State[Any]:
    """Ended because an attempt took longer than ``timeout_seconds``."""
    return Failed(name="TimedOut", message=message, data=data)


def UpstreamFailed(*, message: str | None = None, data: Any = None) -> State[Any]:
    """Ended without having run, because a run that this one waited for did not complete."""
    return Failed(name="UpstreamFailed", message=message, data=data)


def Crashed(*, name: str = "Crashed", message: str | None = None, data: Any = None) -> State[Any]:
    """Ended because what ran it broke, not the task's own code."""
    return State(StateType.CRASHED, name, message, data=data)
