"""Results of other runs put into the places that a call holds for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect_lite.exceptions import (
    MissingResult,
    PrefectException,
    RunExpired,
    SerializationError,
    UpstreamFailedRun,
)
from prefect_lite.outcomes import open_record, state_from_record
from prefect_lite.placeholders import Upstream, filled
from prefect_lite.states import StateType, result_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect_lite.envelope import Call
    from prefect_lite.keyring import Keyring
    from prefect_lite.protocol.messages import RunState


def fill_in(
    call: Call, outcomes: Mapping[str, RunState], keyring: Keyring, namespace: str
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(args, kwargs) of a call with the results of other runs in their places.

    Args:
        call: With placeholders.
        outcomes: The ends of all these runs.
        keyring: Verifies results.
        namespace: Part of what is signed.

    Raises:
        UpstreamFailedRun: One of them is no success, or unknown, and its placeholder does not tolerate it.
        SerializationError: A result can't be verified or decoded here.
    """
    values: dict[str, Any] = {}

    def value_of(upstream: Upstream) -> Any:
        record = outcomes[upstream.run_id]
        if record.type != StateType.COMPLETED and not upstream.tolerant:
            raise UpstreamFailedRun(
                f"Run {UUID(record.run_id)}, which this one waited for, {ended_how(record)}."
            )
        if upstream.run_id not in values:
            values[upstream.run_id] = _value(record, keyring, namespace)
        return values[upstream.run_id]

    return filled(call.args, call.kwargs, value_of)


def ended_how(record: RunState) -> str:
    """How a run ended that is no success, as the end of a sentence about it."""
    if not record.type:
        return "is unknown: it was never submitted, or ended longer ago than results are kept"
    said = f" ({record.message})" if record.message else ""
    return f"ended as {record.name}{said}"


def _value(record: RunState, keyring: Keyring, namespace: str) -> Any:
    """The value of a completed run, else its exception."""
    if not record.type:
        return RunExpired(f"The broker has no record of run {UUID(record.run_id)} (any more).")
    try:
        data = open_record(keyring, namespace, record)
        return result_of(state_from_record(record, data), raise_on_failure=False)
    except (SerializationError, MissingResult) as exc:
        raise _unusable(record, exc) from exc


def _unusable(record: RunState, exc: PrefectException) -> SerializationError:
    return SerializationError(
        f"The result of run {UUID(record.run_id)} ({record.task_key}), which this one takes, can't be used "
        f"here: {exc}"
    )
