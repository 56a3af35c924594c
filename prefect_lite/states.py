"""States of a run: the class, its kinds, and a constructor for each name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

from prefect_lite.state_objects import (
    KINDS,
    NO_RESULT,
    State,
    StateDetails,
    awaits,
    exception_of,
    is_kept,
    is_state,
    is_state_iterable,
    now,
    result_of,
    unfinished,
)
from prefect_lite.state_types import PHASE_BY_CODE, TERMINAL_TYPES, RunPhase, StateType

if TYPE_CHECKING:
    from typing import Unpack
    from uuid import UUID

__all__ = [
    "NO_RESULT",
    "PHASE_BY_CODE",
    "TERMINAL_TYPES",
    "AwaitingConcurrencySlot",
    "AwaitingRetry",
    "Cached",
    "Cancelled",
    "Cancelling",
    "Completed",
    "Crashed",
    "Failed",
    "InfrastructurePending",
    "Late",
    "Paused",
    "Pending",
    "Retrying",
    "RunPhase",
    "Running",
    "Scheduled",
    "State",
    "StateDetails",
    "StateType",
    "Submitting",
    "Suspended",
    "TimedOut",
    "UpstreamFailed",
    "exception_of",
    "get_state_exception",
    "is_kept",
    "is_state",
    "is_state_iterable",
    "raise_state_exception",
    "result_of",
    "unfinished",
]

T = TypeVar("T")


class OtherFields(TypedDict, total=False):
    """What every constructor takes beside ``data``; see ``State``."""

    name: str | None
    message: str | None
    timestamp: datetime | None
    state_details: StateDetails | Mapping[str, Any] | None
    id: UUID | None


class StateFields(OtherFields, total=False):
    """What every constructor takes; see ``State``."""

    data: Any


Made = type[State[Any]]
"""What constructors are told to make: ``State`` itself unless somebody has derived from it."""


def _with_name(name: str, fields: StateFields) -> StateFields:
    return cast("StateFields", {"name": name, **fields})


def _named(cls: Made, type: StateType, name: str, fields: StateFields) -> State[Any]:
    return cls(type, **_with_name(name, fields))


def Scheduled(
    cls: Made = State, scheduled_time: datetime | None = None, **fields: Unpack[StateFields]
) -> State[Any]:
    """Waiting for its time; without one, for a worker.

    Raises:
        ValueError: Two times, one of them in ``state_details``.
    """
    made = cls(StateType.SCHEDULED, **fields)
    details = made.state_details
    if details.scheduled_time is not None and scheduled_time is not None:
        raise ValueError("An extra scheduled_time was provided in state_details; give only one of the two.")
    due = details.scheduled_time or scheduled_time or now()
    made.state_details = replace(details, scheduled_time=due)
    return made


def AwaitingRetry(
    cls: Made = State, scheduled_time: datetime | None = None, **fields: Unpack[StateFields]
) -> State[Any]:
    """Failed, and waiting for its next attempt."""
    return Scheduled(cls, scheduled_time, **_with_name("AwaitingRetry", fields))


def AwaitingConcurrencySlot(
    cls: Made = State, scheduled_time: datetime | None = None, **fields: Unpack[StateFields]
) -> State[Any]:
    """Waiting for a place among those that may run at once."""
    return Scheduled(cls, scheduled_time, **_with_name("AwaitingConcurrencySlot", fields))


def Late(
    cls: Made = State, scheduled_time: datetime | None = None, **fields: Unpack[StateFields]
) -> State[Any]:
    """Should have started by now."""
    return Scheduled(cls, scheduled_time, **_with_name("Late", fields))


def Pending(cls: Made = State, **fields: Unpack[StateFields]) -> State[Any]:
    """A worker has it and is about to start."""
    return cls(StateType.PENDING, **fields)


def Submitting(cls: Made = State, **fields: Unpack[StateFields]) -> State[Any]:
    """On its way to what will run it."""
    return _named(cls, StateType.PENDING, "Submitting", fields)


def InfrastructurePending(cls: Made = State, **fields: Unpack[StateFields]) -> State[Any]:
    """What will run it is being set up."""
    return _named(cls, StateType.PENDING, "InfrastructurePending", fields)


def Running(cls: Made = State, **fields: Unpack[StateFields]) -> State[Any]:
    """The task's code runs."""
    return cls(StateType.RUNNING, **fields)


