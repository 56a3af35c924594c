"""What the value that a run's function returned says about how the run ended."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from prefect_lite.states import (
    NO_RESULT,
    Cancelled,
    Completed,
    Failed,
    State,
    exception_of,
    is_state_iterable,
    unfinished,
)


def outcome_state(value: Any) -> State[Any] | None:
    """The state that a returned value amounts to; None for plain data, which completes the run.

    As observed in Prefect 3.8.8, for functions of tasks and of flows alike:

    * A state that the function has made ends the run in that state, with its name, message and data. A failed
      one is tried again while retries are left.
    * A state of another run is a value of this one, about whose end it decides as one of a list does.
    * A list, tuple or set that holds states and nothing else stands for all of them, with the collection as
      data: cancelled when one is, else failed when one failed or crashed, else failed when one is not final,
      else completed. For tasks such a failure is not tried again.
    * Everything else is data: an empty list, a list with one other value in it, states in a dict, in a list
      in a list or in an object, exceptions (returned, not raised), and generators.
    * For a task futures are data too; a flow's are replaced by final states first (``with_states``).
    * A direct call of a task gives back the very object that was returned, a failed state too; a direct call
      of a flow gives the data of a returned state or raises its exception, but gives back a collection of
      states whatever they are.

    One thing differs: there a run may end in a state that is not final, or run over and over again
    (``Running()``, ``Scheduled()``). Here each run ends, with such a state as failed; its ``result()`` raises
    the same exception.
    """
    if isinstance(value, State):
        state = cast("State[Any]", value)
        if of_another_run(state):
            return _together((state,)).model_copy(update={"data": state})
        if state.is_final():
            # Made without data: this run has a value, and that is None.
            return state.model_copy(update={"data": None}) if state.data is NO_RESULT else state
        return Failed(message=f"The run returned {state}, which is not final.", data=unfinished(state))
    return _together(value) if is_state_iterable(value) else None


def of_another_run(state: State[Any]) -> bool:
    """Whether this is the state of a run, and not one that somebody has made."""
    details = state.state_details
    return details.task_run_id is not None or details.flow_run_id is not None


def error_of(state: State[Any]) -> BaseException:
    """The exception of a failed, crashed or cancelled state; if it has none, the error that says so."""
    try:
        return exception_of(state)
    except (TypeError, ValueError) as exc:
        return exc


def _together(states: Collection[State[Any]]) -> State[Any]:
    count = len(states)
    if cancelled := sum(state.is_cancelled() for state in states):
        return Cancelled(message=f"{cancelled}/{count} states cancelled.", data=states)
    if failed := sum(state.is_failed() or state.is_crashed() for state in states):
        return Failed(message=f"{failed}/{count} states failed.", data=states)
    if unended := sum(not state.is_final() for state in states):
        return Failed(message=f"{unended}/{count} states are not final.", data=states)
    return Completed(message="All states completed.", data=states)


def with_states(value: Any) -> Any:
    """What a flow returned, with final states in the place of futures, nested ones too; waits for them."""
    from prefect_lite.futures import resolve_futures_to_states

    return resolve_futures_to_states(value)


async def awith_states(value: Any) -> Any:
    """``with_states`` without blocking the event loop."""
    from prefect_lite.futures import futures_in, resolve_futures_to_states, wait_async

    await wait_async(futures_in(value))
    return resolve_futures_to_states(value)
