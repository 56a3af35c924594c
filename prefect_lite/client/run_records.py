"""Records of runs on workers, made from what the broker answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from prefect_lite.belonging import restore
from prefect_lite.outcomes import state_from_record
from prefect_lite.protocol.messages import RunState
from prefect_lite.runs import TaskRun
from prefect_lite.states import NO_RESULT, State, StateDetails, StateType

_MS = 1_000_000
"""Nanoseconds."""


def record_of(fields: dict[str, Any]) -> TaskRun:
    """The record of a run.

    Args:
        fields: As QUERY ``record`` and ``runs`` give them; see ``prefect_lite_broker.run_queries.fields_of``.
    """
    key, states = fields["task_key"], cast("list[list[Any]]", fields["states"])
    record = TaskRun(fields["run_id"], key, fields["label"] or key.rpartition(".")[2], 0)
    record.run_count = fields["attempt"]
    record.given_name = fields["run_name"] or None
    record.tags = frozenset(fields["tags"])
    if fields["info"]:
        restore(record, fields["info"])  # nobody has signed it; what can't be read is left out
    record.transitions = [
        (StateType(type), name, message or None, when * _MS) for type, name, when, _, message in states
    ]
    started = [when for type, _, when, *_ in states if type == StateType.RUNNING]
    if started:
        record.start_time_ns = started[0] * _MS
    record.end_time_ns = fields["ended_ms"] * _MS
    record.state = state_of(fields)
    record.expected_start_time = _moment(states[0][3] or states[0][2])
    return record


def state_of(fields: dict[str, Any], data: Any = NO_RESULT) -> State[Any]:
    """Where a run stands.

    Args:
        fields: As for ``record_of``.
        data: Its result, if that was fetched.
    """
    state = RunState(**{name: fields[name] for name in RunState._fields if name in fields})
    missing = data is NO_RESULT and state.type != StateType.COMPLETED
    return state_from_record(state, None if missing else data)


def states_of(fields: dict[str, Any], data: Any = NO_RESULT) -> list[State[Any]]:
    """All states so far, in order; the last one is ``state_of``."""
    before = [_state(fields["run_id"], fields["task_key"], *one) for one in fields["states"][:-1]]
    return [*before, state_of(fields, data)]


def _state(run_id: str, task_key: str, type: str, name: str, when: int, due: int, message: str) -> State[Any]:
    details = StateDetails(
        task_run_id=UUID(run_id), task_key=task_key, scheduled_time=_moment(due) if due else None
    )
    return State(StateType(type), name, message or None, timestamp=_moment(when), state_details=details)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
