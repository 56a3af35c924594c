"""The end of a run as its STATE tells it: verified, decoded, and as a state for users."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect_lite.envelope import open_outcome
from prefect_lite.exceptions import EnvelopeRejected
from prefect_lite.states import NO_RESULT, State, StateDetails, StateType

if TYPE_CHECKING:
    from prefect_lite.keyring import Keyring
    from prefect_lite.protocol.messages import RunState


def open_record(keyring: Keyring, namespace: str, record: RunState) -> Any:
    """What the result of an ended run holds: its value or exception, or what stands for none.

    Raises:
        EnvelopeRejected: Not what a worker has signed for this run, or not for this end of it.
        SerializationError: It can't be decoded here.
    """
    if record.result is None:
        return NO_RESULT if record.type == StateType.COMPLETED else None
    kind, data = open_outcome(keyring, namespace, record.task_key, record.run_id, record.result)
    # The signature holds what the worker said; the rest of the record is only the broker's word.
    if (kind == "value") != (record.type == StateType.COMPLETED):
        raise EnvelopeRejected(
            f"The broker says that run {UUID(record.run_id)} ended as {record.name}, "
            f"but what the worker signed is {'a value' if kind == 'value' else 'an exception'}."
        )
    return data


def state_from_record(record: RunState, data: Any) -> State[Any]:
    """A state of a run as users see it, from its record in the store."""
    milliseconds = record.ended_ms or record.started_ms or record.submitted_ms
    details = StateDetails(
        task_run_id=UUID(record.run_id),
        task_key=record.task_key,
        scheduled_time=_time(record.due_ms) if record.due_ms else None,
        attempt=record.attempt,
        lost=record.lost,
    )
    return State(
        StateType(record.type),
        record.name,
        record.message or None,
        timestamp=_time(milliseconds) if milliseconds else datetime.now(UTC),
        state_details=details,
        data=data,
    )


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