def Retrying(cls: Made = State, **fields: Unpack[StateFields]) -> State[Any]:
    """The task's code runs again after a failure."""
    return _named(cls, StateType.RUNNING, "Retrying", fields)


def Paused(
    cls: Made = State,
    timeout_seconds: float | None = None,
    pause_expiration_time: datetime | None = None,
    reschedule: bool = False,
    pause_key: str | None = None,
    **fields: Unpack[StateFields],
) -> State[Any]:
    """Waiting for somebody to let it go on.

    Raises:
        ValueError: Both times are given.
    """
    if timeout_seconds is not None and pause_expiration_time is not None:
        raise ValueError("Cannot supply both a pause_expiration_time and timeout_seconds: they say the same.")
    made = cls(StateType.PAUSED, **fields)
    if timeout_seconds is not None:
        pause_expiration_time = now() + timedelta(seconds=timeout_seconds)
    if pause_expiration_time is not None:
        made.state_details = replace(
            made.state_details,
            pause_timeout=pause_expiration_time,
            pause_reschedule=reschedule,
            pause_key=pause_key,
        )
    return made


def Suspended(
    cls: Made = State,
    timeout_seconds: float | None = None,
    pause_expiration_time: datetime | None = None,
    pause_key: str | None = None,
    **fields: Unpack[StateFields],
) -> State[Any]:
    """Paused, and no process waits for it."""
    named = _with_name("Suspended", fields)
    return Paused(cls, timeout_seconds, pause_expiration_time, True, pause_key, **named)


def Cancelling(cls: Made = State, **fields: Unpack[StateFields]) -> State[Any]:
    """Cancelled while running; the worker has not confirmed yet."""
    return cls(StateType.CANCELLING, **fields)


def Cancelled(cls: Made = State, **fields: Unpack[StateFields]) -> State[Any]:
    """Ended because somebody cancelled it, or because it expired."""
    return cls(StateType.CANCELLED, **fields)


def Completed(cls: Made = State, *, data: T = NO_RESULT, **fields: Unpack[OtherFields]) -> State[T]:
    """Ended with a value."""
    return cls(StateType.COMPLETED, data=data, **fields)


def Cached(cls: Made = State, *, data: T = NO_RESULT, **fields: Unpack[OtherFields]) -> State[T]:
    """Ended with the value of an earlier run with the same cache key."""
    return Completed(cls, data=data, **cast("OtherFields", {"name": "Cached", **fields}))


def Failed(cls: Made = State, **fields: Unpack[StateFields]) -> State[Any]:
    """Ended with an exception of the task."""
    return cls(StateType.FAILED, **fields)


def TimedOut(cls: Made = State, **fields: Unpack[StateFields]) -> State[Any]:
    """Ended because an attempt took longer than ``timeout_seconds``."""
    return _named(cls, StateType.FAILED, "TimedOut", fields)


def UpstreamFailed(cls: Made = State, **fields: Unpack[StateFields]) -> State[Any]:
    """Ended without having run, because a run that this one waited for did not complete."""
    return _named(cls, StateType.FAILED, "UpstreamFailed", fields)


def Crashed(cls: Made = State, **fields: Unpack[StateFields]) -> State[Any]:
    """Ended because what ran it broke, not the task's own code."""
    return cls(StateType.CRASHED, **fields)


# -- what a failed one stands for ---------------------------------------------------------------------


def get_state_exception(state: State[Any]) -> BaseException:
    """The exception that a failed, crashed or cancelled state stands for; a coroutine like ``State.result``.

    Raises:
        ValueError: The state is of another type, or holds only such.
        TypeError: Its data are neither an exception, a text, nor states.
    """
    return cast("BaseException", _get_exception(state)) if awaits() else exception_of(state)


def raise_state_exception(state: State[Any]) -> None:
    """Raise what a failed, crashed or cancelled state stands for; do nothing for any other.

    A coroutine like ``State.result``.
    """
    if awaits():
        return cast("None", _raise_exception(state))
    if state.type in KINDS:
        raise exception_of(state)
    return None


async def _get_exception(state: State[Any]) -> BaseException:
    return exception_of(state)


async def _raise_exception(state: State[Any]) -> None:
    if state.type in KINDS:
        raise exception_of(state)
